"""The Merkle tree of RFC 6962: hashes, a tree that grows by its right edge, proofs, their checks.

A tree is kept as its complete subtrees (its edge), one hash for each bit of its size. On the way
it gives the tiles of C2SP's tlog-tiles away: 256 hashes of subtrees that are all of 256^level
leaves. A proof is asked for as ranges of leaves, so that whoever has the tiles can make it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "EMPTY",
    "TILE",
    "Tree",
    "consistency_ranges",
    "inclusion_ranges",
    "is_consistent",
    "is_included",
    "leaf_hash",
    "node_hash",
    "root_of",
    "subtrees",
]

EMPTY = hashlib.sha256().digest()
"""The root of a tree without leaves."""

TILE = 256
"""Hashes in a full tile."""

_sha256 = hashlib.sha256


def leaf_hash(data: bytes | memoryview) -> bytes:
    """The hash of a leaf with this content."""
    return _sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node above two others."""
    return _sha256(b"\x01" + left + right).digest()


def root_of(edge: Sequence[bytes]) -> bytes:
    """The root over complete subtrees, the largest first."""
    if not edge:
        return EMPTY
    root = edge[-1]
    for node in reversed(edge[:-1]):
        root = node_hash(node, root)
    return root


class Tree:
    """A tree that grows. size: its leaves. edge: its complete subtrees, the largest first.

    tiles: from level 1 on, the hashes in the last tile of the level that is not empty; a full one
    stands there until the next begins.
    """

    __slots__ = ("edge", "size", "tiles")

    def __init__(
        self,
        size: int = 0,
        edge: Iterable[bytes] = (),
        tiles: Iterable[Iterable[bytes]] = (),
    ) -> None:
        self.size = size
        self.edge = list(edge)
        self.tiles = [list(tile) for tile in tiles]

    @property
    def root(self) -> bytes:
        return root_of(self.edge)

    def append(self, leaf: bytes) -> None:
        """Add a leaf, given as its hash."""
        node, size, level = leaf, self.size, 0
        edge = self.edge
        while size & 1:
            node = _sha256(b"\x01" + edge.pop() + node).digest()
            size >>= 1
            level += 1
            if not level & 7:
                self._keep((level >> 3) - 1, node)
        edge.append(node)
        self.size += 1

    def add(self, level: int, node: bytes) -> None:
        """Add a complete subtree of 2^level leaves; the size must be a multiple of that.

        Such a tree keeps no tiles.
        """
        size = self.size >> level
        while size & 1:
            node = node_hash(self.edge.pop(), node)
            size >>= 1
        self.edge.append(node)
        self.size += 1 << level

    def copy(self) -> Tree:
        """A tree that grows on its own."""
        return Tree(self.size, self.edge, self.tiles)

    def _keep(self, index: int, node: bytes) -> None:
        if index == len(self.tiles):
            self.tiles.append([])
        elif len(self.tiles[index]) == TILE:
            self.tiles[index] = []
        self.tiles[index].append(node)


def subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """The complete subtrees that the leaves from `start` to before `end` consist of, in order.

    Each as (level, index): it has 2^level leaves, from index * 2^level on.
    """
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        yield level, start >> level
        start += 1 << level


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The proof that leaf `index` is in a tree of `size`: the ranges of leaves whose roots it is.

    From the leaf's sibling up to the child of the root. Each range begins at a multiple of the
    smallest power of two that holds it, so that its `subtrees` are the edge of its root.
    """
    found = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start = middle
    return found[::-1]


def consistency_ranges(old: int, size: int) -> list[tuple[int, int]]:
    """The proof that a tree of `size` begins with that of `old` leaves (1 to `size`), as ranges."""
    found = []
    start, end = 0, size
    whole = True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            found.append((middle, end))
            end = middle
        else:
            found.append((start, middle))
            start = middle
            whole = False
    if not whole:
        found.append((start, end))
    return found[::-1]


def is_included(leaf: bytes, index: int, *, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that the leaf with this hash is leaf `index` under `root`."""
    if not 0 <= index < size:
        return False
    at, last = index, size - 1
    found = leaf
    for node in proof:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node_hash(node, found)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            found = node_hash(found, node)
        at >>= 1
        last >>= 1
    return last == 0 and found == root


def is_consistent(old: tuple[int, bytes], new: tuple[int, bytes], proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree `new` (size, root) begins with the tree `old`."""
    (old_size, old_root), (size, root) = old, new
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == root
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    at, last = old_size - 1, size - 1
    while at & 1:
        at >>= 1
        last >>= 1
    before = after = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if at & 1 or at == last:
            before, after = node_hash(node, before), node_hash(node, after)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            after = node_hash(after, node)
        at >>= 1
        last >>= 1
    return last == 0 and before == old_root and after == root


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)
