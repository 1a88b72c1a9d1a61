"""The threads of one agent: started when they are needed, never waited for at the end.

Python joins the threads of a ThreadPoolExecutor when the process ends; a handler that never
returns would then keep a drained host alive for ever. These are daemons. The kernel counts the CPU
of each, and so what a handler used of it; threads that a handler starts are not counted.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import queue
import threading
from collections.abc import Callable

from msgspec import Raw

from callboard_agents.context import HostSide
from callboard_agents.executors import Watching
from callboard_agents.failures import failure_of
from callboard_agents.lane import Lane
from callboard_agents.results import encode_result
from callboard_agents.run import Run
from callboard_broker.wire import Failure, Usage

__all__ = ["Threaded", "Threads"]


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


class Threaded:
    """The executor of thread agents: each lane has threads of its own.

    A call in a thread cannot be stopped, only told (`ctx.cancelled`); its slot stays taken until it
    really returns.
    """

    def __init__(self, watching: Watching, side: HostSide) -> None:
        self._watching = watching
        self._cpu, self._now = side.cpu, side.now
        self._loop = asyncio.get_running_loop()
        self._of: dict[Lane, Threads] = {}

    def start(self, run: Run, payload: bytes | Raw) -> None:
        """Call the handler in a thread of its lane."""
        lane = run.lane
        threads = self._of.get(lane)
        if threads is None:
            threads = self._of[lane] = Threads(lane.slots, lane.agent.capability)
        self._watching.begun(run)
        threads.submit(functools.partial(self._call, threads, run, payload))

    def stop(self, run: Run) -> None:
        """The context tells it."""

    def kill(self, run: Run) -> bool:  # noqa: ARG002  an executor's interface
        """Say that it cannot be done."""
        return False

    def close(self) -> None:
        """Let the threads end."""
        for threads in self._of.values():
            threads.close()

    def _call(self, threads: Threads, run: Run, payload: bytes | Raw) -> None:
        """In a thread of the lane."""
        data: bytes | None = None
        cpu, now = self._cpu(), self._now()
        try:
            data, failure = encode_result(run.lane.start(payload, run.context))
        except BaseException as error:  # noqa: BLE001  whatever a handler raises is its outcome
            failure = failure_of(error)
        run.usage = Usage(cpu_s=self._cpu() - cpu, wall_s=self._now() - now)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ended, threads, run, data, failure)

    def _ended(
        self, threads: Threads, run: Run, data: bytes | None, failure: Failure | None
    ) -> None:
        threads.freed()
        self._watching.ended(run, data, failure)
