"""What a handler may know and say while it runs.

Everything here works from a coroutine of the host's loop as well as from a plain function in one
of its threads. Nothing here is stored: a progress that nobody hears is gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

from callboard_broker.bounds import check_size
from callboard_broker.encoding import encode_payload

__all__ = ["Context", "Told"]

_MAX_PROGRESS = 64 * 1024
_LOG = logging.getLogger("callboard.agent")


def _nobody(_progress: bytes) -> None:
    """The listener of a context that was made by hand, for a test."""


@dataclass(frozen=True, slots=True)
class Told(Awaitable[None]):
    """A progress that is on its way; awaiting it waits while the connection is congested."""

    room: Callable[[], Awaitable[None]] | None = None

    def __await__(self) -> Generator[Any, None, None]:
        if self.room is not None:
            yield from self.room().__await__()


class Context:
    """The attempt that runs.

    task, attempt, tenant, capability: which one. deadline: when it is stopped, in seconds of
    `time.monotonic()`. A handler's test makes one by hand: `Context(task="1")`.
    """

    __slots__ = (
        "_cancelled",
        "_log",
        "_room",
        "_tell",
        "attempt",
        "capability",
        "deadline",
        "task",
        "tenant",
    )

    def __init__(
        self,
        *,
        task: str,
        attempt: int = 1,
        tenant: str = "test",
        capability: str = "test",
        deadline: float = float("inf"),
        tell: Callable[[bytes], None] = _nobody,
        room: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.task = task
        self.attempt = attempt
        self.tenant = tenant
        self.capability = capability
        self.deadline = deadline
        self._tell = tell
        self._room = room
        self._cancelled = False
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this task: give it to whatever must happen only once."""
        return f"{self.tenant}/{self.task}"

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the attempt is stopped; negative when it is late."""
        return self.deadline - time.monotonic()

    @property
    def cancelled(self) -> bool:
        """Whether the attempt shall stop: timed out, drained, or its host's lease has ended.

        A coroutine is cancelled as well; a plain function has only this to look at.
        """
        return self._cancelled

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry task, attempt, tenant and capability."""
        if self._log is None:
            facts = {
                "task": self.task,
                "attempt": self.attempt,
                "tenant": self.tenant,
                "capability": self.capability,
            }
            self._log = logging.LoggerAdapter(_LOG, facts)
        return self._log

    def progress(self, value: object) -> Told:
        """Tell whoever follows the task how far it is. Any value that JSON can hold.

        Sent at once, from a coroutine or from a thread; `await ctx.progress(...)` waits besides
        while the connection is congested, which a plain function cannot. Raises `BadInput` if the
        value cannot be encoded or takes more than 64 KiB.
        """
        data = encode_payload(value, field="progress")
        check_size(data, _MAX_PROGRESS, "progress")
        if not self._cancelled:
            self._tell(data)
        return Told(self._room)

    def cancel(self) -> None:
        """Ask the handler to stop; called by the host."""
        self._cancelled = True
