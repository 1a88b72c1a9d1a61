"""The clock of a board in memory: the loop's where its time jumps, else the real one.

Every part of the board reads this one clock, so that what the journal says, what handlers see and
what timers do never disagree.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

from callboard.testing.time_jumps import VirtualTimeLoop
from callboard_broker.server_clock import ServerClock

__all__ = ["BoardClock"]

_START = datetime(2026, 1, 1, tzinfo=UTC)
_GRAIN = 1e-5  # seconds: how much early a timer may fire, and what adding floats may lack


class BoardClock(ServerClock):
    """start: what it shows now. By default the real time, or on a loop whose time jumps, the first
    of January 2026, 00:00 UTC."""

    def __init__(self, start: datetime | None) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self.virtual = loop if isinstance(loop, VirtualTimeLoop) else None
        self.now: Callable[[], float] = time.monotonic if self.virtual is None else loop.time
        if start is None:
            start = _START if self.virtual is not None else datetime.now(UTC)
        self._ahead = start.timestamp() - self.now()

    def unix(self) -> float:
        """Unix seconds."""
        return self.now() + self._ahead

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return int((self.unix() + _GRAIN) * 1000)

    def at(self, unix_ms: int) -> float:
        """When it will be `unix_ms`, by `now`."""
        return unix_ms / 1000 - self._ahead

    def set_ms(self, server_ms: float) -> None:
        """Nobody sets it: it is the server's own."""

    def saw_ns(self, at_ns: int) -> None:
        """Likewise."""
