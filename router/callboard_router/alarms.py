"""Deadlines in buckets of a fixed width: putting one in costs the same however many there are.

Whoever puts a key in keeps the number of its bucket. An entry whose key has another number by then
is an old one; so nothing is ever searched for or taken out before its time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

__all__ = ["Alarms"]

_WIDTH_S = 0.25


class Alarms:
    """Keys to be looked at, by time. Times are of one clock, in seconds."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[str]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def put(self, key: str, at: float, *, unless: int | None = None) -> int:
        """Look at `key` at the time `at`. Returns the number of its bucket.

        unless: the bucket that it stands in already; it stays there if that comes no later.
        """
        number = int(at // _WIDTH_S)
        if unless is not None and unless <= number:
            return unless
        bucket = self._buckets.get(number)
        if bucket is None:
            self._buckets[number] = [key]
            heapq.heappush(self._order, number)
        else:
            bucket.append(key)
        return number

    def until(self, now: float) -> Iterator[tuple[int, str]]:
        """Take out (bucket, key) of all whose time may have come: up to one width too early.

        Each must be put in again or given up. Keys that are put in meanwhile are not yielded.
        """
        last = int(now // _WIDTH_S)
        taken = []
        while self._order and self._order[0] <= last:
            number = heapq.heappop(self._order)
            taken.append((number, self._buckets.pop(number)))
        for number, keys in taken:
            for key in keys:
                yield number, key
