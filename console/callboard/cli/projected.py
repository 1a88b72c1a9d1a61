"""`status` and `list` from a projector's database: they work although no board runs any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from callboard.cli.projector import stream_of
from callboard.targets import address_of, open_target
from callboard_broker.errors import BadInput, UnknownTask
from callboard_broker.subjects import ALL_TENANTS
from callboard_config import load_settings
from callboard_ledger.projection.reader import TargetReader
from callboard_ledger.store import Query
from callboard_ledger.viewing import view
from callboard_ledger.views import CommandView, FlowView, RowView, ScheduleView, TaskView

__all__ = ["From", "list_projected", "overview_projected", "status_projected"]

_COUNTED = 1000

From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TARGET",
        help="Ask a projector's database instead of the board: postgres://..., or supabase.",
        show_default=False,
    ),
]


async def status_projected(source: str, prefix: str | None, task: str, tenant: str) -> RowView:
    """What the database knows of a row. Raises `UnknownTask`, `TargetAway`, `TargetRefused`."""
    async with _opened(source, prefix) as there:
        row = await there.reader.row(task)
        if row is None or tenant not in (row.tenant, ALL_TENANTS):
            raise UnknownTask(task, tenant)
        shown = view(row)
    if shown.id != task:
        shown.same_as = shown.id
    return shown


async def list_projected(
    source: str, prefix: str | None, question: dict[str, Any], *, tenant: str, limit: int
) -> list[TaskView | FlowView | ScheduleView]:
    """Rows as `list` shows them. question: as the ledger is asked. Raises `BadInput`, and as
    `status_projected`."""
    rows: list[TaskView | FlowView | ScheduleView] = []
    question = dict(question)
    last = question.pop("before", None)
    async with _opened(source, prefix) as there:
        row = None if last is None else await there.reader.row(last)
        if last is not None and row is None:
            raise BadInput("before", f"{last!r} is not the id of a task or workflow")
        before = None if row is None else row.seq
        while len(rows) < limit:
            most = min(_COUNTED, limit - len(rows))
            whose = None if tenant == ALL_TENANTS else tenant
            query = Query(**question, tenant=whose, before=before, limit=most)
            found = await there.reader.find(query)
            shown = [view(row) for row in found]
            rows += [item for item in shown if not isinstance(item, CommandView)]
            if len(found) < most:
                break
            before = found[-1].seq
    return rows


async def overview_projected(source: str, prefix: str | None) -> dict[str, Any]:
    """Where the database is, and what was at work then."""
    async with _opened(source, prefix) as there:
        head = await there.reader.head()
        counts = {}
        for state in ("waiting", "running"):
            counts[state] = len(
                await there.reader.find(Query(kind="task", state=state, limit=_COUNTED))
            )
        return {
            "from": there.name,
            "journal": there.reader.stream,
            "position": head.position,
            "at": head.at_ms,
            "tasks": counts,
            "parked": len(await there.reader.parked()),
        }


@dataclass(frozen=True, slots=True)
class _There:
    name: str
    reader: TargetReader


@asynccontextmanager
async def _opened(source: str, prefix: str | None) -> AsyncIterator[_There]:
    settings = load_settings(overrides={"board.prefix": prefix})
    target = open_target(address_of(source, settings, "--from"), settings)
    try:
        stream = await stream_of(target, settings.board.prefix)
        yield _There(target.name, TargetReader(target, stream))
    finally:
        await target.close()
