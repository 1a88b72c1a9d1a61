"""The Merkle tree: the published vectors, every small tree against its definition, tiles."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from callboard_ledger.merkle import (
    EMPTY,
    Tree,
    consistency_ranges,
    inclusion_ranges,
    is_consistent,
    is_included,
    leaf_hash,
    node_hash,
    root_of,
    subtrees,
)

# The leaves and roots that the reference implementation of Certificate Transparency tests with.
_LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")
_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
)
_MOST = 40


def root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return node_hash(root(leaves[:half]), root(leaves[half:]))


def leaves_of(count: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(count)]


def test_the_published_roots_come_out() -> None:
    tree = Tree()
    assert tree.root == EMPTY
    for leaf, expected in zip(_LEAVES, _ROOTS, strict=True):
        tree.append(leaf_hash(bytes.fromhex(leaf)))
        assert tree.root.hex() == expected


def test_every_leaf_of_every_small_tree_has_a_proof_that_holds_for_it_alone() -> None:
    leaves = leaves_of(_MOST)
    for size in range(1, _MOST + 1):
        top = root(leaves[:size])
        for index in range(size):
            proof = [root(leaves[a:b]) for a, b in inclusion_ranges(index, size)]
            assert is_included(leaves[index], index, size=size, proof=proof, root=top)
            other = (index + 1) % size
            assert other == index or not is_included(
                leaves[index], other, size=size, proof=proof, root=top
            )
            longer = [*proof, top]
            assert not is_included(leaves[index], index, size=size, proof=longer, root=top)


def test_every_small_tree_is_shown_to_begin_with_every_smaller_one() -> None:
    leaves = leaves_of(_MOST)
    for size in range(1, _MOST + 1):
        new = size, root(leaves[:size])
        for old in range(1, size + 1):
            proof = [root(leaves[a:b]) for a, b in consistency_ranges(old, size)]
            assert is_consistent((old, root(leaves[:old])), new, proof)
            assert not is_consistent((old, root(leaves[1 : old + 1])), new, proof)
            assert old == size or not is_consistent((old, root(leaves[:old])), new, proof[:-1])


@pytest.mark.parametrize("size", [1, 7, 255, 256, 257, 700])
def test_ranges_are_complete_subtrees_whose_hashes_make_the_root(size: int) -> None:
    leaves = leaves_of(size)
    for start in range(0, size, 51):
        tree = Tree()
        for level, index in [*subtrees(0, start), *subtrees(start, size)]:
            tree.add(level, root(leaves[index << level : (index + 1) << level]))
        assert tree.size == size
        assert tree.root == root(leaves)
        assert root_of(tree.edge) == tree.root


def test_a_tile_is_the_roots_of_256_leaves_each_until_the_next_begins() -> None:
    leaves, tree = leaves_of(256 * 257), Tree()
    for leaf in leaves:
        tree.append(leaf)
        if tree.size == 256 * 256:
            assert len(tree.tiles[0]) == 256
            assert tree.tiles[1] == [tree.root]
    assert tree.tiles[0] == [root(leaves[256 * 256 :])]
