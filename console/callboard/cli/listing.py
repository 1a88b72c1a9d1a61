"""`callboard list`: tasks and workflows, the newest first."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Any, TypeGuard

import typer
from rich.text import Text

from callboard.census import take_census
from callboard.cli.asking import ask_list
from callboard.cli.following import unoffered
from callboard.cli.loop import run
from callboard.cli.options import Capability, Follow, Json, Nats, Prefix, Rows, Whose, new_app
from callboard.cli.projected import From, list_projected
from callboard.cli.reaching import reach
from callboard.cli.screen import (
    Cell,
    Screen,
    clock_time,
    lasted,
    reason_of,
    state_text,
    visible,
)
from callboard_broker.client import Board
from callboard_broker.errors import BadInput
from callboard_broker.streams import Topology
from callboard_ledger.views import FlowView, ScheduleView, TaskView

__all__ = ["app", "list_rows", "show_rows"]

app = new_app()

_PAGE = 1000
_EVERY_SECONDS = 1.0

Row = TaskView | FlowView | ScheduleView


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
    schedule = "schedule"


_EPILOG = """callboard list --state failed --tenant acme

callboard list --kind flow --limit 5

callboard list --dead --capability review.python

callboard list --workflow 17 --state waiting

callboard list --limit 100 --before 4711

callboard list --follow

callboard list --from postgres://callboard@db/callboard

callboard list --json | jq -r 'select(.lost > 0) | .id'

With --json each row is one line."""


@app.command("list", epilog=_EPILOG)
def listing(  # noqa: PLR0913  each is an option of the command
    *,
    state: Annotated[State | None, typer.Option(help="Only these.", show_default=False)] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only these.", show_default=False)] = None,
    capability: Capability = None,
    workflow: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Only what belongs to it.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only workflows of this name.", show_default=False),
    ] = None,
    dead: Annotated[bool, typer.Option("--dead", help="What failed or expired.")] = False,
    follow: Follow = False,
    limit: Rows = 20,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Only what is older than this one: the last of the page before.",
            show_default=False,
        ),
    ] = None,
    tenant: Whose = "all",
    source: From = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """List tasks, workflows and schedules, the newest first."""
    question: dict[str, Any] = {
        "state": None if state is None else state.value,
        "kind": None if kind is None else kind.value,
        "capability": capability,
        "name": name,
        "flow": workflow,
        "dead": dead or None,
        "before": before,
    }
    question = {name: value for name, value in question.items() if value is not None}

    if follow and before is not None:
        raise BadInput("before", "it has no place beside --follow, which shows what is new")

    async def work() -> None:
        screen = Screen(json=json)
        if source is not None:
            found = await list_projected(source, prefix, question, tenant=tenant, limit=limit)
            show_rows(screen, found, "nothing is like that")
            return
        async with reach(nats, prefix, name="callboard list") as board:
            if follow:
                await _follow(board, question, tenant, screen)
            rows = await list_rows(board, question, tenant, limit)
            waiting = {row.capability for row in rows if _waits(row)}
            unserved: list[str] = []
            if waiting and not json:
                census = await take_census(board.connection, Topology(board.subjects))
                unserved = unoffered(census, waiting)
        nothing = "nothing is listed: post something with `callboard submit`"
        nothing = "nothing is like that" if question else nothing
        show_rows(screen, rows, nothing, unserved)

    run(work())


async def list_rows(board: Board, question: dict[str, Any], tenant: str, limit: int) -> list[Row]:
    """Ask the ledger, page by page. Raises `NoResponder`, `BadInput`."""
    rows: list[Row] = []
    while len(rows) < limit:
        asked = {**question, "limit": min(_PAGE, limit - len(rows))}
        page = await ask_list(board, asked, tenant)
        rows += page.items
        if not page.items:
            break
        question = {**question, "before": page.items[-1].id}
    return rows


async def _follow(board: Board, question: dict[str, Any], tenant: str, screen: Screen) -> None:
    """Show each row when it appears or its state changes, the oldest first, without an end."""
    seen: dict[str, str] = {}
    while True:
        rows = await list_rows(board, question, tenant, _PAGE)
        for row in reversed(rows):
            if seen.get(row.id) == row.state:
                continue
            if screen.json:
                screen.document(row)
            else:
                screen.line(_line(row))
        seen = {row.id: row.state for row in rows}
        await asyncio.sleep(_EVERY_SECONDS)


def show_rows(
    screen: Screen, rows: list[Row], nothing: str, unserved: Collection[str] = ()
) -> None:
    """The table of rows, or a document for each.

    nothing: noted if there are none. unserved: capabilities that no agent offers.
    """
    if screen.json:
        for row in rows:
            screen.document(row)
    elif rows:
        screen.table(_COLUMNS, [_row(row, unserved) for row in rows], fold="why")
    else:
        screen.note(nothing)


_COLUMNS = ("id", "state", "what", "tenant", "posted", "took#", "tries#", "why")


def _waits(item: Row) -> TypeGuard[TaskView]:
    return isinstance(item, TaskView) and item.state == "waiting"


def _row(item: Row, unserved: Collection[str]) -> list[Cell]:
    tries: int | None
    if isinstance(item, FlowView):
        what, begun, tries = f"workflow {item.name}", item.posted_at, None
    elif isinstance(item, ScheduleView):
        what, begun, tries = f"{item.capability} at {item.expression}", item.posted_at, item.number
    else:
        begun = item.posted_at or item.dispatched_at
        what, tries = item.capability or "gate", item.attempt
    took = lasted(begun, item.ended_at)
    state = state_text(item.state)
    if item.paused and item.ended_at is None:
        state.append(" (paused)")
    return [item.id, state, what, item.tenant, clock_time(begun), took, tries, _why(item, unserved)]


def _line(item: Row) -> Text:
    """A row alone, without a table around it."""
    _, state, what, tenant, begun, took, _, why = _row(item, ())
    words = [begun, item.id.ljust(8), state, what, tenant, took, why]
    texts = [word if isinstance(word, Text) else Text(visible(str(word))) for word in words if word]
    return Text("  ").join(texts)


def _why(item: Row, unserved: Collection[str]) -> str:
    """Why it ended as it did, or what it waits for, in one line."""
    if item.error is not None:
        return reason_of(item.error)
    if isinstance(item, FlowView):
        return ", ".join(f"{gate} waits for {what}" for gate, what in item.waits.items())
    if isinstance(item, ScheduleView):
        return f"next at {clock_time(item.next_at)}" if item.next_at is not None else ""
    if item.waits:
        return f"waits for {item.waits}"
    return "no agent offers it" if _waits(item) and item.capability in unserved else ""
