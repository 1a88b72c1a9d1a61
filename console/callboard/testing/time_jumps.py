"""An event loop whose time jumps: when nothing is ready, its clock is set to the next timer.

Everything that waits by the loop (`asyncio.sleep`, timeouts, `call_later`) is therefore over at
once, and in the same order in every run. While a thread works that the loop knows of, no time
passes; while a socket or a pipe is open or a child process runs, time passes as it really does,
because nobody can know what will arrive. When there is no timer either, nothing can ever happen
again: `NothingHappens` says what still waits.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import selectors
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from callboard_broker.errors import CallboardError

__all__ = ["NothingHappens", "VirtualTimeLoop", "run", "virtual_time"]

_BEGIN = 1_000.0  # what the loop's clock shows first: no deadline is in the past
_RESOLUTION = 1e-6  # a timer that is so near has come: after a year, adding less changes nothing
_FOREIGN_SECONDS = 0.25  # real ones, for a thread of which the loop does not know

P = ParamSpec("P")
T = TypeVar("T")


class NothingHappens(CallboardError, RuntimeError):
    """Something is awaited, and there is no timer, no thread and no socket that could bring it."""

    def __init__(self, waiting: list[str]) -> None:
        told = "".join(f"\n- {line}" for line in waiting)
        super().__init__(
            "what is awaited cannot happen any more: nothing runs and no timer is left"
            + (f". On the board:{told}" if told else "")
        )
        self.waiting = waiting


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop of `run`. tells: what is asked for a few lines when nothing can happen any more."""

    def __init__(self) -> None:
        self.tells: list[Callable[[], list[str]]] = []
        self._now = _BEGIN
        self._outside = 0
        self._programs: set[object] = set()
        self._quiet: list[asyncio.Future[None]] = []
        super().__init__(_Jumping(self))
        self._clock_resolution = _RESOLUTION

    def time(self) -> float:
        """Virtual seconds, also for threads."""
        return self._now

    # -- what goes on outside of the loop

    def left(self) -> None:
        """A thread works: no time passes. Said on the loop, as is `came_back`."""
        self._outside += 1

    def came_back(self) -> None:
        """It has ended, or waits for the loop."""
        self._outside -= 1

    @contextmanager
    def real_work(self) -> Iterator[None]:
        """No time passes within: for work in threads of which the loop does not know."""
        self.left()
        try:
            yield
        finally:
            self.came_back()

    def run_in_executor(  # type: ignore[override]  # typeshed's form, without its type variables
        self, executor: concurrent.futures.Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As every loop does (`asyncio.to_thread`); meanwhile no time passes."""
        future = super().run_in_executor(executor, func, *args)
        self.left()
        future.add_done_callback(lambda _: self.came_back())
        return future

    async def subprocess_exec(
        self, protocol_factory: Callable[[], Any], *args: Any, **options: Any
    ) -> tuple[Any, Any]:
        """As every loop does; until the program ends, time passes as it really does."""
        with self._program(protocol_factory) as watched:
            return await super().subprocess_exec(watched, *args, **options)

    async def subprocess_shell(
        self, protocol_factory: Callable[[], Any], *args: Any, **options: Any
    ) -> tuple[Any, Any]:
        """Likewise."""
        with self._program(protocol_factory) as watched:
            return await super().subprocess_shell(watched, *args, **options)

    @contextmanager
    def _program(self, protocol_factory: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
        """A program runs from here on, until its protocol hears of its end, or it did not begin."""
        key = object()
        self._programs.add(key)

        def watched() -> Any:
            protocol = protocol_factory()
            told = protocol.process_exited

            def process_exited() -> None:
                self._programs.discard(key)
                told()

            protocol.process_exited = process_exited
            return protocol

        try:
            yield watched
        except BaseException:
            self._programs.discard(key)
            raise

    async def shutdown_default_executor(self, *args: Any) -> None:
        """As every loop does; it waits for a thread."""
        with self.real_work():
            await super().shutdown_default_executor(*args)

    @property
    def runs_programs(self) -> bool:
        """Whether a child process runs."""
        return bool(self._programs)

    # -- the jump

    async def quiet(self) -> None:
        """Return when all that can happen at this moment has happened."""
        future: asyncio.Future[None] = self.create_future()
        self._quiet.append(future)
        await future

    def pass_time(self, seconds: float | None, *, watched: bool) -> float | None:
        """Nothing is ready. seconds: until the next timer. Returns the real seconds to wait (None:
        until something comes), having moved the clock where there is nothing to wait for.

        watched: a socket is open, or a pipe.
        """
        if self._outside > 0 and not watched:
            return None
        if self._quiet and self._outside <= 0:
            quiet, self._quiet = self._quiet, []
            for future in quiet:
                if not future.done():
                    future.set_result(None)
            return 0.0
        if watched:
            return seconds
        if seconds is None:
            return _FOREIGN_SECONDS
        self._now += seconds
        return 0.0

    def passed(self, seconds: float) -> None:
        """So much real time has passed while a socket was waited for."""
        self._now += seconds

    def stuck(self) -> NothingHappens:
        """The error that says what waits."""
        return NothingHappens([line for tell in self.tells for line in tell()])


class _Jumping(selectors.BaseSelector):
    """The real selector, asked first; what would be waited for, is jumped over."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = self._real.select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        # The loop's own pipe is always there.
        watched = len(self._real.get_map()) > 1 or self._loop.runs_programs
        wait = self._loop.pass_time(timeout, watched=watched)
        if wait == 0.0:
            return []
        began = time.monotonic()
        found = self._real.select(wait)
        if watched:
            self._loop.passed(time.monotonic() - began)
        elif not found and timeout is None and wait is not None:
            raise self._loop.stuck()
        return found

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def close(self) -> None:
        self._real.close()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end on a loop whose time jumps, as `asyncio.run` does on a real one.

    Raises what `main` raises, and `NothingHappens` where it would wait for ever.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def virtual_time(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make an `async def` test a plain one, which any test runner can call, and `run` it.

    Fixtures and parameters stay as they are; no plugin of pytest is needed.
    """

    @functools.wraps(test)
    def ran(*args: P.args, **kwargs: P.kwargs) -> T:
        return run(test(*args, **kwargs))

    return ran
