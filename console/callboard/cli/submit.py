"""`callboard submit`: posts one task, and waits for it if asked to."""

from __future__ import annotations

from typing import Annotated

import typer

from callboard.cli.following import follow_or_name, say_if_nobody_offers
from callboard.cli.loop import run
from callboard.cli.options import Json, Key, Nats, Prefix, Tenant, Trace, duration, new_app
from callboard.cli.reaching import reach
from callboard.cli.reading import read_json
from callboard.cli.screen import Screen
from callboard.cli.terms import Terms, read_terms
from callboard_broker.errors import BadInput

__all__ = ["app"]

app = new_app()

_EPILOG = """callboard submit review.python '{"path": "app.py"}' --wait

callboard submit translate @document.json --tenant acme --priority 8 --key order-17

generate | callboard submit index -

callboard submit ask.llm @question.json --retry 3 --budget provider:openai --unit tokens=2000

callboard submit train 7 --need label=gpu:a100 --need memory=40000 --queue-timeout 10m

callboard submit report.daily --cron '0 6 * * 1-5' --zone Europe/Berlin

Exit code 1 with --wait: the task failed. Without it, the id is all that is printed. Parts of the \
result that the handler gives before its end come on stderr."""


@app.command(epilog=_EPILOG)
def submit(  # noqa: PLR0913  each is an option of the command
    capability: Annotated[str, typer.Argument(help="Such as review.python.", show_default=False)],
    payload: Annotated[
        str,
        typer.Argument(metavar="JSON|@FILE|-", help="The payload; `-` reads it from stdin."),
    ] = "null",
    *,
    tenant: Tenant = "default",
    priority: Annotated[int, typer.Option(min=0, max=9, help="0 last, 9 first.")] = 5,
    key: Key = None,
    timeout: Annotated[
        float | None,
        duration("How long a handler may run: 90, 90s, 2h."),
    ] = None,
    retry: Annotated[
        str | None,
        typer.Option(
            metavar="N|JSON",
            help='Attempts in all; or e.g. {"attempts": 5, "delay": 2, "elsewhere": true}.',
            show_default=False,
        ),
    ] = None,
    delay: Annotated[
        float | None,
        duration("Not before."),
    ] = None,
    cron: Annotated[
        str | None,
        typer.Option(
            metavar="'M H D M W'", help="Again and again: five fields.", show_default=False
        ),
    ] = None,
    zone: Annotated[str, typer.Option(metavar="ZONE", help="Of --cron.")] = "UTC",
    overlap: Annotated[
        bool, typer.Option("--overlap", help="With --cron: although the last one still runs.")
    ] = False,
    queue_timeout: Annotated[
        float | None,
        duration("To the first start."),
    ] = None,
    start_timeout: Annotated[
        float | None,
        duration("From a dispatch to its handler."),
    ] = None,
    heartbeat_timeout: Annotated[
        float | None,
        duration("Between two signs of life of a handler."),
    ] = None,
    total_timeout: Annotated[
        float | None,
        duration("To its end, retries included."),
    ] = None,
    needs: Annotated[
        list[str] | None,
        typer.Option(
            "--need",
            metavar="WHAT=VALUE",
            help="label=KEY:VALUE, specialization, version (a range), cpu, memory (MB), stay-with "
            "or avoid (a host); may be repeated.",
        ),
    ] = None,
    budgets: Annotated[
        list[str] | None,
        typer.Option("--budget", metavar="NAME", help="It draws on this one too; repeatable."),
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option("--unit", metavar="UNIT=N", help="What an attempt reserves; repeatable."),
    ] = None,
    trace: Trace = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result.")] = False,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Post a task for whichever agent offers CAPABILITY."""
    value = read_json(payload)
    options = read_terms(
        Terms(
            retry=retry,
            delay=delay,
            cron=cron,
            zone=zone,
            overlap=overlap,
            queue=queue_timeout,
            start=start_timeout,
            heartbeat=heartbeat_timeout,
            total=total_timeout,
            needs=needs or (),
            budgets=budgets or (),
            units=units or (),
        )
    )
    if trace is not None:
        options["trace"] = trace
    if wait and cron is not None:
        raise BadInput("wait", "a schedule has no end to wait for; leave --wait out")

    async def work() -> int:
        screen = Screen(json=json)
        async with reach(nats, prefix, name="callboard submit", tenant=tenant) as board:
            await say_if_nobody_offers(board, {capability}, screen)
            if wait:
                await board.listen()
            handle = await board.submit(
                capability, value, priority=priority, key=key, timeout=timeout, **options
            )
            return await follow_or_name(handle, screen, wait=wait)

    raise typer.Exit(run(work()))
