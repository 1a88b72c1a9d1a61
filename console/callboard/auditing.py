"""Reads a board's journal to its present end: to verify it against AUDIT, and to replay it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from callboard_broker.connection import Connection
from callboard_broker.errors import BadInput
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, last_sequence
from callboard_ledger.heads import Head, HeadFile
from callboard_ledger.verify import Verifier, VerifyReport

__all__ = ["known_heads", "read_to_end", "verify_board"]


async def read_to_end(
    connection: Connection,
    stream: str,
    callback: Callable[[list[Record]], None],
    *,
    until: int | None = None,
) -> int:
    """Give `callback` every message up to the present last one, or to `until`; return that one's
    sequence. The last batch may hold some more. Raises `StreamMissing`, `BoardUnreachable`."""
    last, _ = await last_sequence(connection, stream)
    if until is not None:
        last = min(last, until)
    async with Reader(connection, stream, start=1, callback=callback) as reader:
        await reader.reached(last)
    return last


async def verify_board(
    connection: Connection,
    topology: Topology,
    heads: Iterable[Head] = (),
    *,
    progress: Callable[[int], None] = lambda _seq: None,
) -> VerifyReport:
    """Compare the whole journal with its audit log. progress: hears how far the journal is read.

    What is stored while this runs counts as not audited yet.
    """
    verifier = Verifier(heads)

    def batches(records: list[Record]) -> None:
        for record in records:
            verifier.batch(record)

    def events(records: list[Record]) -> None:
        for record in records:
            verifier.event(record)
        progress(records[-1].seq)

    await read_to_end(connection, topology.audit, batches)
    # The journal second: its end then lies behind everything that AUDIT was read to know.
    await read_to_end(connection, topology.journal, events)
    return verifier.report()


def known_heads(path: Path) -> list[Head]:
    """The heads in a ledger's directory, in its `audit-head.json` or in its `audit-heads.jsonl`.

    Raises `BadInput` if `path` holds none, `AuditBroken` if a file of the ledger is damaged.
    """
    if path.is_dir():
        return HeadFile(path).all()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput("head", f"{path} cannot be read: {error.strerror}") from error
    try:
        heads = [msgspec.json.decode(line, type=Head) for line in data.splitlines() if line.strip()]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput("head", f"{path} holds no head of an audit log: {error}") from error
    if not heads:
        raise BadInput("head", f"{path} is empty")
    return heads
