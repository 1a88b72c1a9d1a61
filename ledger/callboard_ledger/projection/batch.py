"""What one call writes: events, the rows that they changed, and the position up to which it goes.

A batch is bytes from its birth: the fold goes on while it is on its way, and it is sent again as
it is until the database has it. Its items can be sent in parts, on trial, to find one that the
database refuses.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import msgspec

from callboard_broker.record import Record
from callboard_ledger.aggregate import Verdict
from callboard_ledger.projection.documents import document_of, kind_of
from callboard_ledger.projection.events import event_document
from callboard_ledger.projection.holdings import (
    account_document,
    allocation_document,
    failure_document,
    failures_of,
    figure_document,
    figures_of,
)
from callboard_ledger.reading import Reading
from callboard_ledger.rows import Changes, Merge, Row

__all__ = ["Batch", "Beside", "Folded", "Gathering", "Item", "Parked", "holdings_of"]

_SHOWN = 512
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Item:
    """A row of a batch. kind: `event`, `task`, ... id: what a person would call it."""

    kind: str
    seq: int
    id: str
    document: bytes


class Folded(NamedTuple):
    """A record of the batch, and what the fold made of it."""

    record: Record
    reading: Reading
    verdict: Verdict


class Beside(Protocol):
    """Makes rows of somebody else's tables, which the target writes with the batch.

    It is a pure function: the same batch gives the same items, also after a crash.
    """

    def __call__(
        self, stream: str, folded: Sequence[Folded], changes: Changes, /
    ) -> Iterable[Item]: ...


@dataclass(frozen=True, slots=True)
class Parked:
    """An item that the database refuses, and why."""

    item: Item
    sqlstate: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """head: the fields that are no rows. position: the last sequence that it holds."""

    head: dict[str, Any]
    items: Sequence[Item]

    @property
    def after(self) -> int:
        """The position that the database must have."""
        return int(self.head["after"])

    @property
    def position(self) -> int:
        return int(self.head["position"])

    def document(self, parked: Sequence[Parked] = ()) -> str:
        """The whole batch, but for what is parked."""
        out = {id(entry.item) for entry in parked}
        head = dict(self.head)
        if parked:
            head["parked"] = [_parked(entry) for entry in parked]
        return _joined(head, [item for item in self.items if id(item) not in out])

    def trial(self, items: Sequence[Item]) -> str:
        """A part of it that is not to be kept."""
        return _joined({**self.head, "trial": True}, items)


class Gathering:
    """What was folded since the last batch. `add` after each fold; `take` makes a batch of it.

    event_bytes: of a body that is kept. beside: see `Beside`.
    """

    def __init__(
        self,
        stream: str,
        board: str,
        position: int,
        *,
        event_bytes: int,
        beside: Beside | None = None,
    ) -> None:
        self._stream = stream
        self._board = board
        self._position = position
        self._event_bytes = event_bytes
        self._beside = beside
        self._events: list[Item] = []
        self._folded: list[Folded] = []
        self.size = 0
        """Bytes of the events."""

    def __len__(self) -> int:
        return len(self._events)

    def add(self, record: Record, reading: Reading, verdict: Verdict) -> None:
        """A record that was folded now."""
        document = event_document(record, reading, verdict, most=self._event_bytes)
        self._events.append(Item("event", record.seq, str(record.seq), document))
        self.size += len(document)
        if self._beside is not None:
            self._folded.append(Folded(record, reading, verdict))

    def take(self, changes: Changes) -> Batch:
        """Everything up to the position of `changes`, which the fold may forget afterwards."""
        items, self._events, self.size = self._events, [], 0
        for row in _changed(changes):
            items.append(Item(kind_of(row), row.seq, _name(row), document_of(row)))
        items += holdings_of(changes)
        if self._beside is not None:
            items += self._beside(self._stream, self._folded, changes)
            self._folded = []
        head: dict[str, Any] = {
            "stream": self._stream,
            "board": self._board,
            "after": self._position,
            "position": changes.position,
            "at": changes.at_ms,
            "epoch": changes.epoch,
            "void": changes.void,
            "malformed": changes.malformed,
        }
        if changes.gone:
            head["gone"] = list(changes.gone)
        if changes.closed:
            head["closed"] = list(changes.closed)
        self._position = changes.position
        return Batch(head=head, items=items)


def _changed(changes: Changes) -> Iterable[Row | Merge]:
    gone = {merge.seq for merge in changes.merges}
    for rows in (changes.tasks, changes.flows, changes.schedules, changes.commands):
        for row in rows:
            if row.seq not in gone:
                yield row
    yield from changes.merges


def holdings_of(changes: Changes) -> Iterable[Item]:
    """What attempts hold, budgets, and what is added to figures."""
    for row in changes.allocations:
        yield Item("attempt", row.seq, row.task, allocation_document(row))
    for account in changes.accounts:
        yield Item("budget", 0, account.key, account_document(account))
    for key, tally in figures_of(changes.performance).items():
        yield Item("performance", 0, "/".join(map(str, key)), figure_document(key, tally))
    for kind, failure in failures_of(changes.performance).items():
        yield Item("failure", 0, "/".join(kind)[:_SHOWN], failure_document(kind, failure))


def _name(row: Row | Merge) -> str:
    return str(row.seq) if isinstance(row, Merge) else row.id


def _joined(head: dict[str, Any], items: Sequence[Item]) -> str:
    parts = [_encoder.encode(head)[:-1]]
    kinds: dict[str, list[bytes]] = {}
    for item in items:
        kinds.setdefault(item.kind, []).append(item.document)
    for kind, documents in kinds.items():
        parts.append(b',"%b":[%b]' % (kind.encode(), b",".join(documents)))
    return b"".join([*parts, b"}"]).decode()


def _parked(entry: Parked) -> dict[str, Any]:
    item = entry.item
    return {
        "kind": item.kind,
        "seq": item.seq,
        "id": item.id.replace("\0", ""),
        "sqlstate": entry.sqlstate,
        "reason": entry.reason[:500].replace("\0", ""),
        "doc": base64.b64encode(item.document).decode(),
    }
