"""The attempts of a host in memory: `Running` and its executors, with faults and the loop's time.

While a plain function runs in its thread, no virtual time passes, except while it waits for the
loop (`ctx.wait`). An ordered fault strikes where the handler would begin, or takes its result.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine
from typing import Any

from msgspec import Raw

from callboard.testing.board_clock import BoardClock
from callboard.testing.faults import Fault, Faults
from callboard_agents.context import HostSide
from callboard_agents.executors import Executor
from callboard_agents.reports import Reports
from callboard_agents.run import Run
from callboard_agents.running import Running
from callboard_agents.spawn import Spawner
from callboard_agents.stagehand import Stagehand
from callboard_broker.wire import Failure

__all__ = ["MemoryRunning", "thread_side"]


class MemoryRunning(Running):
    """All attempts that run on one host of a board in memory."""

    def __init__(
        self,
        stagehand: Stagehand,
        reports: Reports,
        group: asyncio.TaskGroup,
        *,
        spawn: Spawner,
        clock: BoardClock,
        faults: Faults,
    ) -> None:
        inline = HostSide(spawn=spawn, now=clock.now)
        threaded = thread_side(clock, spawn)
        super().__init__(stagehand, reports, group, board="cb", inline=inline, threaded=threaded)
        self._virtual = clock.virtual
        self._struck: dict[Run, Failure] = {}
        self._in_threads: set[Run] = set()
        self._executors = {
            name: _Struck(executor, faults, self) for name, executor in self._executors.items()
        }

    def strike_at_end(self, run: Run, fault: Fault) -> None:
        """Whatever its handler returns, this is what becomes of it."""
        self._struck[run] = fault.failure

    def begun(self, run: Run, *, waited: bool = False) -> None:
        super().begun(run, waited=waited)
        if self._virtual is not None and run.lane.agent.isolation == "thread":
            self._in_threads.add(run)
            self._virtual.left()

    def ended(self, run: Run, data: bytes | None, failure: Failure | None) -> None:
        if self._virtual is not None and run in self._in_threads:
            self._in_threads.discard(run)
            self._virtual.came_back()
        struck = self._struck.pop(run, None)
        if struck is not None:
            data, failure = None, struck
        super().ended(run, data, failure)


class _Struck:
    """An executor whose attempts may be struck by a fault."""

    def __init__(self, executor: Executor, faults: Faults, running: MemoryRunning) -> None:
        self._executor = executor
        self._faults = faults
        self._running = running

    def start(self, run: Run, payload: bytes | Raw) -> None:
        fault = self._faults.take(run.lane.agent.capability)
        if fault is not None and fault.after:
            self._running.strike_at_end(run, fault)
        if fault is None or fault.after:
            self._executor.start(run, payload)
            return
        self._running.begun(run)
        asyncio.get_running_loop().call_soon(self._running.ended, run, None, fault.failure)

    def stop(self, run: Run) -> None:
        self._executor.stop(run)

    def kill(self, run: Run) -> bool:
        return self._executor.kill(run)

    def close(self) -> None:
        self._executor.close()


def thread_side(clock: BoardClock, spawn: Spawner) -> HostSide:
    """What contexts of plain functions need: their threads, too, have the clock of the board."""
    loop = asyncio.get_running_loop()
    virtual = clock.virtual
    if virtual is None:
        return HostSide(spawn=spawn, loop=loop, now=clock.now)

    def waits(future: concurrent.futures.Future[Any]) -> None:
        if not future.done():
            virtual.came_back()
            future.add_done_callback(lambda _: virtual.left())

    def submit(
        coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop
    ) -> concurrent.futures.Future[Any]:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        loop.call_soon_threadsafe(waits, future)
        return future

    def cpu() -> float:
        return 0.0  # what was really used would make each journal another one

    return HostSide(spawn=spawn, loop=loop, now=clock.now, cpu=cpu, submit=submit)
