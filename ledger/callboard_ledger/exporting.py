"""Exports events with what proves them: one pass over AUDIT, one over the journal.

The first pass chooses by the leaves, up to the last signed checkpoint; the second one adds the
events, of the archive first and then of the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from callboard_broker.connection import Connection
from callboard_broker.errors import AuditBroken, BadInput
from callboard_broker.record import Record
from callboard_broker.signing import PublicKey
from callboard_broker.streams import Topology
from callboard_ledger.export_lines import (
    CheckpointLine,
    Head,
    RecordLine,
    encode_line,
)
from callboard_ledger.leaves import decode_batch
from callboard_ledger.notes import Checkpoint, NoteBroken
from callboard_ledger.proving import latest_checkpoint
from callboard_ledger.records import HostKey, read_record
from callboard_ledger.scan import scan
from callboard_ledger.skeleton import Choice, Filling, Skeleton
from callboard_ledger.trust import Trust

__all__ = ["Exported", "export_board", "fill"]


@dataclass(frozen=True, slots=True)
class Exported:
    """events: that were chosen. absent: of them, those that are neither in the journal nor in the
    archive any more, and so stand in the export as hashes only."""

    events: int
    absent: int


async def export_board(
    connection: Connection,
    topology: Topology,
    choice: Choice,
    write: Callable[[bytes], object],
    trust: Trust,
    *,
    archive: Iterable[Record] = (),
    progress: Callable[[str, int], None] | None = None,
) -> Exported:
    """Write an export of a board, up to its last checkpoint.

    write: gets one line after the other. trust: without keys any checkpoint counts; its checkpoints
    are those that the export shall be comparable with. archive: what was purged.
    Raises `BadInput` without a checkpoint, `AuditBroken`, and what reading raises.
    """
    keys = trust.keys
    last = await latest_checkpoint(connection, topology, keys)
    if last is None:
        raise BadInput("checkpoint", "AUDIT holds none of this log yet: the ledger signs them")
    with Skeleton(choice, {older.size for older in trust.checkpoints}) as skeleton:
        notes: list[str] = []
        await _read_audit(connection, topology, skeleton, (last, keys), notes, progress)
        head = Head(last.size, last.note, topology.subjects.prefix, choice.words())
        write(encode_line(head))
        for note in notes:
            write(encode_line(RecordLine(note)))
        filling = Filling(skeleton, write, progress)
        await fill(connection, topology, filling, last=skeleton.last, archive=archive)
        return Exported(skeleton.chosen, filling.absent)


async def _read_audit(
    connection: Connection,
    topology: Topology,
    skeleton: Skeleton,
    signed: tuple[Checkpoint, Sequence[PublicKey]],
    notes: list[str],
    progress: Callable[[str, int], None] | None,
) -> None:
    """The first pass: up to the checkpoint, with those before it where they can be compared."""
    checkpoint, keys = signed
    subjects = topology.subjects

    def take(record: Record) -> None:
        if progress is not None:
            progress("AUDIT", record.seq)
        if record.subject == subjects.audit:
            _take_batch(record, skeleton, checkpoint.size)
        elif record.subject == subjects.audit_records:
            _take_note(record, keys, notes)
        elif record.subject == subjects.audit_checkpoints and skeleton.aligned:
            _take_checkpoint(record, keys, skeleton, checkpoint.size)

    await scan(connection, topology.audit, take)
    skeleton.finish()
    if skeleton.size < checkpoint.size:
        said = f"AUDIT ends with leaf {skeleton.size} of the {checkpoint.size} that were signed"
        raise AuditBroken([said])


def _take_batch(record: Record, skeleton: Skeleton, size: int) -> None:
    try:
        batch = decode_batch(record.data)
        leaves, raw = batch.unpack()
    except BadInput as error:
        raise AuditBroken([f"batch {record.seq} in AUDIT cannot be read: {error}"]) from error
    for leaf, data in zip(leaves, raw, strict=True):
        if skeleton.size < size:
            skeleton.leaf(leaf, bytes(data))


def _take_note(record: Record, keys: Sequence[PublicKey], notes: list[str]) -> None:
    try:
        note = record.data.decode()
        if isinstance(read_record(note, keys), HostKey):
            notes.append(note)
    except (BadInput, UnicodeDecodeError):
        return  # not this log's: verifying AUDIT names it


def _take_checkpoint(
    record: Record, keys: Sequence[PublicKey], skeleton: Skeleton, size: int
) -> None:
    try:
        found = Checkpoint.read(record.data.decode(), keys)
    except (NoteBroken, UnicodeDecodeError):
        return
    if found.size == skeleton.size < size:
        skeleton.line(CheckpointLine(found.note))


async def fill(
    connection: Connection,
    topology: Topology,
    filling: Filling,
    *,
    last: int,
    archive: Iterable[Record] = (),
) -> None:
    """Give the events up to `last`, of the archive first and then of the journal, to `filling`."""
    if filling.wanted is not None:
        for record in archive:
            if filling.take(record):
                return
    if filling.wanted is not None:
        await scan(connection, topology.journal, filling.take, first=filling.wanted, last=last)
    filling.end()
