"""A heap whose members' ranks change: who rises says so, who sinks is found out at the head.

A member stands in one ranking at a time and remembers its entry; entries that are not its own any
more are dropped where they surface. So a change costs one push, however many members there are.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, heapreplace
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Rank", "Ranked", "Ranking"]

Rank = tuple[Any, ...]
"""The least comes first."""

_FEW = 64


class Ranked(Protocol):
    """A member. entry: (rank, number, itself) as it stands in its ranking; None: it stands in none.

    A rank that has become less must be told by `put`.
    """

    entry: tuple[Rank, int, Any] | None

    def rank(self) -> Rank | None:
        """Its rank now; None: it does not take part."""
        ...


Member = TypeVar("Member", bound=Ranked)


class Ranking(Generic[Member]):
    """Members by rank."""

    __slots__ = ("_heap", "_limit", "_number")

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int, Member]] = []
        self._number = 0
        self._limit = _FEW

    def put(self, member: Member, rank: Rank) -> bool:
        """Let it take part, or rise; whether that changed anything."""
        old = member.entry
        if old is not None and old[0] <= rank:
            return False
        if len(self._heap) >= self._limit:
            self._clean()
        self._number += 1
        entry = (rank, self._number, member)
        member.entry = entry
        heappush(self._heap, entry)
        return True

    def head(self) -> Member | None:
        """The first one; it stays."""
        heap = self._heap
        while heap:
            entry = heap[0]
            before, _, member = entry
            if member.entry is not entry:
                heappop(heap)
                continue
            rank = member.rank()
            if rank is before:
                return member
            if rank is None:
                heappop(heap)
                member.entry = None
            elif rank > before:
                self._number = number = self._number + 1
                member.entry = entry = (rank, number, member)
                heapreplace(heap, entry)
            else:
                return member
        return None

    def members(self) -> list[Member]:
        """All that stand in it, in no order."""
        return [entry[2] for entry in self._heap if entry[2].entry is entry]

    def _clean(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2].entry is entry]
        heapify(self._heap)
        self._limit = max(_FEW, 2 * len(self._heap))
