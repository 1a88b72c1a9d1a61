"""`callboard run`: posts a workflow from a YAML file and follows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from callboard.cli.following import follow_or_name, say_if_nobody_offers
from callboard.cli.loop import run as run_coroutine
from callboard.cli.options import Json, Key, Nats, Prefix, Tenant, Trace, duration, new_app
from callboard.cli.reaching import reach
from callboard.cli.screen import Screen
from callboard_broker.errors import BadInput
from callboard_broker.wire import Step
from callboard_broker.workflow import Workflow

__all__ = ["app"]

app = new_app()

_EPILOG = """callboard run review.yaml --input root=./src --input depth=3

callboard run nightly.yaml --tenant acme --no-wait

callboard run release.yaml --timeout 2h

Values of --input are JSON where they can be read so, and text otherwise. Exit code 1: the \
workflow failed. Ctrl-C leaves it running: `callboard status ID` finds it again."""


@app.command(epilog=_EPILOG)
def run(  # noqa: PLR0913  each is an option of the command
    workflow: Annotated[
        Path, typer.Argument(metavar="WORKFLOW.yaml", help="Its steps.", show_default=False)
    ],
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="KEY=VALUE", help="What it refers to as inputs."),
    ] = None,
    tenant: Tenant = "default",
    key: Key = None,
    timeout: Annotated[
        float | None,
        duration("Until it expires as a whole: 90, 90s, 2h."),
    ] = None,
    trace: Trace = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the result.")] = True,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Post a workflow: steps that depend on each other, run by the router, whoever goes away."""
    flow = Workflow.load(workflow)
    values = dict(_pair(text) for text in inputs or ())
    needed = _capabilities(flow.spec(values).steps)

    async def work() -> int:
        screen = Screen(json=json)
        async with reach(nats, prefix, name="callboard run", tenant=tenant) as board:
            await say_if_nobody_offers(board, needed, screen)
            if wait:
                await board.listen()
            handle = await board.run(flow, values, key=key, timeout=timeout, trace=trace)
            return await follow_or_name(handle, screen, wait=wait)

    raise typer.Exit(run_coroutine(work()))


def _capabilities(steps: list[Step]) -> set[str]:
    """What agents are needed for, also inside of steps and to undo them."""
    found = {step.capability for step in steps if step.capability}
    found |= {step.compensate.capability for step in steps if step.compensate is not None}
    for step in steps:
        if step.flow is not None:
            found |= _capabilities(step.flow.steps)
    return found


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadInput("input", f"{text!r} is not KEY=VALUE")
    try:
        return name, msgspec.json.decode(value)
    except msgspec.MsgspecError:
        return name, value
