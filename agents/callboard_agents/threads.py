"""The threads of one agent: started when they are needed, never waited for at the end.

Python joins the threads of a ThreadPoolExecutor when the process ends; a handler that never
returns would then keep a drained host alive for ever. These are daemons.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable

__all__ = ["Threads"]


class Threads:
    """At most `count` threads that call what is submitted, each call in a context of its own."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy = 0

    def submit(self, call: Callable[[], None]) -> None:
        """Call `call` in a thread; it must not raise. Submit from one thread only."""
        self._busy += 1
        if self._busy > len(self._threads) < self._count:
            name = f"{self._name}-{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._calls.put(call)

    def freed(self) -> None:
        """A call has ended; said by the thread that submits."""
        self._busy -= 1

    def close(self) -> None:
        """Let the idle threads end, and the busy ones after their call."""
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            contextvars.Context().run(call)
