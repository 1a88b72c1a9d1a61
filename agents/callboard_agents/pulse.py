"""How long a host's event loop has not answered: a ping from another thread, one at a time."""

from __future__ import annotations

import asyncio
import time

__all__ = ["Pulse"]


class Pulse:
    """The pulse of one loop. Looked at once a beat, from the thread of the beats."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked_at: float | None = None
        self._took = 0.0

    def look(self) -> float:
        """Return for how many seconds the loop has been blocked, or was when last asked."""
        asked_at = self._asked_at
        if asked_at is not None:
            return time.monotonic() - asked_at
        took = self._took
        if not self._loop.is_closed():
            self._asked_at = time.monotonic()
            self._loop.call_soon_threadsafe(self._answer)
        return took

    def _answer(self) -> None:
        """On the loop itself."""
        if self._asked_at is not None:
            self._took = time.monotonic() - self._asked_at
            self._asked_at = None
