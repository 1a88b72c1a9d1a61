"""Runs a command's coroutine: on uvloop where it is installed, and cancelled by SIGTERM too."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from callboard_agents.loops import loop_factory

__all__ = ["run", "run_until_told"]

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end. Ctrl-C or SIGTERM cancels it and raises `KeyboardInterrupt`."""

    async def unless_told() -> T:
        this = asyncio.current_task()
        if this is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
        return await work

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            return runner.run(unless_told())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def run_until_told(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or SIGTERM or SIGINT cancels it, which is then no error."""

    async def until_told() -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(until_told())
