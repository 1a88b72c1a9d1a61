"""Pipelined publishing: a numbered reply inbox, and acknowledgements matched by one dictionary.

Nothing is created per message but an entry in that dictionary; one timer watches them all. A write
whose acknowledgement does not come is *unresolved*: it may or may not be stored, and is never
repeated here. A write that cannot have left is told apart: `BoardUnreachable`.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import msgspec

from callboard_broker.connection import ApiError, Connection, NoResponder
from callboard_broker.errors import (
    BoardUnreachable,
    CallboardError,
    StreamMissing,
    WriteRefused,
    WriteUnresolved,
)
from callboard_broker.link import status

__all__ = ["MOST_IN_BATCH", "Done", "Publisher"]

Done = Callable[[int | None, Exception | None], None]
"""Called once with (sequence, None) or (None, error); it must not raise."""

MOST_IN_BATCH = 1000
"""Messages of an atomic batch; the server refuses more."""

_PAUSE_SECONDS = 0.05
_TICKS = 10  # the timer looks this often in one timeout


class _Waiting(NamedTuple):
    subject: str
    done: Done | None
    tick: int


class _Fault(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: _Fault | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Publisher:
    """Publishes into the streams of one connection. `async with` opens and closes it.

    timeout: seconds after which a write without an acknowledgement is unresolved.
    """

    def __init__(self, connection: Connection, *, timeout: float = 5.0) -> None:
        self._connection = connection
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._inbox = connection.new_inbox()
        self._batches = f"{self._inbox.partition('.')[2]}-"[-48:]  # an id has at most 64 characters
        self._number = 0
        self._tick = 0
        self._waiting: dict[str, _Waiting] = {}
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._sink = self._connection.add_sink(f"{self._inbox}.*", self._acked)
        self._forget = self._connection.at_lost(self._lost)
        return self

    async def __aexit__(self, *raised: object) -> None:
        """Waits for no acknowledgement: call `settled` before, where it matters."""
        self._forget()
        self._sink.drop()
        self._lost()

    @property
    def outstanding(self) -> int:
        """How many writes wait for their acknowledgement."""
        return len(self._waiting)

    def publish(
        self, subject: str, data: bytes, *, headers: bytes = b"", done: Done | None = None
    ) -> None:
        """Send a write; `done` hears what becomes of it. Raises `TooLarge`, `BadInput`.

        Errors given to `done`: `WriteRefused`, `WriteUnresolved`, `StreamMissing`, and
        `BoardUnreachable` if there is no connection, so that nothing was sent. After a
        `StreamMissing` nothing is stored either; on a cluster it also means that the stream is
        electing its leader. They come in a later turn of the event loop.
        """
        link = self._connection.link
        if not link.up:
            if done is not None:
                self._loop.call_soon(done, None, self._unreachable())
            return
        self._number += 1
        reply = f"{self._inbox}.{self._number}"
        link.send(subject, data, reply=reply, headers=headers)
        if not self._waiting:
            self._quiet.clear()
        self._waiting[reply] = _Waiting(subject, done, self._tick)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout / _TICKS, self._look)

    def publish_batch(
        self, messages: Sequence[tuple[str, bytes]], *, conditions: bytes, done: Done
    ) -> None:
        """Store all of the messages (subject, data), in order, or none of them; at most 1000.

        The stream must allow atomic batches, and all subjects must be its own. conditions: header
        lines of the first message, each with its CRLF; the batch stands and falls with them.
        `done` hears the sequence of the last message, or an error as in `publish`: where it is
        `WriteRefused`, nothing was stored.
        """
        link = self._connection.link
        last = len(messages)
        batch = f"{self._batches}{self._number}"
        if link.up:
            for number, (subject, data) in enumerate(messages[:-1], 1):
                link.send(subject, data, headers=_batch_headers(batch, number, conditions))
                conditions = b""
        subject, data = messages[-1]
        commit = _batch_headers(batch, last, conditions + b"Nats-Batch-Commit: 1\r\n")
        self.publish(subject, data, headers=commit, done=done)

    async def put(
        self,
        subject: str,
        data: bytes,
        headers: bytes = b"",
        timeout: float = 5.0,  # noqa: ASYNC109  it also says which error an end of it means
    ) -> int:
        """Write one message and return its sequence. timeout: seconds, for a connection too.

        Raises `WriteRefused` (10071: a guard in the headers failed), `WriteUnresolved`,
        `StreamMissing`, and `BoardUnreachable` if nothing was stored: there was no connection,
        or the stream is without a leader. It waits for both to come back.
        """
        on_its_way = False
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self._connection.reached()
                    on_its_way = True
                    try:
                        return await self._put_once(subject, data, headers)
                    except StreamMissing:
                        on_its_way = False
                        await self._check_stream(subject)
                        await asyncio.sleep(_PAUSE_SECONDS)
        except TimeoutError as error:
            if isinstance(error, WriteUnresolved):
                raise
            if on_its_way:
                raise WriteUnresolved(subject, timeout) from None
            raise self._unreachable() from None

    async def _put_once(self, subject: str, data: bytes, headers: bytes) -> int:
        written: asyncio.Future[int] = self._loop.create_future()

        def done(seq: int | None, error: Exception | None) -> None:
            if written.done():
                return
            if seq is not None:
                written.set_result(seq)
            else:
                written.set_exception(error or CallboardError("a write failed without a reason"))

        self.publish(subject, data, headers=headers, done=done)
        return await written

    async def _check_stream(self, subject: str) -> None:
        """Raise `StreamMissing` if there is none for `subject`: one may be electing its leader."""
        try:
            found = await self._connection.api("STREAM.NAMES", {"subject": subject})
        except (ApiError, BoardUnreachable, NoResponder, TimeoutError):
            return  # nobody can tell at the moment, or this user may not ask
        if not found.get("streams"):
            raise StreamMissing(f"for {subject}")

    async def settled(self) -> None:
        """Return when every write so far and during the wait has been answered or failed."""
        await self._quiet.wait()

    def _acked(self, subject: str, _reply: str, headers: bytes, data: bytes) -> None:
        waiting = self._waiting.pop(subject, None)
        if waiting is None:
            return
        done = waiting.done
        if not self._waiting:
            self._quiet.set()
        if done is None:
            return
        if headers and not data:
            done(None, _no_stream(waiting.subject, headers))
            return
        ack = _decode_ack(data)
        fault = ack.error
        if fault is None:
            done(ack.seq, None)
        else:
            done(None, WriteRefused(waiting.subject, fault.err_code, fault.description))

    def _look(self) -> None:
        """Fail what has waited too long: the oldest stand first, so only they are looked at."""
        self._tick += 1
        due = self._tick - _TICKS
        late = itertools.takewhile(lambda entry: entry[1].tick < due, self._waiting.items())
        failed = [self._waiting.pop(reply) for reply, _ in list(late)]
        if self._waiting:
            self._timer = self._loop.call_later(self._timeout / _TICKS, self._look)
        else:
            self._timer = None
            self._quiet.set()
        self._fail(failed)

    def _lost(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        failed = list(self._waiting.values())
        self._waiting.clear()
        self._quiet.set()
        self._fail(failed)

    def _fail(self, failed: list[_Waiting]) -> None:
        for waiting in failed:
            if waiting.done is not None:
                waited = (self._tick - waiting.tick) * self._timeout / _TICKS
                try:
                    waiting.done(None, WriteUnresolved(waiting.subject, waited))
                except Exception as error:  # noqa: BLE001  the others must hear of theirs
                    self._connection.report(error)

    def _unreachable(self) -> BoardUnreachable:
        return BoardUnreachable(self._connection.url, "not connected: nothing was stored")


def _batch_headers(batch: str, number: int, lines: bytes) -> bytes:
    return b"NATS/1.0\r\nNats-Batch-Id: %b\r\nNats-Batch-Sequence: %d\r\n%b\r\n" % (
        batch.encode(),
        number,
        lines,
    )


def _no_stream(subject: str, headers: bytes) -> Exception:
    line = status(headers)
    if line is not None and line[0] == 503:
        return StreamMissing(f"for {subject}")
    return CallboardError(f"a strange acknowledgement of a write to {subject}: {headers[:80]!r}")
