"""A stream as a table: a subject is a key, and its last message the row.

Which keys exist the stream's leader says; what they hold comes by batched direct gets, and what the
answering replica does not have yet is asked of the leader. So a read finds every write that was
acknowledged before it, on a cluster too, and costs what it finds and not what the stream holds.
Writes are repeated until they are acknowledged: to store a row twice changes nothing.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import msgspec

from callboard_broker.answers import ApiError
from callboard_broker.batch import GuardedWriter
from callboard_broker.connection import Connection, NoResponder
from callboard_broker.errors import (
    BoardUnreachable,
    CallboardError,
    StreamMissing,
    WriteUnresolved,
)
from callboard_broker.headers import header, status
from callboard_broker.publisher import Publisher
from callboard_broker.record import Record, read_time_ns
from callboard_integrations.langgraph.gathering import Gathering

__all__ = ["Table"]

_NOT_FOUND = 10037
_TRANSIENT = frozenset({500, 503})
_AT_ONCE = 256  # subjects of one batched get; the server refuses more than 1024
_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 0.1

T = TypeVar("T")


class Table:
    """The rows of `stream`. patience: seconds in which reads and writes are repeated."""

    def __init__(
        self, connection: Connection, publisher: Publisher, stream: str, *, patience: float
    ) -> None:
        self.connection = connection
        self.publisher = publisher
        self.stream = stream
        self._patience = patience
        self._gathering = Gathering(publisher)

    # -- writing

    async def write(
        self,
        subject: str,
        data: bytes,
        *,
        headers: bytes = b"",
        fence: tuple[GuardedWriter, int] | None = None,
    ) -> int:
        """Store a row; return its sequence. fence: stored only while this guard holds.

        headers: the server's own, such as a time to live; not together with a fence.

        Raises `WriteRefused`, `TooLarge`, `StreamMissing`, `BoardUnreachable`, `WriteUnresolved`.
        """
        send: Callable[..., None] = self._gathering.write
        if headers:
            send = partial(self.publisher.publish, headers=headers)
        elif fence is not None:
            send = partial(fence[0].write, guard=fence[1])
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            try:
                return await _stored(send, subject, data)
            except StreamMissing:  # or it is electing its leader
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)
            except (WriteUnresolved, BoardUnreachable):
                if loop.time() > deadline or self.connection.closed:
                    raise
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        await self.connection.reached()

    async def purge(self, subjects: str, *, before: int | None = None) -> None:
        """Remove the rows of a filter. before: only those with a smaller sequence."""
        body: dict[str, Any] = {"filter": subjects}
        if before is not None:
            body["seq"] = before
        await self._repeated(
            lambda: self.connection.api(f"STREAM.PURGE.{self.stream}", body, timeout=10.0)
        )

    # -- reading

    async def last(self, subjects: str) -> Record | None:
        """The row that was stored last of all that match, on the leader's word."""
        return await self._one({"last_by_subj": subjects})

    async def next(self, subjects: str, *, seq: int) -> Record | None:
        """The first row of all that match whose sequence is not smaller, on the leader's word."""
        return await self._one({"next_by_subj": subjects, "seq": seq})

    async def _one(self, body: dict[str, Any]) -> Record | None:
        try:
            answer = await self._repeated(
                lambda: self.connection.api(f"STREAM.MSG.GET.{self.stream}", body)
            )
        except ApiError as error:
            if error.err_code == _NOT_FOUND:
                return None
            raise
        found = answer["message"]
        return Record(
            int(found["seq"]),
            read_time_ns(found["time"]),
            found["subject"],
            base64.b64decode(found.get("hdrs", "")),
            base64.b64decode(found.get("data", "")),
        )

    async def keys(self, subjects: str) -> list[str]:
        """The subjects that have a row, in no order, on the leader's word."""
        found: list[str] = []
        while True:
            info = await self._repeated(partial(self._info, subjects, len(found)))
            page = info["state"].get("subjects") or {}
            found += page
            if not page or len(found) >= info.get("total", len(found)):
                return found

    async def rows(self, subjects: Sequence[str]) -> dict[str, Record]:
        """The rows of these subjects, by subject; those that do not exist are left out."""
        found: dict[str, Record] = {}
        for some in _parts(subjects, _AT_ONCE):
            missing = list(some)
            while missing:
                before = len(found)
                found |= await self._repeated(partial(self._batch, missing))
                missing = [subject for subject in missing if subject not in found]
                if len(found) == before:
                    break  # the rest does not exist, or only on the leader
            for row in await asyncio.gather(*[self.last(subject) for subject in missing]):
                if row is not None:
                    found[row.subject] = row
        return found

    async def matching(self, subjects: str) -> list[Record]:
        """All rows of a filter, in the order in which they were stored."""
        rows = await self.rows(await self.keys(subjects))
        return sorted(rows.values(), key=lambda row: row.seq)

    # -- inside

    async def _info(self, subjects: str, offset: int) -> dict[str, Any]:
        body = {"subjects_filter": subjects, "offset": offset}
        return await self.connection.api(f"STREAM.INFO.{self.stream}", body)

    async def _batch(self, subjects: Sequence[str]) -> dict[str, Record]:
        rows: dict[str, Record] = {}
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def arrived(_subject: str, _reply: str, headers: bytes, data: bytes) -> None:
            line = status(headers)
            if line is None:
                row = _row(headers, data)
                rows[row.subject] = row
            elif not ended.done():
                if line[0] in (204, 404):
                    ended.set_result(None)
                else:
                    ended.set_exception(_refusal(self.stream, line))

        inbox = self.connection.new_inbox()
        sink = self.connection.add_sink(inbox, arrived)
        try:
            body = msgspec.json.encode({"multi_last": subjects, "batch": len(subjects)})
            self.connection.send(f"$JS.API.DIRECT.GET.{self.stream}", body, reply=inbox)
            async with asyncio.timeout(_ANSWER_SECONDS):
                await ended
        finally:
            sink.drop()
        return rows

    async def _repeated(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until somebody answers: a cluster that elects a leader is silent for seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while True:
            try:
                return await ask()
            except (BoardUnreachable, NoResponder, TimeoutError):
                if loop.time() > deadline or self.connection.closed:
                    raise
            except ApiError as error:
                if error.code not in _TRANSIENT or loop.time() > deadline:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)


def _row(headers: bytes, data: bytes) -> Record:
    return Record(
        int(header(headers, "Nats-Sequence") or 0),
        read_time_ns(header(headers, "Nats-Time-Stamp") or ""),
        header(headers, "Nats-Subject") or "",
        headers,
        data,
    )


def _refusal(stream: str, line: tuple[int, str]) -> Exception:
    if line[0] == 503:
        return NoResponder(f"DIRECT.GET.{stream}")
    return CallboardError(f"the server refuses to read from {stream}: {line[0]} {line[1]}")


def _parts(subjects: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(subjects), size):
        yield subjects[start : start + size]


async def _stored(send: Callable[..., None], subject: str, data: bytes) -> int:
    written: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def done(seq: int | None, error: Exception | None) -> None:
        if written.done():
            return
        if seq is not None:
            written.set_result(seq)
        else:
            written.set_exception(error or CallboardError("a write failed without a reason"))

    send(subject, data, done=done)
    return await written
