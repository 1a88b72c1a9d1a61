"""Tasks that a handler posts while it runs, and what becomes of them.

Each is posted under a key of its parent's, so that a second attempt of the parent finds the child
of the first one instead of posting another. A child that ended without success in an earlier
attempt gets another chance, once in each attempt: else a parent could never recover from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Self, cast

from callboard_agents.spawn import Spawn
from callboard_broker.client import Board, BoardOptions
from callboard_broker.connection import Connection
from callboard_broker.errors import TaskError
from callboard_broker.handle import Handle, Update
from callboard_broker.options import TaskOptions
from callboard_broker.rule import TaskState

__all__ = ["Child", "Children"]


class Child:
    """A spawned task, as its parent sees it."""

    def __init__(self, board: Board, spawn: Spawn, handle: Handle) -> None:
        self._board = board
        self._spawn = spawn
        self._handle = handle
        self._again = 0
        self._posting = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Child {self.id} of {self._spawn.parent.task}: {self.state}>"

    @property
    def id(self) -> str:
        """Its task's id; that of an earlier attempt's child, as soon as that is known."""
        return self._handle.id

    @property
    def posted(self) -> str:
        """The id of its post; it differs from `id` once an earlier attempt's child is found."""
        return self._handle.posted

    @property
    def state(self) -> TaskState:
        """As far as this process has heard."""
        return self._handle.state

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109  as Handle's
        """Return the decoded result. timeout: seconds to wait for it.

        Raises `TaskFailed`, `TaskCancelled`, `TaskExpired`, `TimeoutError`, and what `spawn`
        raises if the child of an earlier attempt has failed and another must be posted.
        """
        async with asyncio.timeout(timeout):
            while True:
                handle = self._handle
                try:
                    return await handle.result()
                except TaskError:
                    if handle is self._handle and handle.id == handle.posted:
                        raise
                await self._replace(handle)

    async def __aiter__(self) -> AsyncIterator[Update]:
        """Follow what happens to it, as with a handle; not to a child that takes its place."""
        async for update in self._handle:
            yield update

    async def cancel(self, reason: str = "") -> None:
        """End it as soon as possible; see `Handle.cancel`."""
        await self._handle.cancel(reason)

    async def _replace(self, ended: Handle) -> None:
        async with self._posting:
            if self._handle is ended:
                self._again += 1
                self._handle = await _submit(self._board, self._spawn, self._again)


class Children:
    """Posts for the handlers of one host, over its connection. `async with` opens and closes it."""

    def __init__(
        self, connection: Connection, *, prefix: str, host: str, group: asyncio.TaskGroup
    ) -> None:
        self._board = Board(connection, BoardOptions(prefix=prefix, name=host), group)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._board)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stack.aclose()

    async def spawn(self, spawn: Spawn) -> Child:
        """Post a child; returns when it is stored. Raises as `Board.submit` does."""
        return Child(self._board, spawn, await _submit(self._board, spawn, 0))


async def _submit(board: Board, spawn: Spawn, again: int) -> Handle:
    options = cast("TaskOptions", {**spawn.options, "parent": spawn.parent})
    return await board.submit(
        spawn.capability,
        spawn.payload,
        tenant=spawn.tenant,
        priority=spawn.priority,
        key=spawn.key(again),
        timeout=spawn.timeout,
        **options,
    )
