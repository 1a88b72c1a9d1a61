"""A ledger without a server: a journal is folded into a store, and killed on the way."""

from __future__ import annotations

from pathlib import Path

from callboard_broker.record import Record
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.sqlite_store import SqliteStore
from tests.ledger_journal import SUBJECTS

__all__ = ["fold_with_kills"]


def fold_with_kills(journal: list[Record], seed: int, path: Path) -> SqliteStore:
    """Save now and then, and begin again from what was saved."""
    store = SqliteStore(path, stream="JOURNAL")
    aggregator = Aggregator(SUBJECTS)
    for number, record in enumerate(journal):
        aggregator.apply(record)
        if number % (seed % 7 + 2) == 0:
            changes = aggregator.changes()
            store.save(changes)
            aggregator.saved(changes)
        if number % 97 == seed % 97:  # killed: what was not saved is folded again
            store.close()
            store = SqliteStore(path, stream="JOURNAL")
            aggregator = Aggregator(SUBJECTS)
            aggregator.restore(store.load())
            for again in journal[aggregator.position : number + 1]:
                aggregator.apply(again)
    store.save(aggregator.changes())
    return store
