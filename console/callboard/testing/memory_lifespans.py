"""Lifespans on a loop whose time jumps: what is plain is left in a thread that holds the clock.

A host bounds the end of its lifespans by time. It would be over at once while a thread works of
which the loop does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from typing import Any, cast

from callboard.testing.time_jumps import VirtualTimeLoop
from callboard_agents.lifespans import Span, lived

__all__ = ["lived_here"]


def lived_here(spans: Sequence[Span]) -> AbstractAsyncContextManager[None]:
    """Enter all of them, as a host does, and leave them at the exit. Raises `StartFailed`."""
    if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
        spans = [span if span.is_async else _held(span) for span in spans]
    return lived(spans)


def _held(span: Span) -> Span:
    @asynccontextmanager
    async def enter() -> AsyncIterator[None]:
        manager = cast("AbstractContextManager[Any]", span.enter())
        manager.__enter__()
        try:
            yield
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)

    return Span(name=span.name, is_async=True, enter=enter)
