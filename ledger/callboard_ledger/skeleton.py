"""What of the tree is exported: chosen leaves, and the hashes of all subtrees beside them.

Leaves go in in their order; what was found lies in a file without a name, so that an export of any
length takes the memory of one path. Then the events go in in theirs, and the lines come out.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec

from callboard_broker.errors import AuditBroken
from callboard_broker.record import Record
from callboard_ledger.export_lines import (
    HashLine,
    Line,
    encode_line,
    event_line,
)
from callboard_ledger.leaves import Leaf, decode_leaf, event_hash, hashes
from callboard_ledger.merkle import leaf_hash, node_hash

__all__ = ["Choice", "Filling", "Skeleton"]

_BUFFER = 1 << 20
_TELL_EVERY = 1_000
_COMMAND = "flow."
_ANSWER = "answered"
_entries = msgspec.msgpack.Decoder(list[bytes])
_encode = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What is exported; nothing said: all. about: a task or workflow, with all that is inside it
    and the commands to it. since, until: Unix milliseconds, the first and the one after the last.
    """

    tenant: str | None = None
    about: str | None = None
    since: int | None = None
    until: int | None = None
    commands: set[str] = field(default_factory=set)

    def takes(self, leaf: Leaf) -> bool:
        """Whether this event is chosen; ask it of each leaf, in their order."""
        if self.tenant is not None and leaf.tenant != self.tenant:
            return False
        at = leaf.at // 1_000_000
        if (self.since is not None and at < self.since) or (
            self.until is not None and at >= self.until
        ):
            return False
        if self.about is None:
            return True
        resource = leaf.resource
        if resource == self.about or resource.startswith(f"{self.about}."):
            if leaf.action.startswith(_COMMAND):
                self.commands.add(str(leaf.seq))
            return True
        return leaf.action == _ANSWER and resource in self.commands

    def words(self) -> dict[str, str]:
        """What was asked for, as the head of an export says it."""
        said = {
            "tenant": self.tenant,
            "about": self.about,
            "since": self.since,
            "until": self.until,
        }
        return {name: str(value) for name, value in said.items() if value is not None}


_entries = msgspec.msgpack.Decoder(list[bytes])
_encode = msgspec.msgpack.Encoder()


class Skeleton:
    """What a pass over AUDIT found. A context: it has a file.

    splits: sizes at which no subtree may reach over, so that a checkpoint can be compared there.
    """

    def __init__(self, choice: Choice, splits: Iterable[int] = ()) -> None:
        self._choice = choice
        self._splits = frozenset(splits)
        self._file = tempfile.TemporaryFile(buffering=_BUFFER)  # noqa: SIM115  see `__exit__`
        self._gap: list[tuple[int, int, bytes]] = []
        self.size = 0
        self.first = self.last = 0
        self.chosen = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def begin_at(self, subtrees: Sequence[tuple[int, int, bytes]], size: int) -> None:
        """The tree before the first leaf that is given: its complete subtrees."""
        self._gap = list(subtrees)
        self.size = size
        self._close_gap()

    def leaf(self, leaf: Leaf, data: bytes) -> None:
        """The next leaf."""
        if self.size in self._splits:
            self._close_gap()
        if self._choice.takes(leaf):
            self._close_gap()
            self._put([b"l", data, str(self.size).encode(), str(leaf.seq).encode()])
            self.first = self.first or leaf.seq
            self.last = leaf.seq
            self.chosen += 1
        else:
            self._skip(leaf_hash(data))
        self.size += 1

    def line(self, line: Line) -> None:
        """A line that stands here."""
        self._put([b"t", encode_line(line)])

    @property
    def aligned(self) -> bool:
        """Whether a checkpoint of the present size can be compared here."""
        return not self._gap

    def finish(self) -> None:
        """There are no more leaves."""
        self._close_gap()

    def __iter__(self) -> Iterator[tuple[bytes, int, int] | bytes]:
        """(leaf, index, sequence), and lines as they are."""
        self._file.seek(0)
        while head := self._file.read(4):
            entry = _entries.decode(self._file.read(int.from_bytes(head)))
            if entry[0] == b"l":
                yield entry[1], int(entry[2]), int(entry[3])
            else:
                yield entry[1]

    def _skip(self, digest: bytes) -> None:
        level, index = 0, self.size
        while self._gap and index & 1 and self._gap[-1][:2] == (level, index - 1):
            digest = node_hash(self._gap.pop()[2], digest)
            level, index = level + 1, index >> 1
        self._gap.append((level, index, digest))

    def _close_gap(self) -> None:
        for level, index, digest in self._gap:
            self.line(HashLine(level, index, base64.b64encode(digest).decode()))
        self._gap = []

    def _put(self, entry: list[bytes]) -> None:
        data = _encode.encode(entry)
        self._file.write(len(data).to_bytes(4) + data)


class Filling:
    """The second pass: writes the lines of a skeleton, with the events that it is given in order.

    wanted: the next event's sequence; None: there are no more. absent: events that were not given,
    so that only their hashes are written. strict: `AuditBroken` is raised for
    an event that is not there, or not as it was audited.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        write: Callable[[bytes], object],
        progress: Callable[[str, int], None] | None = None,
        *,
        strict: bool = False,
    ) -> None:
        self._strict = strict
        self._entries = iter(skeleton)
        self._write = write
        self._progress = progress
        self._leaf, self._index = b"", 0
        self.absent = 0
        self.wanted: int | None = None
        self._go_on()

    def take(self, record: Record) -> bool:
        """The next event; True if no more are wanted."""
        seq = record.seq
        while self.wanted is not None and self.wanted < seq:
            self._put(self.wanted, None)
        if self.wanted == seq:
            self._put(seq, record)
            if self._progress is not None and seq % _TELL_EVERY == 0:
                self._progress("event", seq)
        return self.wanted is None

    def end(self) -> None:
        """There are no more events: write what is left, without them."""
        while self.wanted is not None:
            self._put(self.wanted, None)

    def _put(self, seq: int, record: Record | None) -> None:
        if self._strict and (
            record is None or hashes(record)[0] != event_hash(decode_leaf(self._leaf))
        ):
            raise AuditBroken([f"event {seq} in the journal is not as it was audited"])
        self.absent += record is None
        self._write(encode_line(event_line(self._index, self._leaf, seq, record)))
        self._go_on()

    def _go_on(self) -> None:
        """Write what needs no event, up to the next leaf."""
        self.wanted = None
        for entry in self._entries:
            if isinstance(entry, tuple):
                self._leaf, self._index, self.wanted = entry
                return
            self._write(entry)
