"""Waits for whichever of several things comes first, and ends the others."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

__all__ = ["first_of"]


async def first_of(*waits: Coroutine[object, object, object]) -> None:
    """Return when one of the coroutines has ended; raise what it raised; end the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
