"""Reads a stream from its beginning to its present end, once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from callboard_broker.connection import Connection
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import last_sequence
from callboard_ledger.racing import first_of

__all__ = ["scan"]


async def scan(
    connection: Connection,
    stream: str,
    callback: Callable[[Record], bool | None],
    *,
    last: int | None = None,
) -> int:
    """Give every message up to sequence `last` (None: the last one now) to `callback`.

    A callback that returns True ends it. Returns `last`. Raises `StreamMissing`, what the
    connection raises, and what `callback` raises.
    """
    end, _ = await last_sequence(connection, stream)
    last = end if last is None else min(last, end)
    enough = asyncio.Event()

    def take(records: list[Record]) -> None:
        for record in records:
            if enough.is_set():
                return
            if record.seq > last or callback(record):
                enough.set()

    if last < 1:
        return last
    async with Reader(connection, stream, start=1, callback=take) as reader:
        await first_of(reader.reached(last), enough.wait())
    return last
