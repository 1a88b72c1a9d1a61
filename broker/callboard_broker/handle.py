"""A posted task or workflow as its poster sees it: a result to await, updates to follow.

The handle applies the journal's rule to what the stream republishes for its shard. The poster does
not hear of dispatches, so an outcome that follows no loss of its attempt stands for its dispatch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any, Protocol

import msgspec

from callboard_broker.errors import TaskCancelled, TaskError, TaskExpired, TaskFailed
from callboard_broker.rule import TERMINAL, Life, TaskState, apply_lost, apply_outcome
from callboard_broker.wire import BlobRef, Event, Expanded, Failure, Lost, Outcome, Settled

__all__ = ["Handle", "Update"]

_ERRORS: dict[str, type[TaskError]] = {
    "failed": TaskFailed,
    "cancelled": TaskCancelled,
    "expired": TaskExpired,
}


class Update(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something happened to `task`: the handle's own, or a step `<id>.<step>.<index>` of it.

    progress: what a handler told of how far it is. items: how many elements a fan-out has.
    """

    task: str
    state: TaskState | None = None
    progress: Any = None
    items: int | None = None
    host: str | None = None
    error: Failure | None = None


class _Board(Protocol):
    async def follow(self, handle: Handle) -> None: ...

    async def blob(self, ref: BlobRef) -> bytes: ...


class Handle:
    """One posted task or workflow. id: as the ledger and the command know it."""

    def __init__(self, board: _Board, task: str, tenant: str, shard: int) -> None:
        self.id = task
        self.tenant = tenant
        self.shard = shard
        self.error: Failure | None = None
        self._board = board
        self._lives: dict[str, Life] = {}
        self._state: TaskState = "waiting"
        self._result: bytes | None = None
        self._blob: BlobRef | None = None
        self._done = asyncio.Event()
        self._listeners: list[asyncio.Queue[Update | None]] = []

    def __repr__(self) -> str:
        return f"<Handle {self.id} of {self.tenant}: {self._state}>"

    @property
    def state(self) -> TaskState:
        """As far as this process has heard."""
        return self._state

    @property
    def done(self) -> bool:
        return self._done.is_set()

    async def wait(self) -> TaskState:
        """Return the terminal state, without raising for a failure."""
        await self._done.wait()
        return self._state

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109  as asyncio.wait
        """Return the decoded result. timeout: seconds to wait for it.

        Raises `TaskFailed`, `TaskCancelled`, `TaskExpired`, `TimeoutError`.
        """
        if not self._done.is_set():
            async with asyncio.timeout(timeout) if timeout is not None else nullcontext():
                await self._done.wait()
        if self._state != "succeeded":
            why = self.error or Failure(self._state, self._state)
            raise _ERRORS[self._state](self.id, f"{why.type}: {why.message}", why)
        if self._blob is not None:
            self._result = await self._board.blob(self._blob)
            self._blob = None
        return msgspec.json.decode(self._result or b"null")

    async def __aiter__(self) -> AsyncIterator[Update]:
        """Follow what happens, from the present state to the terminal event."""
        queue: asyncio.Queue[Update | None] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            if not self.done:
                await self._board.follow(self)
            yield Update(self.id, self._state, error=self.error)
            while not (self.done and queue.empty()):
                update = await queue.get()
                if update is None:
                    return
                yield update
        finally:
            self._listeners.remove(queue)

    # -- what the board hears for it

    def told(self, event: Event) -> None:
        """An event of the journal that concerns this task, a step of it, or its end."""
        if self.done:
            return
        if isinstance(event, Settled):
            self._tell(Update(event.task, event.state, error=event.error))
            if event.task == self.id:
                blob = event.blob
                result = event.result if isinstance(event.result, msgspec.Raw) else None
                self.end(event.state, result, blob, event.error)
        elif isinstance(event, Outcome):
            life = self._lives.setdefault(event.task, Life())
            if event.attempt > life.attempt:
                life.state, life.attempt, life.failure = "running", event.attempt, None
                life.secret = event.secret
            if not apply_outcome(life, event):
                return
            self._tell(Update(event.task, life.state, host=event.host, error=event.error))
            if life.state in TERMINAL:
                del self._lives[event.task]
                if event.task == self.id:
                    result = event.result if isinstance(event.result, msgspec.Raw) else None
                    self.end("succeeded", result, event.blob, None)
        elif isinstance(event, Lost):
            life = self._lives.setdefault(event.task, Life())
            if event.attempt > life.attempt:
                life.state, life.attempt, life.failure = "running", event.attempt, None
            apply_lost(life, event)
            if event.task == self.id:
                self._state = "waiting"
            self._tell(
                Update(event.task, "waiting", error=Failure("Lost", event.reason), host=event.host)
            )
        elif isinstance(event, Expanded):
            self._tell(Update(f"{event.task}.{event.step}", items=event.items, error=event.error))

    def news(self, task: str, state: TaskState | None, progress: Any, host: str | None) -> None:
        """What a host said, unstored: a handler started, or told how far it is."""
        if not self.done:
            if task == self.id and state is not None:
                self._state = state
            self._tell(Update(task, state, progress, host=host))

    def end(
        self,
        state: TaskState,
        result: bytes | msgspec.Raw | None,
        blob: BlobRef | None,
        error: Failure | None,
    ) -> None:
        """The terminal event, from the journal or on the ledger's word."""
        if self.done:
            return
        self._state = state
        self._result = None if result is None else bytes(result)
        self._blob = blob
        self.error = error
        self._lives.clear()
        self._done.set()
        for queue in self._listeners:
            queue.put_nowait(None)

    def _tell(self, update: Update) -> None:
        for queue in self._listeners:
            queue.put_nowait(update)
