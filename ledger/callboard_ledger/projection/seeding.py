"""Begins a projection in the middle: with the ledger's rows, where the journal was purged before.

The rows are read from a copy of the ledger's database, which may be in use. The position is
written last, so that a seeding that was interrupted is begun again.
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import tempfile
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from callboard_broker.errors import BadInput
from callboard_ledger.book import Book
from callboard_ledger.performance import Performance
from callboard_ledger.projection.batch import Batch, Beside, Item, holdings_of
from callboard_ledger.projection.delivery import Delivery, Standing
from callboard_ledger.projection.documents import document_of, kind_of
from callboard_ledger.projection.target import Target
from callboard_ledger.rows import Changes, Flow, Merge, Row, Task
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.store import AllocationsQuery, FailuresQuery, FiguresQuery

__all__ = ["seed"]

_log = logging.getLogger(__name__)

_PAGE = 1000


async def seed(
    target: Target, ledger: Path, *, stream: str, board: str, beside: Beside | None = None
) -> None:
    """Write all rows of the ledger in the directory `ledger`, and its position.

    Does nothing if the ledger is of another journal than `stream`. Raises `BadInput` if it cannot
    be read; waits while the target is away.
    """
    name, _, created = stream.partition(" ")
    with tempfile.TemporaryDirectory(prefix="callboard-seed-") as directory:
        copy = Path(directory) / "ledger.db"
        database = ledger / "ledger.db"
        try:
            with (
                closing(
                    sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
                ) as kept,
                closing(sqlite3.connect(copy)) as own,
            ):
                kept.backup(own)
        except (sqlite3.Error, OSError) as error:
            raise BadInput("ledger", f"{database} cannot be read: {error}") from error
        with closing(SqliteStore(copy, stream=name, created=created)) as store:
            await _write(target, store, stream, board, beside)


async def _write(
    target: Target, store: SqliteStore, stream: str, board: str, beside: Beside | None
) -> None:
    live = store.load()
    if not live.position:
        return
    Book().restore(live)  # gives live workflows their elements: they say which gates are open
    delivery = Delivery(target, Standing())
    head: dict[str, Any] = {"stream": stream, "board": board, "after": 0, "position": 0}
    head |= {"at": 0, "epoch": 0, "void": 0, "malformed": 0}
    for rows in (iter(live.flows), store.every()):  # what was written once stays as it is
        while page := list(islice(rows, _PAGE)):
            items = [Item(kind_of(row), row.seq, str(row.seq), document_of(row)) for row in page]
            if beside is not None:
                items += beside(stream, [], _alone(live, page))
            await delivery.deliver(Batch(head=head, items=items))
    performance = Performance()
    performance.by_key = dict(store.figures(FiguresQuery()))
    performance.failures = dict(store.failures(FailuresQuery(limit=sys.maxsize)))
    holdings = Changes(
        position=0,
        at_ms=0,
        epoch=0,
        void=0,
        malformed=0,
        allocations=store.allocations(AllocationsQuery(limit=sys.maxsize)),
        accounts=live.accounts,
        performance=performance,
    )
    rest = iter(holdings_of(holdings))
    while part := list(islice(rest, _PAGE)):
        await delivery.deliver(Batch(head=head, items=part))
    counts = {"epoch": live.epoch, "void": live.void, "malformed": live.malformed}
    last = {**head, **counts, "position": live.position, "at": live.at_ms}
    await delivery.deliver(Batch(head=last, items=[]))
    _log.info("began at %d, with the ledger's rows", live.position)


def _alone(live: Changes, page: list[Row | Merge]) -> Changes:
    """Rows of the ledger as if they had changed just now."""
    return Changes(
        position=live.position,
        at_ms=live.at_ms,
        epoch=live.epoch,
        void=live.void,
        malformed=live.malformed,
        tasks=[row for row in page if isinstance(row, Task)],
        flows=[row for row in page if isinstance(row, Flow)],
    )
