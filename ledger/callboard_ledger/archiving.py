"""Archives events before they are purged: compressed segments that verify by themselves.

A segment is an export of whole batches of AUDIT, from where the one before ended, with a checkpoint
signed for its end. It is written beside its place, flushed to the disk, then given its name, and
only then does the ledger say that the events in it are archived.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from callboard_broker.connection import ApiError, Connection, NoResponder
from callboard_broker.errors import AuditBroken, BadInput, CallboardError
from callboard_broker.publisher import Publisher
from callboard_broker.record import Record
from callboard_broker.signing import SigningKey
from callboard_broker.streams import Topology
from callboard_ledger.audit import Tail
from callboard_ledger.export_lines import (
    EventLine,
    Head,
    encode_line,
    read_lines,
    record_of,
)
from callboard_ledger.exporting import fill
from callboard_ledger.leaves import decode_batch
from callboard_ledger.merkle import Tree, is_consistent, leaf_hash, subtrees
from callboard_ledger.notes import Checkpoint, NoteBroken, sign_checkpoint, sign_note
from callboard_ledger.proving import AuditTree, root_at
from callboard_ledger.records import Archived
from callboard_ledger.scan import scan
from callboard_ledger.skeleton import Choice, Filling, Skeleton

__all__ = ["ArchiveFolder", "Archiver", "Segment", "archived_events"]

_log = logging.getLogger(__name__)

_MOST_LEAVES = 100_000
_AGAIN_SECONDS = 5.0
_LEVEL = 6
_NAME = re.compile(r"(\d{20})-(\d{20})\.jsonl\.gz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A file with the events `first` to `last`."""

    path: Path
    first: int
    last: int


class ArchiveFolder:
    """The folder of the segments. Raises `OSError` as it comes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def segments(self) -> list[Segment]:
        """What is there, in the order of the events."""
        found = []
        for path in sorted(self.path.iterdir()) if self.path.exists() else ():
            name = _NAME.fullmatch(path.name)
            if name is not None:
                found.append(Segment(path=path, first=int(name[1]), last=int(name[2])))
        return found

    def last(self) -> int:
        """The last event that is archived; 0: none."""
        return max((segment.last for segment in self.segments()), default=0)

    def draft(self) -> Path:
        """Where a segment is written before it gets its name."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.path / "segment.draft"

    def place(self, draft: Path, first: int, last: int) -> str:
        """Give a finished draft its name; returns the SHA-256 of the file, in hex."""
        with draft.open("rb") as file:
            os.fsync(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        draft.replace(self.path / f"{first:020}-{last:020}.jsonl.gz")
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return digest


def archived_events(folder: ArchiveFolder) -> Iterator[Record]:
    """Every event that is archived, in order.

    Raises `BadInput` if there is no such folder, and on the way for a file that cannot be read.
    """
    if not folder.path.is_dir():
        raise BadInput("archive", f"{folder.path} is no folder")
    return _events(folder)


def _events(folder: ArchiveFolder) -> Iterator[Record]:
    for segment in folder.segments():
        for number, line in read_lines(segment.path):
            if line is None:
                raise BadInput("archive", f"{segment.path} cannot be read in line {number}")
            if isinstance(line, EventLine) and not line.absent:
                yield record_of(line)


class Archiver:
    """Archives up to where it is wanted. tail: says what the ledger itself knows AUDIT to end with.

    What is not as it was audited is neither archived nor, so, purged, and nothing is signed that
    does not agree with the tree in memory: whoever changed AUDIT must not get a signature for it.
    last: the last event that is archived; 0 until the folder is known to be of this log.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        topology: Topology,
        folder: ArchiveFolder,
        key: SigningKey,
        *,
        tail: Callable[[], Tail],
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._topology = topology
        self._folder = folder
        self._key = key
        self._tail = tail
        self._wanted = 0
        self._called = asyncio.Event()
        self._known = False
        self.last = 0

    def want(self, seq: int) -> None:
        """Archive up to event `seq`, which is audited."""
        if seq > max(self.last, self._wanted):
            self._wanted = seq
            self._called.set()

    async def run(self) -> None:
        """Archive what is wanted, until cancelled."""
        self._called.set()
        while True:
            await self._called.wait()
            self._called.clear()
            try:
                await self._resume()
                while self.last < self._wanted:
                    before = self.last
                    await self._archive()
                    if self.last == before:
                        break
            except (CallboardError, ApiError, NoResponder, TimeoutError, OSError) as error:
                _log.warning("the journal is not archived now, and so not purged: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
                self._called.set()

    async def _resume(self) -> None:
        """Go on behind the last segment in the folder. Raises `AuditBroken` if it is another's."""
        segments = [] if self._known else self._folder.segments()
        if segments:
            path = segments[-1].path
            _, head = next(read_lines(path), (0, None))
            try:
                note = head.checkpoint if isinstance(head, Head) else ""
                signed = Checkpoint.read(note, [self._key.public])
                root = await root_at(self._connection, self._topology, signed.size)
                if root != signed.root:
                    raise AuditBroken(["its tree is another one"])
            except (NoteBroken, AuditBroken) as error:
                said = f"{path} is not of this log ({error}): move it and its like away"
                raise AuditBroken([said]) from error
            self.last = segments[-1].last
        self._known = True

    async def _archive(self) -> None:
        """Write one segment: whole batches that end at or before what is wanted."""
        tree = AuditTree(self._connection, self._topology)
        info = await self._connection.api(f"STREAM.INFO.{self._topology.journal}")
        start = await tree.after(max(self.last, int(info["state"]["first_seq"]) - 1))
        if start is None:
            return
        with Skeleton(Choice()) as skeleton:
            before = [
                (level, index, await tree.root((index << level, (index + 1) << level), start.size))
                for level, index in subtrees(0, start.batch.index)
            ]
            skeleton.begin_at(before, start.batch.index)
            grown = Tree(start.batch.index, [node for _, _, node in before])
            await self._gather(skeleton, grown, start.seq)
            if not skeleton.chosen:
                return
            own, here = self._tail(), (grown.size, grown.root)
            proof = await tree.consistency(grown.size, own.size)
            if not is_consistent(here, (own.size, own.root), proof):
                raise AuditBroken(
                    [f"the first {grown.size} leaves in AUDIT are not what they were"]
                )
            await self._write(skeleton, sign_checkpoint(*here, self._key))

    async def _gather(self, skeleton: Skeleton, grown: Tree, start: int) -> None:
        """Add the batches from message `start` on, to the skeleton and to its tree."""
        begun = skeleton.size

        def take(record: Record) -> bool:
            batch = decode_batch(record.data)
            if batch.last > self._wanted or skeleton.size - begun >= _MOST_LEAVES:
                return True
            if batch.index != skeleton.size:
                raise AuditBroken([f"batch {record.seq} in AUDIT does not follow the one before"])
            leaves, raw = batch.unpack()
            for leaf, data in zip(leaves, raw, strict=True):
                skeleton.leaf(leaf, bytes(data))
                grown.append(leaf_hash(data))
            return False

        filters = [self._topology.subjects.audit]
        await scan(self._connection, self._topology.audit, take, first=start, filters=filters)
        skeleton.finish()

    async def _write(self, skeleton: Skeleton, note: str) -> None:
        draft = self._folder.draft()
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as raw, gzip.GzipFile("", "wb", _LEVEL, raw, 0) as file:
            head = Head(skeleton.size, note, self._topology.subjects.prefix)
            file.write(encode_line(head))
            filling = Filling(skeleton, file.write, strict=True)
            await fill(self._connection, self._topology, filling, last=skeleton.last)
        first, last = skeleton.first, skeleton.last
        digest = await asyncio.to_thread(self._folder.place, draft, first, last)
        archived = Archived(first=first, last=last, size=skeleton.size, digest=digest)
        record = sign_note(archived.text(), self._key).encode()
        await self._publisher.put(self._topology.subjects.audit_records, record)
        self.last = last
        _log.info("events %d to %d are archived", first, last)
