"""`callboard list`: tasks and workflows, the newest first."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from callboard.cli.asking import ask_list
from callboard.cli.loop import run
from callboard.cli.options import Json, Nats, Prefix, new_app
from callboard.cli.reaching import reach
from callboard.cli.screen import Cell, Screen, clock_time, state_text
from callboard_ledger.views import FlowView, TaskView

__all__ = ["app", "lasted", "why"]

app = new_app()

_PAGE = 1000


class State(StrEnum):
    """As every output names it."""

    waiting = "waiting"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"
    expired = "expired"


class Kind(StrEnum):
    """What is listed."""

    task = "task"
    flow = "flow"


_EPILOG = """callboard list --state failed --tenant acme

callboard list --kind flow --limit 5

callboard list --json | jq -r 'select(.lost > 0) | .id'

With --json each row is one line."""


@app.command("list", epilog=_EPILOG)
def listing(
    *,
    state: Annotated[State | None, typer.Option(help="Only these.", show_default=False)] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only these.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Rows at most.")] = 20,
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Whose; `all` for each.")] = "all",
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """List tasks and workflows, the newest first."""

    async def work() -> None:
        screen = Screen(json=json)
        items: list[TaskView | FlowView] = []
        async with reach(nats, prefix, name="callboard list") as board:
            question: dict[str, Any] = {}
            if state is not None:
                question["state"] = state.value
            if kind is not None:
                question["kind"] = kind.value
            while len(items) < limit:
                question["limit"] = min(_PAGE, limit - len(items))
                page = await ask_list(board, question, tenant)
                items += page.items
                if not page.items:
                    break
                question["before"] = page.items[-1].id
        if json:
            for item in items:
                screen.document(item)
        elif items:
            screen.table(_COLUMNS, [_row(item) for item in items], fold="why")
        else:
            screen.note("nothing is listed: post something with `callboard submit`")

    run(work())


_COLUMNS = ("id", "state", "what", "tenant", "posted", "took#", "tries#", "why")


def _row(item: TaskView | FlowView) -> list[Cell]:
    tries: int | None
    if isinstance(item, FlowView):
        what, begun, tries = f"workflow {item.name}", item.posted_at, None
    else:
        begun = item.posted_at or item.dispatched_at
        what, tries = item.capability, item.attempt
    took = lasted(begun, item.ended_at)
    posted = clock_time(begun)
    return [item.id, state_text(item.state), what, item.tenant, posted, took, tries, why(item)]


def lasted(begun: int | None, ended: int | None) -> str:
    """Unix milliseconds to a duration, or nothing if it has not ended."""
    if begun is None or ended is None:
        return ""
    took = ended - begun
    return f"{took} ms" if took < 1000 else f"{took / 1000:.1f} s"


def why(item: TaskView | FlowView) -> str:
    """Why it ended as it did, in one line."""
    if item.error is None:
        return ""
    field = f"{item.error.field}: " if item.error.field else ""
    return f"{item.error.type}: {field}{item.error.message}"
