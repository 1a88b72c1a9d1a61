"""Proofs out of AUDIT, by a few single messages of it and never by all.

A batch is found by bisection, for batches stand in the order of their leaves; it holds the hashes
of its leaves, and the tiles of every level above. So the hash of any complete subtree is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from callboard_broker.connection import Connection
from callboard_broker.direct import get_last, get_next
from callboard_broker.errors import AuditBroken, BadInput, StreamMissing
from callboard_broker.record import Record
from callboard_broker.signing import PublicKey
from callboard_broker.streams import Topology, last_sequence
from callboard_ledger.leaves import Batch, Leaf, decode_batch
from callboard_ledger.merkle import (
    TILE,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    root_of,
    subtrees,
)
from callboard_ledger.notes import Checkpoint, NoteBroken
from callboard_ledger.scan import scan

__all__ = ["AuditTree", "Found", "Placed", "latest_checkpoint", "root_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A leaf and its place in the tree. data: the leaf as AUDIT has it."""

    index: int
    leaf: Leaf
    data: bytes


class Placed(msgspec.Struct, frozen=True):
    """A batch: its sequence in AUDIT, and its leaves, each as it stands there."""

    seq: int
    batch: Batch
    leaves: list[bytes]

    @property
    def size(self) -> int:
        """Of the tree after it."""
        return self.batch.index + len(self.leaves)


class AuditTree:
    """The tree that the batches in AUDIT make, read one by one. `AuditBroken`: one is not there."""

    def __init__(self, connection: Connection, topology: Topology) -> None:
        self._connection = connection
        self._stream = topology.audit
        self._subject = topology.subjects.audit
        self._seen: dict[int, Placed] = {}  # by sequence; of one proof, so it stays small
        self._nodes: dict[tuple[int, int], bytes] = {}

    async def size(self) -> int:
        """How many leaves there are."""
        try:
            record = await get_last(self._connection, self._stream, self._subject)
        except LookupError:
            return 0
        return _placed(record.seq, record.data).size

    async def find(self, seq: int) -> Found | None:
        """The leaf of the journal's event `seq`."""
        placed = await self._search(lambda batch: batch.batch.last >= seq)
        if placed is None:
            return None
        leaves, _ = placed.batch.unpack()
        for number, leaf in enumerate(leaves):
            if leaf.seq == seq:
                index = placed.batch.index + number
                return Found(index=index, leaf=leaf, data=placed.leaves[number])
        return None

    async def after(self, seq: int) -> Placed | None:
        """The first batch that lies behind the journal's event `seq`."""
        return await self._search(lambda batch: batch.batch.first > seq)

    async def batch_of(self, index: int) -> Placed:
        """The batch that holds leaf `index`."""
        placed = await self._search(lambda batch: batch.size > index)
        if placed is None or placed.batch.index > index:
            raise AuditBroken([f"leaf {index} is missing in AUDIT"])
        return placed

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """The proof that leaf `index` is in the tree of `size` leaves."""
        return [await self.root(span, size) for span in inclusion_ranges(index, size)]

    async def consistency(self, old: int, size: int) -> list[bytes]:
        """The proof that the tree of `size` leaves begins with that of `old`."""
        return [await self.root(span, size) for span in consistency_ranges(old, size)]

    async def root(self, span: tuple[int, int], size: int) -> bytes:
        """The root over the leaves of `span` (from, to before), in a tree of `size`."""
        return root_of([await self._node(*place, size) for place in subtrees(*span)])

    async def _node(self, level: int, index: int, size: int) -> bytes:
        """The hash of a complete subtree."""
        tile_level, above = divmod(level, 8)
        wanted = [(tile_level, number) for number in range(index << above, (index + 1) << above)]
        if not all(place in self._nodes for place in wanted):
            await self._load(tile_level, wanted[0][1] // TILE, size)
        try:
            nodes = [self._nodes[place] for place in wanted]
        except KeyError:
            raise AuditBroken([f"a tile of level {tile_level} in AUDIT is cut short"]) from None
        while len(nodes) > 1:
            pairs = zip(nodes[::2], nodes[1::2], strict=True)
            nodes = [node_hash(left, right) for left, right in pairs]
        return nodes[0]

    async def _load(self, level: int, tile: int, size: int) -> None:
        """Remember the hashes of one tile, as far as the tree of `size` has them."""
        start = tile * TILE
        if level == 0:
            at, end = start, min(start + TILE, size)
            while at < end:
                placed = await self.batch_of(at)
                for number, leaf in enumerate(placed.leaves):
                    self._nodes[0, placed.batch.index + number] = leaf_hash(leaf)
                at = placed.size
            return
        end = min((start + TILE) * TILE**level, size // TILE * TILE)
        placed = await self.batch_of(end - 1)
        tiles = placed.batch.stated_tiles()
        if len(tiles) < level:
            raise AuditBroken([f"batch {placed.seq} in AUDIT lacks its tiles"])
        for number, node in enumerate(tiles[level - 1]):
            self._nodes[level, start + number] = node

    async def _search(self, holds: Callable[[Placed], bool]) -> Placed | None:
        """The first batch for which `holds`; it holds for all that follow, too."""
        low, (high, _) = 1, await last_sequence(self._connection, self._stream)
        found = None
        while low <= high:
            middle = (low + high) // 2
            placed = await self._get(middle)
            if placed is not None and not holds(placed):
                low = placed.seq + 1
                continue
            if placed is not None:
                found = placed
            high = middle - 1
        return found

    async def _get(self, seq: int) -> Placed | None:
        """The first batch from `seq` on."""
        if seq in self._seen:
            return self._seen[seq]
        try:
            record = await get_next(self._connection, self._stream, self._subject, seq)
        except LookupError:
            return None
        self._seen[record.seq] = placed = _placed(record.seq, record.data)
        return placed


async def root_at(connection: Connection, topology: Topology, size: int) -> bytes:
    """The root of the first `size` leaves in AUDIT. Raises `AuditBroken`."""
    tree = AuditTree(connection, topology)
    placed = await tree.batch_of(size - 1)
    if placed.size == size:
        return placed.batch.after(size).root
    return await tree.root((0, size), await tree.size())


async def latest_checkpoint(
    connection: Connection, topology: Topology, keys: Sequence[PublicKey]
) -> Checkpoint | None:
    """The last checkpoint in AUDIT that one of `keys` signed; without keys, the last one."""
    subject = topology.subjects.audit_checkpoints
    found: list[Checkpoint] = []

    def take(record: Record) -> None:
        try:
            found[:] = [Checkpoint.read(record.data.decode(), keys)]
        except (NoteBroken, UnicodeDecodeError):
            return  # not one of this log's: verifying names it

    try:
        take(await get_last(connection, topology.audit, subject))
    except StreamMissing:
        raise
    except LookupError:
        return None
    if not found:
        await scan(connection, topology.audit, take, filters=[subject])
    return found[0] if found else None


def _placed(seq: int, data: bytes) -> Placed:
    try:
        batch = decode_batch(data)
        _, leaves = batch.unpack()
    except BadInput as error:
        raise AuditBroken([f"batch {seq} in AUDIT cannot be read: {error}"]) from error
    return Placed(seq, batch, [bytes(leaf) for leaf in leaves])
