"""Writes the audit log: a leaf for every event of the journal, in a Merkle tree.

At most one batch is in flight, and each is written on condition that the last batch in AUDIT is
still the one it continues: of two ledgers only one can extend the log, and the other one goes on
behind it. After a failure, a refusal or a restart the truth is the last batch in AUDIT, which has
the tree's edge; leaves stay here until it is known to hold them. It does not depend on the store of
rows.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

from callboard_broker.connection import ApiError, Connection
from callboard_broker.errors import AuditBroken, BadInput
from callboard_broker.link import raw_headers
from callboard_broker.publisher import Done
from callboard_broker.record import Record
from callboard_broker.streams import Topology
from callboard_ledger.leaves import STRIDE, Batch, decode_batch, encode_batch, encode_leaf
from callboard_ledger.merkle import TILE, Tree, leaf_hash, root_of
from callboard_ledger.notes import Checkpoint
from callboard_ledger.proving import root_at
from callboard_ledger.reading import Reading

__all__ = ["Auditor", "Tail", "check_tail", "read_tail"]

_NO_MESSAGE = 10037
_MOST_LEAVES = 4_000  # more than come during one round trip, or the log falls behind for ever
_MOST_BYTES = 800 * 1024
_MOST_WAITING = 200_000  # leaves, about 300 bytes each: beyond it they are read again later

Publish = Callable[[bytes, bytes, Done], None]
"""Called with the data and the headers of a message for AUDIT, and what to call afterwards."""


class Tail(NamedTuple):
    """The end of the leaves in AUDIT.

    batch: the sequence of its last batch. last: the last event it covers. size, edge, tiles: the
    tree. tiled: the batch that carries these tiles; 0: there are none yet.
    """

    batch: int = 0
    last: int = 0
    size: int = 0
    edge: tuple[bytes, ...] = ()
    tiles: tuple[tuple[bytes, ...], ...] = ()
    tiled: int = 0

    @property
    def root(self) -> bytes:
        return root_of(self.edge)


class Auditor:
    """Gathers leaves and writes them in batches. `flush` now and then; `resume` when `unsure`.

    batch: so many leaves are written without waiting for `flush`. most_bytes: of one message.
    """

    def __init__(
        self, publish: Publish, tail: Tail, *, batch: int = 500, most_bytes: int = _MOST_BYTES
    ) -> None:
        self._publish = publish
        self._batch = batch
        self._most_bytes = min(most_bytes, _MOST_BYTES)
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._in_flight = 0
        self._added = tail.last
        self.tail = tail
        """The end of AUDIT, as far as it is known."""
        self.unsure = asyncio.Event()
        """Set when a write failed: read the tail and `resume`."""
        self.changed = asyncio.Event()
        """Set when a write was stored, and at a failure."""
        self.behind = False
        """Leaves were dropped: once `idle`, the journal must be read again from `tail.last`."""
        self.problem: str | None = None
        """Why nothing is audited any more, if so: the log must not hide a break by going on."""

    @property
    def waiting(self) -> int:
        """How many leaves are not known to be stored."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self.unsure.is_set()

    def add(self, record: Record, reading: Reading) -> None:
        """Take in the next event of the journal; one that was taken in before is passed over."""
        if record.seq <= self._added or self.behind or self.problem is not None:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._drop()
            return
        self._added = record.seq
        self._waiting.append((record.seq, encode_leaf(record, reading)))
        if not self._in_flight and len(self._waiting) >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Write what waits, unless a batch is in flight or the tail is in doubt."""
        if self._in_flight or not self._waiting or self.unsure.is_set() or self.problem is not None:
            return
        before = self.tail
        tree = Tree(before.size, before.edge, before.tiles)
        leaves: list[bytes] = []
        size = 0
        for _, leaf in islice(self._waiting, min(_MOST_LEAVES, STRIDE - tree.size % STRIDE)):
            size += len(leaf) + 1
            if size > self._most_bytes and leaves:
                break
            leaves.append(leaf)
            tree.append(leaf_hash(leaf))
        self._in_flight = len(leaves)
        span = self._waiting[0][0], self._waiting[len(leaves) - 1][0]
        data = encode_batch(tree, leaves, span, tiled=before.tiled, index=before.size)

        def done(seq: int | None, error: Exception | None) -> None:
            self._in_flight = 0
            if seq is None or error is not None:
                self.unsure.set()
            else:
                self._extend(_tail(seq, span[1], tree, before))
            self.changed.set()

        self._publish(data, _guard(before.batch), done)

    def resume(self, tail: Tail) -> None:
        """Go on from what AUDIT really ends with. Raises `AuditBroken` if it has been shortened."""
        if tail.batch < self.tail.batch or (tail.batch == self.tail.batch and tail != self.tail):
            self.problem = (
                f"AUDIT ended with batch {self.tail.batch}, now it ends with batch {tail.batch}: "
                "it was cut or written anew"
            )
            raise AuditBroken([self.problem])
        self.unsure.clear()
        self._extend(tail)

    def reread(self) -> int:
        """The journal is about to be read again: return the sequence from which it must be."""
        self.behind = False
        self._added = self._waiting[-1][0] if self._waiting else self.tail.last
        return self._added + 1

    def _extend(self, tail: Tail) -> None:
        self.tail = tail
        while self._waiting and self._waiting[0][0] <= tail.last:
            self._waiting.popleft()
        self._added = max(self._added, tail.last)
        if len(self._waiting) >= self._batch:
            self.flush()

    def _drop(self) -> None:
        """AUDIT cannot be written for long: keep what may be in flight, read the rest again."""
        self.flush()
        while len(self._waiting) > self._in_flight:
            self._waiting.pop()
        self.behind = True
        self.changed.set()


async def read_tail(connection: Connection, topology: Topology) -> Tail:
    """The end of the leaves, as the leader of AUDIT has it.

    Raises `AuditBroken` if it cannot be read, and what `Connection.api` raises.
    """
    found = await _get(connection, topology, {"last_by_subj": topology.subjects.audit})
    if found is None:
        return Tail()
    seq, batch = found
    with _readable(seq):
        tree = batch.after(batch.index + len(batch.unpack()[0]))
    tiled = seq if batch.tiles else batch.tiled
    if tiled and tiled != seq:
        earlier = await _get(connection, topology, {"seq": tiled})
        if earlier is None:
            raise AuditBroken([f"batch {tiled} is missing in AUDIT"])
        with _readable(tiled):
            tree.tiles = earlier[1].stated_tiles()
    edge, tiles = tuple(tree.edge), tuple(map(tuple, tree.tiles))
    return Tail(seq, batch.last, tree.size, edge, tiles, tiled)


async def check_tail(
    connection: Connection, topology: Topology, kept: Checkpoint | None, *, last: int
) -> Tail:
    """The tail to go on from, if it agrees with the checkpoint kept outside and with the journal.

    last: of the journal. Raises `AuditBroken` (the log must not go on as if nothing had happened).
    """
    tail = await read_tail(connection, topology)
    if tail.last > last:
        raise AuditBroken([f"the journal ends at {last}, and was audited up to {tail.last}"])
    if kept is None or not kept.size:
        return tail
    if tail.size < kept.size:
        said = f"AUDIT has {tail.size} leaves, and the last checkpoint {kept.size}: it was cut"
        raise AuditBroken([said])
    root = tail.root if tail.size == kept.size else await root_at(connection, topology, kept.size)
    if root != kept.root:
        said = f"the first {kept.size} leaves in AUDIT are not those of the last checkpoint"
        raise AuditBroken([f"{said}: written anew"])
    return tail


def _tail(seq: int, last: int, tree: Tree, before: Tail) -> Tail:
    tiled = seq if tree.size // TILE > before.size // TILE else before.tiled
    return Tail(seq, last, tree.size, tuple(tree.edge), tuple(map(tuple, tree.tiles)), tiled)


@contextmanager
def _readable(seq: int) -> Iterator[None]:
    try:
        yield
    except BadInput as error:
        raise AuditBroken([f"batch {seq} in AUDIT cannot be read: {error}"]) from error


async def _get(
    connection: Connection, topology: Topology, asked: dict[str, object]
) -> tuple[int, Batch] | None:
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{topology.audit}", asked)
    except ApiError as error:
        if error.err_code != _NO_MESSAGE:
            raise
        return None
    message = answer["message"]
    with _readable(message["seq"]):
        return message["seq"], decode_batch(base64.b64decode(message.get("data", "")))


def _guard(batch: int) -> bytes:
    return raw_headers({"Nats-Expected-Last-Subject-Sequence": str(batch)})
