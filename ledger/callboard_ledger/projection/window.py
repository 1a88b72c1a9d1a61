"""A bounded piece of the journal between its reader and a database that may be slow or away."""

from __future__ import annotations

import asyncio
from collections import deque

from callboard_broker.record import Record

__all__ = ["Window"]

_MOST = 10_000
_MOST_BYTES = 16 * 1024 * 1024


class Window:
    """Takes what a reader brings until it is full, and then nothing any more: the reader is given
    up, and another one begins behind the last record that was taken. So an outage of any length
    needs no more memory than this. stirred: set when something came.
    """

    def __init__(self) -> None:
        self._records: deque[Record] = deque()
        self._size = 0
        self._taken = 0
        self.full = False
        self.stirred = asyncio.Event()

    def __len__(self) -> int:
        return len(self._records)

    def take(self, records: list[Record]) -> None:
        """What the reader calls."""
        for record in records:
            if self.full:
                break
            self._records.append(record)
            self._taken += 1
            self._size += len(record.data)
            self.full = self._taken >= _MOST or self._size >= _MOST_BYTES
        if self._records:
            self.stirred.set()

    def next(self) -> Record:
        """The first record; raises `IndexError` if there is none."""
        record = self._records.popleft()
        if not self._records:
            self.stirred.clear()
        return record
