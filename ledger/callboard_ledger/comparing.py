"""Compares events with their leaves, in one pass over both.

The leaves lie in a file without a name, 49 bytes each, so that a journal of any length is compared
in the same memory. Where events are not as audited, the beginnings of their payloads' hashes tell
those that were moved from those that were altered.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator, Sequence

from callboard_broker.record import Record
from callboard_ledger.findings import Findings
from callboard_ledger.leaves import hashes

__all__ = ["Comparing", "LeafFile"]

_BUFFER = 1 << 20
_MARK = 9  # bytes of a payload's hash that are kept, to know it again elsewhere
_MOST_CHANGED = 10_000
_entry = struct.Struct(f">Q32s{_MARK}s")
_AT_ONCE = 4_096 * _entry.size


class LeafFile:
    """Sequences and hashes of events and payloads, ascending: `add` them all, then read them."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=_BUFFER)  # noqa: SIM115  see `close`
        self.count = 0
        self.first = self.last = 0

    def add(self, seq: int, digest: bytes, payload: bytes) -> None:
        self._file.write(_entry.pack(seq, digest, payload))
        self.first = self.first or seq
        self.last = seq
        self.count += 1

    def __iter__(self) -> Iterator[tuple[int, bytes, bytes]]:
        """From the beginning, once; a second iteration ends the first."""
        self._file.seek(0)
        while data := self._file.read(_AT_ONCE):
            yield from _entry.iter_unpack(data)

    def close(self) -> None:
        self._file.close()


class Comparing:
    """One pass: `event` for each in order, then `end`.

    start, covered: what lies before the first and in a range of the second is not missed. holes:
    ranges whose leaves cannot be read. at: the sequence after the last event. same: events that are
    as audited. tail: events behind all leaves. skipped: leaves that are not missed.
    """

    def __init__(
        self,
        leaves: LeafFile,
        findings: Findings,
        holes: list[tuple[int, int]],
        *,
        start: int = 1,
        covered: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._leaves = iter(leaves)
        self._findings = findings
        self._holes = holes
        self._last_leaf = leaves.last
        self._next: tuple[int, bytes, bytes] | None = next(self._leaves, None)
        self._changed: list[tuple[int, bytes, bytes]] = []
        self._start = start
        self._covered = covered
        self.at = 0
        self.events = self.same = self.tail = self.skipped = 0

    def event(self, record: Record) -> None:
        """The next event."""
        self.events += 1
        seq = record.seq
        if seq < self.at:
            self._findings.add("event-moved", seq)
            return
        self.at = seq + 1
        self._miss_until(seq)
        expected = self._next
        if expected is not None and expected[0] == seq:
            self._next = next(self._leaves, None)
            digest, payload = hashes(record)
            if digest == expected[1]:
                self.same += 1
            elif len(self._changed) < _MOST_CHANGED:
                self._changed.append((seq, expected[2], payload[:_MARK]))
            else:
                self._findings.add("event-changed", seq)
        elif seq > self._last_leaf:
            self.tail += 1
        elif not any(first <= seq <= last for first, last in self._holes):
            self._findings.add("event-inserted", seq)

    def end(self) -> None:
        """There are no more events."""
        self._miss_until(1 << 64)
        self._tell_changed()

    def close(self) -> None:
        """There are no more events, and those that come after the last one are not missed."""
        self._tell_changed()

    def _tell_changed(self) -> None:
        """Of those that are not as audited: whose content is another one's, was moved."""
        known = {stated for _, stated, _ in self._changed}
        for seq, stated, found in self._changed:
            moved = found != stated and found in known
            self._findings.add("event-moved" if moved else "event-changed", seq)
        self._changed = []

    def _miss_until(self, seq: int) -> None:
        """Every audited event below `seq` that has not been met is missing."""
        while self._next is not None and self._next[0] < seq:
            missed = self._next[0]
            self._next = next(self._leaves, None)
            covered = missed < self._start and any(
                first <= missed <= last for first, last in self._covered
            )
            if covered:
                self.skipped += 1
            else:
                self._findings.add("event-missing", missed)
