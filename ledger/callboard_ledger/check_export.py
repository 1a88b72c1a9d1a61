"""Verifies an export or a proof without the board, with the log's public key alone.

The lines are read once. Each event is compared with its leaf, the leaves and hashes give the root
of the tree, and that must be what the log has signed. What was done to the file is named: by the
event where its leaf is left to tell, else by the signed checkpoints between which it lies.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.record import Record
from callboard_ledger.export_lines import (
    VERSION,
    CheckpointLine,
    EventLine,
    HashLine,
    Head,
    Line,
    RecordLine,
    read_lines,
    record_of,
)
from callboard_ledger.findings import Finding, Findings
from callboard_ledger.leaves import Leaf, decode_leaf, event_hash, hashes
from callboard_ledger.merkle import Tree, leaf_hash
from callboard_ledger.notes import Checkpoint, NoteBroken
from callboard_ledger.outcome_check import OutcomeCheck
from callboard_ledger.records import HostKey, read_record
from callboard_ledger.trust import Trust

__all__ = ["ExportCheck", "ExportReport", "check_export"]

_TELL_EVERY = 1_000
_MOST_JUMPS = 1_000


class ExportReport(msgspec.Struct, frozen=True, kw_only=True):
    """ok: nothing was found. events: in the file. size: leaves that its checkpoint has signed.

    absent: events that were purged and not archived. signed: a key was given. anchored: at least
    one older checkpoint was compared. uncompared: sizes of those that could not be, because the
    file has no hash that ends there. first, last: sequences. root: hex, as signed.
    """

    ok: bool
    origin: str
    size: int
    root: str
    chosen: dict[str, str]
    events: int
    first: int
    last: int
    absent: int
    signed: bool
    anchored: bool
    uncompared: list[int]
    outcomes_signed: int
    outcomes_unattested: int
    findings: list[Finding]


class ExportCheck:
    """Feed it the lines in their order (None: one that cannot be read), then ask `report`.

    heard: gets each event that is as audited.
    """

    def __init__(
        self, trust: Trust | None = None, heard: Callable[[Record], object] | None = None
    ) -> None:
        self._trust = trust or Trust()
        self._heard = heard
        self._findings = Findings()
        self._outcomes = OutcomeCheck(self._findings)
        self._head: Head | None = None
        self._signed: Checkpoint | None = None
        self._tree = Tree()
        self._whole = True  # False: the tree has a hole, so its root says nothing
        self._missing: set[int] = set()  # leaves
        self._jumps: list[tuple[int, int]] = []
        self._after_hash = True
        self._older = {checkpoint.size: checkpoint for checkpoint in self._trust.checkpoints}
        self._compared: set[int] = set()
        self._sound = 0  # the last event of the tree that a signature covered so far
        self._broken_at = 0
        self.events = self.absent = self.first = self.last = 0

    def line(self, number: int, line: Line | None) -> None:
        """The next line. Raises `BadInput` if this is no export of this version."""
        if self._head is None:
            self._begin(line)
        elif isinstance(line, EventLine):
            self._event(line)
        elif isinstance(line, HashLine):
            self._hash(line)
        elif isinstance(line, CheckpointLine):
            self._checkpoint(line)
        elif isinstance(line, RecordLine):
            self._record(number, line)
        else:
            self._findings.add("leaf-changed", self.last + 1)
            self._whole = False

    def _begin(self, line: Line | None) -> None:
        if not isinstance(line, Head) or line.v != VERSION:
            raise BadInput("file", "not an export of the audit log that this version can read")
        self._head = line
        try:
            self._signed = Checkpoint.read(line.checkpoint, self._trust.keys)
        except NoteBroken:
            self._findings.add("checkpoint-forged", line.size)

    def _event(self, line: EventLine) -> None:
        self.events += 1
        try:
            leaf = decode_leaf(line.leaf)
            expected = event_hash(leaf)
        except BadInput:
            self._findings.add("leaf-changed", line.seq)
            self._place(line.index, None)
            return
        self._compare(line, leaf, expected)
        seq = leaf.seq
        if not self._place(line.index, leaf_hash(line.leaf.encode())):
            self._findings.add(
                "event-moved" if line.index in self._missing else "event-inserted", seq
            )
            self._missing.discard(line.index)
        elif seq <= self.last:
            self._findings.add("event-inserted" if seq == self.last else "event-moved", seq)
        else:
            if seq > self.last + 1 and not self._after_hash and len(self._jumps) < _MOST_JUMPS:
                self._jumps.append((self.last + 1, seq - 1))
            self.last = seq
        self._after_hash = False
        self.first = self.first or seq

    def _compare(self, line: EventLine, leaf: Leaf, expected: bytes) -> None:
        if line.absent:
            self.absent += 1
            return
        try:
            record = record_of(line)
        except BadInput:
            self._findings.add("event-changed", leaf.seq)
            return
        if record.seq != leaf.seq or hashes(record)[0] != expected:
            self._findings.add("event-changed", leaf.seq)
            return
        self._outcomes.event(record)
        if self._heard is not None:
            self._heard(record)

    def _place(self, index: int, digest: bytes | None) -> bool:
        """Add the leaf to the tree; False if its place is taken already."""
        size = self._tree.size
        if index < size:
            self._whole = False
            return False
        if index > size:
            self._whole = False
            if index - size <= _MOST_JUMPS:
                self._missing.update(range(size, index))
            self._findings.add("event-missing", self.last + 1, self.last + index - size)
            self.last += index - size
            self._tree = Tree(index, [bytes(32)] * index.bit_count())
        if digest is None:
            self._whole = False
            digest = bytes(32)
        self._tree.append(digest)
        self._look_back()
        return True

    def _hash(self, line: HashLine) -> None:
        self._after_hash = True
        size = self._tree.size
        start = line.index << line.level if 0 <= line.level < 64 else -1
        try:
            digest = base64.b64decode(line.hash, validate=True)
        except ValueError:
            digest = b""
        if start != size or len(digest) != 32 or size % (1 << line.level):
            self._whole = False
            self._findings.add("leaf-changed", self.last + 1)
            return
        self._tree.add(line.level, digest)
        self._look_back()

    def _look_back(self) -> None:
        """Compare with what was signed of a tree of this size, if that is known."""
        older = self._older.get(self._tree.size)
        if older is None or not self._whole:
            return
        self._compared.add(older.size)
        origin = older.origin if self._signed is None else self._signed.origin
        if older.origin != origin:
            self._findings.add("journal-replaced", 1, older.size)
        elif older.root != self._tree.root:
            self._findings.add("audit-rewritten", older.size)

    def _checkpoint(self, line: CheckpointLine) -> None:
        size = self._tree.size
        try:
            stated = Checkpoint.read(line.note, self._trust.keys)
        except NoteBroken:
            self._findings.add("checkpoint-forged", size)
            return
        if stated.size != size or not self._whole or self._broken_at:
            return  # where lines are gone or moved, that is what is told
        if stated.root == self._tree.root:
            self._sound = self.last
        else:
            self._broken_at = self.last
            self._findings.add("events-replaced", self._sound + 1, self.last)

    def _record(self, number: int, line: RecordLine) -> None:
        try:
            said = read_record(line.note, self._trust.keys)
        except BadInput:
            self._findings.add("record-forged", number)
            return
        if isinstance(said, HostKey):
            self._outcomes.learn(said)

    def report(self) -> ExportReport:
        """What was found, after everything was fed. Raises `BadInput` if nothing was."""
        head, signed = self._head, self._signed
        if head is None:
            raise BadInput("file", "it is empty")
        size = head.size if signed is None else signed.size
        if self._tree.size < size:
            self._findings.add("tail-cut", self._tree.size + 1, size)
        elif signed is not None and not self._broken_at:
            wrong = self._tree.size > size or self._tree.root != signed.root
            if wrong and self._whole and not self._findings:
                for jump in self._jumps:
                    self._findings.add("event-missing", *jump)
                self._findings.add("events-replaced", self._sound + 1, max(self.last, 1))
        beyond = [old for old in self._older if old > size]
        if beyond:
            self._findings.add("tail-cut", size + 1, max(beyond))
        uncompared = [old for old in sorted(self._older) if old not in self._compared]
        return ExportReport(
            ok=not self._findings,
            origin="" if signed is None else signed.origin,
            size=size,
            root="" if signed is None else signed.root.hex(),
            chosen=head.chosen,
            events=self.events,
            first=self.first,
            last=self.last,
            absent=self.absent,
            signed=bool(self._trust.keys),
            anchored=bool(self._compared),
            uncompared=[old for old in uncompared if old <= size],
            outcomes_signed=self._outcomes.signed,
            outcomes_unattested=self._outcomes.unattested,
            findings=self._findings.told(),
        )


def check_export(
    path: Path, trust: Trust | None = None, *, progress: Callable[[str, int], None] | None = None
) -> ExportReport:
    """Verify the export in the file `path`. Raises `BadInput` if it is none."""
    check = ExportCheck(trust)
    for number, line in read_lines(path):
        check.line(number, line)
        if progress is not None and number % _TELL_EVERY == 0:
            progress("line", number)
    return check.report()
