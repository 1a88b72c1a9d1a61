"""The server's clock, followed by the monotonic one.

Every timestamp that arrives was set a little earlier than now, so the largest difference to the
monotonic clock is the best that is known. Only an answer that says what time it is (`set_ms`) may
turn the clock back; an old message may not.
"""

from __future__ import annotations

import time

__all__ = ["ServerClock"]


class ServerClock:
    """Unix milliseconds as the server counts them; this machine's own until it has spoken."""

    def __init__(self) -> None:
        self._offset_ms = time.time() * 1000 - time.monotonic() * 1000
        self.known = False

    def now_ms(self) -> int:
        """The server's time now, Unix milliseconds."""
        return int(time.monotonic() * 1000 + self._offset_ms)

    def set_ms(self, server_ms: float) -> None:
        """The server says that it is `server_ms` now."""
        self._offset_ms = server_ms - time.monotonic() * 1000
        self.known = True

    def saw_ns(self, at_ns: int) -> None:
        """A message with this timestamp has arrived."""
        offset = at_ns / 1_000_000 - time.monotonic() * 1000
        if self.known and offset > self._offset_ms:
            self._offset_ms = offset
