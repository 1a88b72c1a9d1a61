"""A posted task or workflow as its poster sees it: a result to await, updates to follow.

The handle applies the journal's rule to what the stream republishes for its shard. The poster does
not hear of dispatches, so an outcome that follows no loss of its attempt stands for its dispatch:
a handle believes what is told, where router and ledger also compare the attempt's secret. Only the
server's permissions keep others from writing outcomes, and so from deceiving a handle.

A handle follows one generation: once it is done it stays so, and a redrive or resume of the same
id is followed by a new handle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any, Protocol

import msgspec

from callboard_broker.errors import (
    CommandRefused,
    TaskCancelled,
    TaskError,
    TaskExpired,
    TaskFailed,
)
from callboard_broker.rule import (
    TERMINAL,
    Life,
    TaskState,
    apply_lost,
    apply_outcome,
    apply_retrying,
)
from callboard_broker.wire import (
    BlobRef,
    Entered,
    Event,
    Expanded,
    Failure,
    Fired,
    Lost,
    Outcome,
    Retrying,
    Settled,
    Skipped,
)

__all__ = ["Chunk", "Handle", "Update"]

_ERRORS: dict[str, type[TaskError]] = {
    "failed": TaskFailed,
    "cancelled": TaskCancelled,
    "expired": TaskExpired,
}


class Chunk(msgspec.Struct, frozen=True):
    """A part of the result of `task`, given before its end by `ctx.output`.

    number: from 1 in each attempt; one that is left out was not heard, and with a higher attempt
    everything begins anew.
    """

    task: str
    attempt: int
    number: int
    value: Any


class Update(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something happened to `task`: the handle's own, or a step `<id>.<step>.<index>` of it.

    progress: what a handler told of how far it is. items: how many elements a fan-out has.
    retry_at: when it is tried again at the earliest, Unix milliseconds. skipped: why it will not
    run: the condition of its step does not hold. chunk: a part of the result.
    """

    task: str
    state: TaskState | None = None
    progress: Any = None
    items: int | None = None
    host: str | None = None
    error: Failure | None = None
    retry_at: int | None = None
    skipped: str | None = None
    chunk: Chunk | None = None


class _Board(Protocol):
    async def follow(self, handle: Handle) -> None: ...

    async def cancel(self, task: str, reason: str = "", *, tenant: str | None = None) -> None: ...

    async def blob(self, ref: BlobRef) -> bytes: ...


class Handle:
    """One posted task or workflow. id: as the ledger and the command know it.

    keeps: what is told now is for the first who follows, because nobody can follow yet.

    posted: the id of its post; it differs from `id` once the post is known to repeat another.
    """

    def __init__(self, board: _Board, task: str, tenant: str, shard: int) -> None:
        self.id = self.posted = task
        self.tenant = tenant
        self.shard = shard
        self.error: Failure | None = None
        self._board = board
        self._is_part = "." in task
        self._lives: dict[str, Life] = {}
        self._state: TaskState = "waiting"
        self._result: bytes | None = None
        self._blob: BlobRef | None = None
        self._done = asyncio.Event()
        self._listeners: list[asyncio.Queue[Update | None]] = []
        self.keeps = False
        self._kept: list[Update] = []

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
            raise _ERRORS[self._state](self.id, why.line, why)
        if self._blob is not None:
            self._result = await self._board.blob(self._blob)
            self._blob = None
        return msgspec.json.decode(self._result or b"null")

    async def cancel(self, reason: str = "") -> None:
        """End it as soon as possible; returns when the router has noted it.

        A handler that runs is told to stop, and the end comes after its own; if it succeeds first,
        it has succeeded. What has ended stays as it is. Raises as `Board.command` does.
        """
        while not self.done:
            asked = self.id
            try:
                await self._board.cancel(asked, reason, tenant=self.tenant)
            except CommandRefused:
                if self.done:
                    return
                if self.id == asked:
                    raise
                # meanwhile the post turned out to be the repeat of another, which is meant
            else:
                return

    async def __aiter__(self) -> AsyncIterator[Update]:
        """Follow what happens, from the present state to the terminal event."""
        queue: asyncio.Queue[Update | None] = asyncio.Queue()
        self._listeners.append(queue)
        try:
            if not self.done:
                await self._board.follow(self)
            yield Update(self.id, self._state, error=self.error)
            kept, self._kept = self._kept, []
            for early in kept:
                yield early
            while not (self.done and queue.empty()):
                update = await queue.get()
                if update is None:
                    return
                yield update
        finally:
            self._listeners.remove(queue)

    async def output(self) -> AsyncIterator[Chunk]:
        """Follow the parts of the result that the handler gives with `ctx.output`, to the end.

        Of a workflow, those of all its steps. They are not stored: one sees what is given from
        now on and arrives. `result` is complete without them.
        """
        async for update in self:
            if update.chunk is not None:
                yield update.chunk

    # -- what the board hears for it

    def told(self, event: Event) -> None:
        """An event of the journal that concerns this task, a step of it, or its end."""
        if self.done or (self._is_part and not self._concerns(event)):
            return
        if isinstance(event, Outcome):
            self._outcome(event)
        elif isinstance(event, Settled):
            self._tell(Update(event.task, event.state, error=event.error))
            self._lives.pop(event.task, None)
            if event.task == self.id:
                result = event.result if isinstance(event.result, msgspec.Raw) else None
                self.end(event.state, result, event.blob, event.error)
        elif isinstance(event, Lost | Retrying):
            self._attempt_over(event)
        else:
            update = _noted(event)
            if update is not None:
                self._tell(update)

    def _concerns(self, event: Event) -> bool:
        """Whether it is of this step, or of a workflow that this step is."""
        return self._is_mine(getattr(event, "task", ""))

    def _is_mine(self, task: str) -> bool:
        return task == self.id or task.startswith(f"{self.id}.")

    def _outcome(self, event: Outcome) -> None:
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

    def _attempt_over(self, event: Lost | Retrying) -> None:
        """The attempt is void, or its error is not the end: the task waits again."""
        life = self._lives.setdefault(event.task, Life())
        if event.attempt > life.attempt:
            life.state, life.attempt, life.failure = "running", event.attempt, None
        if isinstance(event, Lost):
            apply_lost(life, event)
            error = Failure("Lost", event.reason)
            update = Update(event.task, "waiting", error=error, host=event.host)
        else:
            update = Update(event.task, "waiting", error=life.failure, retry_at=event.at)
            apply_retrying(life, event)
            life.state = "waiting"  # also where the outcome itself was missed
        if event.task == self.id:
            self._state = "waiting"
        self._tell(update)

    def news(self, task: str, state: TaskState | None, progress: Any, host: str | None) -> None:
        """What a host said, unstored: a handler started, or told how far it is."""
        if not self.done:
            if task == self.id and state is not None:
                self._state = state
            self._tell(Update(task, state, progress, host=host))

    def given(self, chunk: Chunk) -> None:
        """A part of the result, unstored."""
        if not self.done and (not self._is_part or self._is_mine(chunk.task)):
            self._tell(Update(chunk.task, chunk=chunk))

    def learnt(self, state: TaskState, host: str | None = None) -> None:
        """What the ledger knew of it: it has not ended."""
        if not self.done and state != self._state:
            self._state = state
            self._tell(Update(self.id, state, host=host))

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
        if self.keeps:
            self._kept.append(update)
        for queue in self._listeners:
            queue.put_nowait(update)


def _noted(event: Event) -> Update | None:
    """What a poster may want to know beside attempts and ends."""
    if isinstance(event, Expanded):
        return Update(f"{event.task}.{event.step}", items=event.items, error=event.error)
    if isinstance(event, Skipped):
        return Update(event.task, skipped=event.reason)
    if isinstance(event, Entered):
        return Update(event.task, "running")
    if isinstance(event, Fired) and event.number:
        return Update(f"{event.task}.cron.{event.number}", "waiting")
    return None
