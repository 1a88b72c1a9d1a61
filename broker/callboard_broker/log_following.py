"""Reads what handlers have logged, and hears what they log now, until the task ends.

What hosts send is heard as it passes; what came before, and what was missed while the connection
was down, the ledger knows. A line is known by its number in its attempt, so that it comes once.
A host sends an attempt's lines before its outcome, so the end of a task comes after its lines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import msgspec

from callboard_broker.connection import Connection, NoResponder
from callboard_broker.errors import BadInput, BoardUnreachable, CallboardError, UnknownTask
from callboard_broker.log_lines import (
    LEVELS,
    Level,
    LogBatch,
    LoggedLine,
    decode_log_batch,
    level_number,
)
from callboard_broker.subjects import Subjects

if TYPE_CHECKING:
    from callboard_broker.handle import Handle

__all__ = ["LogFollowing", "LogsWanted", "read_logs"]

_MOST_WAITING = 10_000  # messages that were heard and not yet given out
_PATIENCE_SECONDS = 30.0  # for a ledger, or its server, that is being started again
_AGAIN_SECONDS = 0.25


class _Board(Protocol):
    connection: Connection
    subjects: Subjects

    async def ask(self, verb: str, question: object, *, tenant: str | None = None) -> bytes: ...

    async def handle(self, task: str, *, tenant: str | None = None) -> Handle: ...


@dataclass(frozen=True, slots=True)
class LogsWanted:
    """Which lines. Raises `BadInput`."""

    task: str
    tenant: str
    level: Level = "debug"
    last: int | None = None
    follow: bool = False

    def __post_init__(self) -> None:
        level_number(self.level)
        if self.last is not None and not 1 <= self.last <= 1000:
            raise BadInput("last", f"{self.last!r} is not 1 to 1000")


class _Complaint(msgspec.Struct):
    type: str
    message: str
    field: str | None = None


class _Answer(msgspec.Struct):
    id: str = ""
    lines: list[LoggedLine] = []
    next: int = 0
    more: bool = False
    error: _Complaint | None = None


async def read_logs(board: _Board, wanted: LogsWanted) -> AsyncGenerator[LoggedLine]:
    """Yield the lines that are wanted; see `Board.logs`."""
    if not wanted.follow:
        async for line in _Past(board, wanted).read():
            yield line
        return
    async with LogFollowing(board, wanted) as following:
        async for line in following.past():
            yield line
        async for line in following.live():
            yield line


class LogFollowing:
    """Lines of a task until its end. `async with` listens; read `past` first, then `live`.

    Raises `UnknownTask`, `NoResponder` if no ledger answers.
    """

    def __init__(self, board: _Board, wanted: LogsWanted) -> None:
        self._board = board
        self._wanted = wanted
        self._past = _Past(board, wanted)
        self._queue: asyncio.Queue[LogBatch | None] = asyncio.Queue(_MOST_WAITING)
        self._stack = AsyncExitStack()
        self.handle: Handle

    async def __aenter__(self) -> Self:
        board, wanted = self._board, self._wanted
        self.handle = handle = await board.handle(wanted.task, tenant=wanted.tenant)
        live = self._live = _Live(wanted, handle, self._queue)
        filters = board.subjects.log_filter(wanted.tenant)
        sink = await board.connection.sink(filters, live.heard)
        self._stack.push_async_callback(sink.close)
        self._stack.callback(board.connection.at_restore(live.restored))
        ended = asyncio.ensure_future(handle.wait())
        ended.add_done_callback(live.restored)
        self._stack.callback(ended.cancel)
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stack.aclose()

    async def past(self) -> AsyncGenerator[LoggedLine]:
        """What the ledger has by now."""
        async for line in self._past.read():
            yield line

    async def live(self) -> AsyncGenerator[LoggedLine]:
        """What comes, until the task has ended."""
        while not (self.handle.done and self._queue.empty()):
            batch = await self._queue.get()
            if batch is not None:
                for line in self._past.unseen(self._live.lines(batch)):
                    yield line
            elif not self.handle.done:
                async for line in self._past.read():
                    yield line
        async for line in self._past.read():  # what was on its way meanwhile
            yield line


class _Past:
    """What the ledger knows, from where it was asked last."""

    def __init__(self, board: _Board, wanted: LogsWanted) -> None:
        self._board = board
        self._wanted = wanted
        self._next = 0
        self._last = wanted.last
        self._seen: set[tuple[str, int, int]] = set()
        self._known = False

    async def read(self) -> AsyncGenerator[LoggedLine]:
        """Each line that was not given out yet."""
        while True:
            answer = await self._ask()
            self._next, self._last = answer.next, None
            for line in self.unseen(answer.lines):
                yield line
            if not answer.more:
                return

    def unseen(self, lines: list[LoggedLine]) -> list[LoggedLine]:
        """Those of them that were not given out yet."""
        if not self._wanted.follow:
            return lines
        found = []
        for line in lines:
            key = (line.task, line.attempt, line.n)
            if key not in self._seen:
                self._seen.add(key)
                found.append(line)
        return found

    async def _ask(self) -> _Answer:
        wanted = self._wanted
        question: dict[str, Any] = {
            "id": wanted.task,
            "level": wanted.level,
            "after": self._next,
            "fresh": True,
        }
        if self._last is not None:
            question["last"] = self._last
        data = await self._answered(question)
        answer = msgspec.json.decode(data, type=_Answer)
        if answer.error is None:
            return answer
        if answer.error.type == "UnknownTask":
            raise UnknownTask(wanted.task, wanted.tenant)
        if answer.error.type == "BadInput":
            raise BadInput(answer.error.field or "question", answer.error.message)
        raise CallboardError(f"the ledger: {answer.error.message}")

    async def _answered(self, question: dict[str, Any]) -> bytes:
        """What the ledger says; one that has answered before is given time to come back."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                data = await self._board.ask("logs", question, tenant=self._wanted.tenant)
            except (NoResponder, TimeoutError, BoardUnreachable):
                if not self._known or time.monotonic() > until:
                    raise
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                self._known = True
                return data


class _Live:
    """What passes on the tenant's subjects; most of it is of other tasks."""

    def __init__(
        self,
        wanted: LogsWanted,
        handle: Handle,
        queue: asyncio.Queue[LogBatch | None],
    ) -> None:
        self._wanted = wanted
        self._handle = handle
        self._queue = queue
        self._least = LEVELS[wanted.level]

    def heard(self, _subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        """A host sends lines."""
        task = self._handle.id  # may turn out to be another one's repeat
        if task.encode() not in data:
            return
        try:
            batch = decode_log_batch(data)
        except BadInput:
            return  # the ledger says so
        if task in (batch.workflow, batch.task) or batch.task.startswith(f"{task}."):
            self._put(batch)

    def restored(self, *_ignored: object) -> None:
        """Something may have been missed, or the task has ended."""
        self._put(None)

    def lines(self, batch: LogBatch) -> list[LoggedLine]:
        """Its lines, as the ledger would give them."""
        return [
            LoggedLine(
                at=line.at,
                level=line.level,
                message=line.message,
                tenant=self._wanted.tenant,
                workflow=batch.workflow,
                task=batch.task,
                attempt=batch.attempt,
                n=line.n,
                host=batch.host,
                capability=batch.capability,
                trace=batch.trace,
                logger=line.logger,
                fields=None if line.fields is msgspec.UNSET else msgspec.json.decode(line.fields),
                error=line.error,
            )
            for line in batch.lines
            if LEVELS[line.level] >= self._least
        ]

    def _put(self, batch: LogBatch | None) -> None:
        if self._queue.full():  # whoever reads is slower than what comes: the ledger has it all
            self._queue.get_nowait()
            batch = None
        self._queue.put_nowait(batch)
