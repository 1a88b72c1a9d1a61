"""What is opened by `async with` on the loop that runs, or by `with` on a loop of its own.

A program without a loop gets a thread that runs one; the synchronous methods hand their work to it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, TypeVar

__all__ = ["Held", "LoopBound", "Opening"]

T = TypeVar("T")
R = TypeVar("R")


class LoopBound:
    """Something that lives on one loop, and may be asked from other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def on_loop(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run `coroutine` on the loop and wait for it, from another thread.

        Raises `RuntimeError` on the loop's own thread, where it would wait for itself.
        """
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is self._loop:
            coroutine.close()
            raise RuntimeError(
                "a synchronous method was called on the loop's own thread; use the one with an a "
                "in front (`aget_tuple`), and `ainvoke` or `astream` of the graph"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class Held(Generic[T]):
    """What is held for the length of a block on the loop of `bound`.

    By `async with` on that loop, by `with` on any other thread.
    """

    def __init__(self, bound: LoopBound, inside: AbstractAsyncContextManager[T]) -> None:
        self._bound = bound
        self._inside = inside

    async def __aenter__(self) -> T:
        return await self._inside.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._inside.__aexit__(kind, error, trace)

    def __enter__(self) -> T:
        return self._bound.on_loop(self.__aenter__())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return self._bound.on_loop(self.__aexit__(kind, error, trace))


class Opening(Generic[T]):
    """Opens what `make` gives; closed at the end of the block."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._make = make
        self._here: AbstractAsyncContextManager[T] | None = None
        self._opened: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> T:
        self._here = self._make()
        return await self._here.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._here is not None  # noqa: S101  entered before
        return await self._here.__aexit__(kind, error, trace)

    def __enter__(self) -> T:
        self._thread = threading.Thread(target=self._run, name="callboard langgraph")
        self._thread.start()
        try:
            return self._opened.result()
        except BaseException:
            self._end()
            raise

    def __exit__(self, *raised: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ending.set)
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._hold())
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    async def _hold(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._make() as opened:
            self._opened.set_result(opened)
            await self._ending.wait()
