"""One LangGraph task as a task of the board, found again over crashes, resumptions and retries.

Its key is `<thread>/<task>/<n>`, where n begins with LangGraph's count of attempts, which begins
anew with each resumption. What runs or has succeeded under a key is joined. What had ended without
success before is not: then n grows until a key is new, or its task runs or has succeeded.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from callboard_agents import Context
from callboard_broker.client import Board
from callboard_broker.errors import TaskError
from callboard_broker.handle import Update

__all__ = ["RemoteTask", "run_remote"]

_MAX_KEY = 256
_REASON = "the graph that waited for it was cancelled or has timed out"


class _Posted(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def posted(self) -> str: ...

    async def result(self) -> Any: ...

    async def cancel(self, reason: str = "") -> None: ...

    def __aiter__(self) -> AsyncIterator[Update]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTask:
    """What is to be done. place: `<thread>/<task>`, or empty where nothing is kept.

    attempt: LangGraph's count. options: of `Board.submit`.
    """

    capability: str
    payload: Any
    place: str
    attempt: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def key(self, number: int) -> str | None:
        """The idempotency key of the n-th post."""
        if not self.place:
            return None
        key = f"langgraph/{self.place}/{number}"
        if len(key) <= _MAX_KEY:
            return key
        return f"langgraph/{hashlib.sha256(key.encode()).hexdigest()}"


async def run_remote(
    task: RemoteTask, poster: Board | Context, heard: Callable[[str, Update], None]
) -> Any:
    """Post `task`, or join it, and return its result; `heard` is told what happens to it.

    Cancels the task if this is cancelled. Raises `TaskFailed`, `TaskCancelled`, `TaskExpired`, and
    as `Board.submit` does.
    """
    number = task.attempt
    while True:
        posted = await _post(task, poster, number)
        try:
            return await _followed(posted, heard)
        except TaskError:
            if posted.id == posted.posted or not task.place:
                raise
        number += 1  # it was posted, and had ended without success, before this run


async def _post(task: RemoteTask, poster: Board | Context, number: int) -> _Posted:
    posting = asyncio.ensure_future(_stored(task, poster, number))
    try:
        return await asyncio.shield(posting)
    except asyncio.CancelledError:
        await _shielded_cancel(await posting)  # it may be stored already
        raise


async def _stored(task: RemoteTask, poster: Board | Context, number: int) -> _Posted:
    key = task.key(number)
    if isinstance(poster, Board):
        return await poster.submit(task.capability, task.payload, key=key, **task.options)
    return await poster.spawn(task.capability, task.payload, key=key, **task.options)


async def _followed(posted: _Posted, heard: Callable[[str, Update], None]) -> Any:
    try:
        async for update in posted:
            heard(posted.id, update)
        return await posted.result()
    except asyncio.CancelledError:
        await _shielded_cancel(posted)
        raise


async def _shielded_cancel(posted: _Posted) -> None:
    """Whoever cancels may do so twice; the remote task ends nevertheless."""
    cancelling = asyncio.ensure_future(posted.cancel(_REASON))
    while not cancelling.done():
        try:
            await asyncio.shield(cancelling)
        except asyncio.CancelledError:
            continue
    cancelling.result()
