"""What a synchronous callback was given, to be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

__all__ = ["Arrivals"]

T = TypeVar("T")


class Arrivals(Generic[T]):
    """A list that a test can wait on. Each wait ends after `seconds` with a `TimeoutError`."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.items: list[T] = []
        self._seconds = seconds
        self._changed = asyncio.Event()

    def add(self, item: T) -> None:
        """A callback for one item."""
        self.items.append(item)
        self._changed.set()

    def extend(self, items: Iterable[T]) -> None:
        """A callback for a batch."""
        self.items.extend(items)
        self._changed.set()

    async def until(self, enough: Callable[[list[T]], bool]) -> list[T]:
        """Return the items as soon as `enough` is true of them."""
        async with asyncio.timeout(self._seconds):
            while not enough(self.items):
                self._changed.clear()
                await self._changed.wait()
        return self.items

    async def count(self, number: int) -> list[T]:
        """Return the items as soon as there are `number` or more."""
        return await self.until(lambda items: len(items) >= number)
