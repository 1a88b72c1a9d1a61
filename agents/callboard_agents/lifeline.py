"""A pipe from a host's process to its supervisor, by which a process that hangs is told from a busy
one.

The thread of the beats sends a byte at each of its turns, whether or not there is a server; so a
blocked event loop does not silence it, and a process that is stopped or stands still in C does. The
supervisor counts the silence by its own turns: while it is suspended itself, nobody is silent.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

__all__ = ["Lifeline", "Silence", "Watch"]

_LOOK_SECONDS = 1.0
_LOOKS = 10  # at the least, before a silence has lasted too long
_READ = 64 * 1024


class Lifeline:
    """The process's end. descriptor: of the pipe; it is this object's from now on."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)
        os.set_inheritable(descriptor, False)

    def pull(self) -> None:
        """Say that this process lives."""
        try:
            os.write(self._descriptor, b".")
        except (BlockingIOError, BrokenPipeError):
            return  # its supervisor has not looked for hours, or is gone, and this process with it

    def close(self) -> None:
        """Say that silence means nothing any more: the beats have ended in order."""
        os.close(self._descriptor)


class Silence:
    """How long nothing was heard. seconds: so much of it is too long. step: from look to look.

    Nothing is counted before the first sign, and of the time between two looks at most two steps:
    if it was longer, whoever looks was suspended, and so perhaps were all.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.step = min(_LOOK_SECONDS, seconds / _LOOKS)
        self.lasts = 0.0
        self._began = False
        self._looked_at: float | None = None

    def look(self, now: float, *, heard: bool) -> bool:
        """Whether it has lasted too long. now: monotonic seconds. heard: there was a sign since the
        last look."""
        since = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        if heard:
            self._began, self.lasts = True, 0.0
        elif self._began:
            self.lasts += min(since, 2 * self.step)
        return self.lasts >= self.seconds


class Watch:
    """The supervisor's end, looked at on its loop. descriptor: of the pipe; it is this object's
    from now on. hung: called once, with the seconds of silence, when they are too many."""

    def __init__(self, descriptor: int, seconds: float, hung: Callable[[float], None]) -> None:
        self._descriptor = descriptor
        self._silence = Silence(seconds)
        self._hung = hung
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        self._timer = self._loop.call_later(self._silence.step, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()
        os.close(self._descriptor)

    def _look(self) -> None:
        try:
            heard = bool(os.read(self._descriptor, _READ))
        except BlockingIOError:
            heard = False
        else:
            if not heard:  # closed
                return
        if self._silence.look(time.monotonic(), heard=heard):
            self._hung(self._silence.lasts)
        else:
            self._timer = self._loop.call_later(self._silence.step, self._look)
