"""Reads a stream to its present end, once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

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
    first: int = 1,
    last: int | None = None,
    filters: Sequence[str] = (),
) -> int:
    """Give every message from `first` up to `last` (None: the last one now) to `callback`.

    filters: only those on these subjects.
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

    if last < first:
        return last
    async with Reader(connection, stream, start=first, callback=take, filters=filters) as reader:
        await first_of(reader.reached(last), enough.wait())
    return last
