"""Whether the journal is what the audit log says it was: names every event and batch that is not.

AUDIT is read first (its chain of heads is checked, and 40 bytes of every leaf are kept), then the
journal is compared with it in one pass. What a chain alone cannot show, that its tail was cut or
that all of it was written anew, the heads kept outside the server show.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from callboard_broker.connection import Connection
from callboard_broker.errors import BadInput
from callboard_broker.record import Record
from callboard_broker.streams import Topology
from callboard_ledger.heads import Head
from callboard_ledger.leaves import GENESIS, Batch, chain, decode_batch, event_hash, hashes
from callboard_ledger.scan import scan

__all__ = ["Finding", "FindingKind", "Verifier", "VerifyReport", "verify", "verify_board"]

FindingKind = Literal[
    "event-changed",
    "event-missing",
    "event-inserted",
    "event-unseen",
    "journal-replaced",
    "batch-changed",
    "batch-missing",
    "chain-broken",
    "audit-cut",
    "audit-rewritten",
]

_SAY: dict[FindingKind, str] = {
    "event-changed": "changed since it was audited: event {}",
    "event-missing": "audited, and no longer in the journal: event {}",
    "event-inserted": "in the journal among audited events, and never audited: event {}",
    "event-unseen": "gone from the journal before it could be audited: event {}",
    "journal-replaced": "the journal was emptied, cut or replaced: none of event {} is as audited",
    "batch-changed": "changed in AUDIT: batch {}",
    "batch-missing": "missing in AUDIT: batch {}",
    "chain-broken": "does not continue the chain before it: AUDIT batch {}",
    "audit-cut": "AUDIT was cut: the heads kept outside the server know of batch {}",
    "audit-rewritten": "AUDIT was written anew: not the head kept outside the server: batch {}",
}
_TELL_EVERY = 1_000
_EVENTS = frozenset({"event-changed", "event-missing"})


class Finding(msgspec.Struct, frozen=True):
    """What is wrong, from sequence `first` to `last` (of the journal, or of AUDIT for a batch)."""

    kind: FindingKind
    first: int
    last: int
    text: str


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """ok: nothing was found. events: in the journal now. audited: leaves in AUDIT.
    unaudited_tail: events after the last audited one. anchored: a head from outside was there to
    compare with; without it a cut tail of AUDIT cannot be seen."""

    ok: bool
    events: int
    audited: int
    batches: int
    unaudited_tail: int
    anchored: bool
    findings: list[Finding]


class Verifier:
    """Feed it AUDIT in full (`batch`), then the journal in full (`event`), then ask `report`.

    retained_from: events below it were removed on purpose (retention) and are not missed.
    """

    def __init__(self, heads: Iterable[Head] = (), *, retained_from: int = 1) -> None:
        self._heads: dict[int, set[str]] = {}  # two of one batch: it was written anew in between
        for head in heads:
            self._heads.setdefault(head.batch, set()).add(head.head)
        self._retained_from = retained_from
        self._findings: list[tuple[FindingKind, int, int]] = []
        self._head: bytes | None = GENESIS  # None: unknown, since the batch before is unreadable
        self._batches = 0
        self._last_batch = 0
        self._last_leaf = 0
        self._hole = False  # leaves are unknown from here to the next sound batch
        self._holes: list[tuple[int, int]] = []
        self._seqs = array("Q")
        self._hashes = bytearray()
        self._at = 0
        self._events = 0
        self._same = 0
        self._tail = 0

    def batch(self, record: Record) -> None:
        """The next message of AUDIT."""
        self._batches += 1
        if record.seq > self._last_batch + 1:
            self._find("batch-missing", self._last_batch + 1, record.seq - 1)
            self._hole, self._head = True, None
        self._last_batch = record.seq
        batch, leaves = self._open(record)
        if batch is None:
            self._find("batch-changed", record.seq)
            self._hole, self._head = True, None
            return
        if self._heads.get(record.seq, set()) - {batch.head}:
            self._find("audit-rewritten", record.seq)
        if self._head is not None and batch.previous != self._head.hex():
            self._find("chain-broken", record.seq)
        self._head = bytes.fromhex(batch.head)
        if self._hole:
            self._holes.append((self._last_leaf + 1, batch.first - 1))
            self._last_leaf = batch.first - 1
            self._hole = False
        for seq, digest in leaves:
            if seq > self._last_leaf + 1:
                self._unseen(self._last_leaf + 1, seq - 1)
            self._seqs.append(seq)
            self._hashes += digest
            self._last_leaf = seq

    def _open(self, record: Record) -> tuple[Batch | None, list[tuple[int, bytes]]]:
        """The batch and its leaves, if it holds together by itself."""
        try:
            batch = decode_batch(record.data)
            leaves = [(leaf.seq, event_hash(leaf)) for leaf in batch.unpack()]
        except BadInput:
            return None, []
        head = chain(bytes.fromhex(batch.previous), bytes(batch.leaves))
        if head.hex() != batch.head or not _in_order(batch, leaves, self._last_leaf):
            return None, []
        return batch, leaves

    def event(self, record: Record) -> None:
        """The next event of the journal."""
        self._events += 1
        seq = record.seq
        self._miss_until(seq)
        if self._at < len(self._seqs) and self._seqs[self._at] == seq:
            start = self._at * 32
            self._at += 1
            if hashes(record)[0] == self._hashes[start : start + 32]:
                self._same += 1
            else:
                self._find("event-changed", seq)
        elif seq > self._last_leaf:
            self._tail += 1
        elif not any(first <= seq <= last for first, last in self._holes):
            self._find("event-inserted", seq)

    def report(self) -> VerifyReport:
        """What was found, after everything was fed. Call it once."""
        self._miss_until(2**64)
        known = max(self._heads, default=0)
        if known > self._last_batch:
            self._find("audit-cut", self._last_batch + 1, known)
        audited = len(self._seqs)
        if audited and not self._same and self._seqs[-1] >= self._retained_from:
            self._findings = [found for found in self._findings if found[0] not in _EVENTS]
            self._find("journal-replaced", self._seqs[0], self._seqs[-1])
        return VerifyReport(
            ok=not self._findings,
            events=self._events,
            audited=audited,
            batches=self._batches,
            unaudited_tail=self._tail,
            anchored=bool(self._heads),
            findings=[
                Finding(kind, first, last, _SAY[kind].format(_range(first, last)))
                for kind, first, last in self._findings
            ],
        )

    def _miss_until(self, seq: int) -> None:
        """Every audited event below `seq` that has not been met is missing."""
        while self._at < len(self._seqs) and self._seqs[self._at] < seq:
            missed = self._seqs[self._at]
            self._at += 1
            if missed >= self._retained_from:
                self._find("event-missing", missed)

    def _unseen(self, first: int, last: int) -> None:
        """JetStream never skips a sequence: what the ledger did not see had been deleted."""
        first = max(first, self._retained_from)
        if first <= last:
            self._find("event-unseen", first, last)

    def _find(self, kind: FindingKind, first: int, last: int | None = None) -> None:
        """Note a finding; neighbours of one kind become one range."""
        last = first if last is None else last
        for index in range(len(self._findings) - 1, max(-1, len(self._findings) - 4), -1):
            known, start, end = self._findings[index]
            if known == kind and end + 1 == first:
                self._findings[index] = (kind, start, last)
                return
        self._findings.append((kind, first, last))


def verify(
    journal: Iterable[Record],
    audit: Iterable[Record],
    heads: Iterable[Head] = (),
    *,
    retained_from: int = 1,
) -> VerifyReport:
    """Compare the journal with its audit log, both in full and in order."""
    verifier = Verifier(heads, retained_from=retained_from)
    for record in audit:
        verifier.batch(record)
    for record in journal:
        verifier.event(record)
    return verifier.report()


async def verify_board(
    connection: Connection,
    topology: Topology,
    heads: Iterable[Head] = (),
    *,
    retained_from: int = 1,
    progress: Callable[[int], None] | None = None,
) -> VerifyReport:
    """Compare a board's journal with its audit log; it may be in use meanwhile.

    heads: read them (`HeadFile.all`) before. progress: hears now and then which sequence of the
    journal was compared. Raises `StreamMissing`, and what reading raises.
    """
    verifier = Verifier(heads, retained_from=retained_from)

    def compare(record: Record) -> None:
        verifier.event(record)
        if progress is not None and record.seq % _TELL_EVERY == 0:
            progress(record.seq)

    await scan(connection, topology.audit, verifier.batch)
    # The journal second: its end then lies behind everything that AUDIT was read to know.
    await scan(connection, topology.journal, compare)
    return verifier.report()


def _in_order(batch: Batch, leaves: list[tuple[int, bytes]], after: int) -> bool:
    """The leaves ascend, lie after the batch before, and are those that the batch claims."""
    if not leaves or leaves[0][0] != batch.first or leaves[-1][0] != batch.last:
        return False
    for seq, digest in leaves:
        if seq <= after or len(digest) != 32:
            return False
        after = seq
    return True


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
