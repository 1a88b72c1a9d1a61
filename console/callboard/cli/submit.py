"""`callboard submit`: posts one task, and waits for it if asked to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from callboard.cli.following import follow_or_name, say_if_nobody_offers
from callboard.cli.loop import run
from callboard.cli.options import Json, Nats, Prefix, Tenant, new_app, seconds
from callboard.cli.reaching import reach
from callboard.cli.screen import Screen
from callboard_broker.bounds import check_document
from callboard_broker.errors import BadInput

__all__ = ["app", "read_json"]

app = new_app()

_EPILOG = """callboard submit review.python '{"path": "app.py"}' --wait

callboard submit translate @document.json --tenant acme --priority 8 --key order-17

generate | callboard submit index -

Exit code 1 with --wait: the task failed. Without it, the id is all that is printed."""


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
    key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Post it once only, whoever repeats.", show_default=False),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            parser=seconds,
            metavar="SECONDS",
            help="How long a handler may run: 90, 90s, 2h.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the result.")] = False,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Post a task for whichever agent offers CAPABILITY."""
    value = read_json(payload)

    async def work() -> int:
        screen = Screen(json=json)
        async with reach(nats, prefix, name="callboard submit", tenant=tenant) as board:
            handle = await board.submit(
                capability, value, priority=priority, key=key, timeout=timeout
            )
            await say_if_nobody_offers(board, {capability}, screen)
            return await follow_or_name(handle, screen, wait=wait)

    raise typer.Exit(run(work()))


def read_json(text: str, field: str = "payload") -> Any:
    """The value of an argument: JSON, `@file` or `-`. Raises `BadInput`, `OSError`."""
    if text == "-":
        data = sys.stdin.buffer.read()
    elif text.startswith("@"):
        data = Path(text[1:]).read_bytes()
    else:
        data = text.encode(errors="surrogateescape")
    check_document(data, field=field)
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        hint = "" if text[:1] in '@-{["' else "; text must be quoted, as in '\"hello\"'"
        raise BadInput(field, f"{shown} is not JSON: {error}{hint}") from error
