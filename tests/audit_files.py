"""Audit logs and exports made in memory of a journal, for tests of what verifies them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from callboard_broker.record import Record
from callboard_broker.signing import SigningKey
from callboard_ledger.export_lines import CheckpointLine, Head, RecordLine, encode_line
from callboard_ledger.leaves import decode_leaf, encode_leaf
from callboard_ledger.merkle import Tree, leaf_hash
from callboard_ledger.notes import Checkpoint, sign_checkpoint
from callboard_ledger.reading import read
from callboard_ledger.skeleton import Choice, Filling, Skeleton
from tests.ledger_journal import SUBJECTS

__all__ = ["KEY", "checkpoint_of", "export_to"]

KEY = SigningKey.new("test/log")


def leaves_of(journal: Iterable[Record]) -> list[bytes]:
    return [encode_leaf(record, read(SUBJECTS, record)) for record in journal]


def checkpoint_of(journal: list[Record], size: int | None = None) -> Checkpoint:
    """That of the first `size` events, signed."""
    tree = Tree()
    for leaf in islice(leaves_of(journal), size):
        tree.append(leaf_hash(leaf))
    return Checkpoint.read(sign_checkpoint(tree.size, tree.root, KEY), [KEY.public])


def export_to(
    path: Path,
    journal: list[Record],
    choice: Choice | None = None,
    *,
    splits: Iterable[int] = (),
    every: int = 0,
    notes: Iterable[str] = (),
) -> list[bytes]:
    """Write an export of the journal; returns its lines.

    splits: sizes of older checkpoints. every: a signed checkpoint after so many leaves. notes:
    records out of AUDIT.
    """
    lines: list[bytes] = []
    write: Callable[[bytes], None] = lines.append
    write(encode_line(Head(len(journal), checkpoint_of(journal).note)))
    for note in notes:
        write(encode_line(RecordLine(note)))
    with Skeleton(choice or Choice(), splits) as skeleton:
        for number, leaf in enumerate(leaves_of(journal), 1):
            skeleton.leaf(decode_leaf(leaf), leaf)
            if every and number % every == 0 and skeleton.aligned:
                skeleton.line(CheckpointLine(checkpoint_of(journal, number).note))
        skeleton.finish()
        filling = Filling(skeleton, write)
        for record in journal:
            filling.take(record)
        filling.end()
    path.write_bytes(b"".join(lines))
    return lines
