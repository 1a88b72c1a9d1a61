"""Builds a ledger's database anew from a projection: where the journal alone cannot any more.

The rows go into a draft beside the place, which takes its name only when it is complete.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from callboard_broker.errors import BadInput
from callboard_ledger.allocations import Allocation
from callboard_ledger.directory import LedgerDirectory
from callboard_ledger.performance import Performance
from callboard_ledger.projection.reader import TargetReader
from callboard_ledger.projection.target import Target
from callboard_ledger.rows import Changes, CommandRow, Flow, Merge, Row, Schedule, Task
from callboard_ledger.sqlite_store import SqliteStore

__all__ = ["Restored", "restore"]

_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """journal: its name and when it was created. position: from where a ledger reads on."""

    journal: str
    position: int
    rows: int


async def restore(target: Target, stream: str, ledger: Path) -> Restored:
    """Write the projection of `stream` into the ledger's directory.

    Raises `StoreLocked` while a ledger uses it, `BadInput` if it holds a database already or the
    target nothing or is being written to, and what the target raises.
    """
    reader = TargetReader(target, stream)
    head = await reader.head()
    if not head.position:
        raise BadInput("from", f"{target.name} holds nothing of {stream}")
    with LedgerDirectory(ledger) as directory:
        if directory.database.exists():
            raise BadInput("store", f"{directory.database} is there; move it away first")
        draft = directory.path / "ledger.db.draft"
        draft.unlink(missing_ok=True)
        name, _, created = stream.partition(" ")
        count = 0
        with closing(SqliteStore(draft, stream=name, created=created)) as store:
            page: list[Row | Merge] = []
            async for row in reader.every():
                page.append(row)
                count += 1
                if len(page) == _PAGE:
                    store.save(_changes(head, page))
                    page = []
            store.save(_changes(head, page))
            await _add_holdings(store, reader, head)
        if (await reader.head()).position != head.position:
            raise BadInput("from", f"a projector writes to {target.name}: stop it first")
        draft.replace(directory.database)
    return Restored(journal=stream, position=head.position, rows=count)


async def _add_holdings(store: SqliteStore, reader: TargetReader, head: Changes) -> None:
    """What attempts hold, what of budgets is used, and the figures."""
    allocations: list[Allocation] = []
    async for row in reader.allocations():
        allocations.append(row)
        if len(allocations) == _PAGE:
            store.save(replace(head, allocations=allocations))
            allocations = []
    performance = Performance()
    performance.by_key = {key: tally async for key, tally in reader.figures()}
    performance.failures = {key: tally async for key, tally in reader.failures()}
    accounts = await reader.accounts()
    store.save(replace(head, allocations=allocations, accounts=accounts, performance=performance))


def _changes(head: Changes, rows: list[Row | Merge]) -> Changes:
    flows = [row for row in rows if isinstance(row, Flow)]
    for flow in flows:
        flow.stored = False  # its plan is still to be written
    return Changes(
        position=head.position,
        at_ms=head.at_ms,
        epoch=head.epoch,
        void=head.void,
        malformed=head.malformed,
        tasks=[row for row in rows if isinstance(row, Task)],
        flows=flows,
        schedules=[row for row in rows if isinstance(row, Schedule)],
        commands=[row for row in rows if isinstance(row, CommandRow)],
        merges=[row for row in rows if isinstance(row, Merge)],
    )
