"""Guarded writes: each is stored only while a given sequence is the last one of one subject.

On a single server they are pipelined. A cluster refuses a guarded write while another one with the
same guard is on its way (10164), so there one atomic batch is in flight at a time and the next one
gathers meanwhile; where the server refuses batches (it holds at most 50 open ones, for 10 s), the
writes go one at a time. A refusal says that nothing was stored, so it may be tried again; what was
neither confirmed nor refused is never repeated, and takes everything behind it along.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import NamedTuple

from callboard_broker.connection import Connection
from callboard_broker.errors import TooLarge, WriteRefused
from callboard_broker.publisher import MOST_IN_BATCH, Done, Publisher

__all__ = ["GUARD_BUSY", "GUARD_FAILED", "GuardedWriter", "is_clustered"]

GUARD_FAILED = 10071
"""JetStream's error code where another message is the last one of the guarded subject."""

GUARD_BUSY = 10164
"""The same where another guarded write has not been stored or refused yet: on clusters only."""

_MOST = min(512, MOST_IN_BATCH)  # 7 ms on a cluster of three: more gains little and waits longer
_MOST_BYTES = 4 * 1024 * 1024
_HEADER_BYTES = 1024
_PAUSE_SECONDS = 0.02
_WITHOUT_BATCHES_SECONDS = 1.0


class _Write(NamedTuple):
    subject: str
    data: bytes
    guard: int
    done: Done


class GuardedWriter:
    """Writes on condition that `guard` is the last sequence of the subject `guarded`.

    batched: the stream has replicas (`is_clustered`). A stream that gets some later is noticed.
    timeout: seconds for which a busy guard is waited for.
    """

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        guarded: str,
        *,
        batched: bool,
        timeout: float = 10.0,
    ) -> None:
        self.batched = batched
        self._connection = connection
        self._publisher = publisher
        self._guarded = guarded
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._conditions: tuple[int, bytes, bytes] = (-1, b"", b"")
        self._queue: deque[_Write] = deque()
        self._on_the_way: list[_Write] = []
        self._flushing = False
        self._busy_since: float | None = None
        self._singles_until = 0.0

    def write(self, subject: str, data: bytes, *, guard: int, done: Done) -> None:
        """Write a message; `done` hears what becomes of it. Raises `TooLarge`, `BadInput`.

        Errors given to `done`: `WriteRefused` (`.code` is `GUARD_FAILED` if the guard is over),
        and those of `Publisher.publish`: then it may or may not have been stored.
        """
        if not self.batched:
            self._publisher.publish(
                subject, data, headers=self._headers(guard), done=partial(self._piped, done)
            )
            return
        limit = self._connection.link.max_payload
        if len(data) + _HEADER_BYTES > limit:
            raise TooLarge("payload", f"{len(data):,} bytes; at most {limit - _HEADER_BYTES:,}")
        self._queue.append(_Write(subject, data, guard, done))
        self._flush_soon()

    @property
    def waiting(self) -> int:
        """Writes that have not been sent yet."""
        return len(self._queue)

    # -- one after the other, on a cluster

    def _flush_soon(self) -> None:
        if not self._flushing and not self._on_the_way:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._on_the_way or not self._queue:
            return
        taken = self._on_the_way = self._next()
        if len(taken) == 1:
            first = taken[0]
            headers = self._headers(first.guard)
            self._publisher.publish(first.subject, first.data, headers=headers, done=self._ended)
        else:
            self._headers(taken[0].guard)
            self._publisher.publish_batch(
                [(write.subject, write.data) for write in taken],
                conditions=self._conditions[2],
                done=self._ended,
            )

    def _next(self) -> list[_Write]:
        """Take what goes together: the same guard, and no more than a batch may hold."""
        queue = self._queue
        taken = [queue.popleft()]
        if self._loop.time() < self._singles_until:
            return taken
        size = len(taken[0].data)
        while queue and len(taken) < _MOST and queue[0].guard == taken[0].guard:
            size += len(queue[0].data)
            if size > _MOST_BYTES:
                break
            taken.append(queue.popleft())
        return taken

    def _ended(self, seq: int | None, error: Exception | None) -> None:
        taken, self._on_the_way = self._on_the_way, []
        if seq is not None:
            self._busy_since = None
            first = seq - len(taken) + 1
            for number, write in enumerate(taken):
                write.done(first + number, None)
        elif isinstance(error, WriteRefused):
            if not self._try_again(taken, error):
                self._busy_since = None
                for write in taken:
                    write.done(None, error)
        else:
            self._busy_since = None
            given_up = taken + list(self._queue)
            self._queue.clear()
            for write in given_up:
                write.done(None, error)
        if self._queue:
            self._flush_soon()

    def _try_again(self, taken: list[_Write], refusal: WriteRefused) -> bool:
        """Whether what was refused, and so not stored, is sent once more."""
        if refusal.code == GUARD_BUSY:
            now = self._loop.time()
            if self._busy_since is None:
                self._busy_since = now
            if now - self._busy_since > self._timeout:
                return False
            self._queue.extendleft(reversed(taken))
            self._flushing = True
            self._loop.call_later(_PAUSE_SECONDS, self._flush)
            return True
        if refusal.code == GUARD_FAILED or len(taken) == 1:
            return False
        self._singles_until = self._loop.time() + _WITHOUT_BATCHES_SECONDS
        self._queue.extendleft(reversed(taken))
        return True

    # -- pipelined, on one server

    def _piped(self, done: Done, seq: int | None, error: Exception | None) -> None:
        if isinstance(error, WriteRefused) and error.code == GUARD_BUSY:
            self.batched = True  # the stream has been given replicas since it was looked at
        done(seq, error)

    def _headers(self, guard: int) -> bytes:
        if self._conditions[0] != guard:
            lines = (
                f"Nats-Expected-Last-Subject-Sequence: {guard}\r\n"
                f"Nats-Expected-Last-Subject-Sequence-Subject: {self._guarded}\r\n"
            ).encode()
            self._conditions = (guard, b"NATS/1.0\r\n" + lines + b"\r\n", lines)
        return self._conditions[1]


async def is_clustered(connection: Connection, stream: str) -> bool:
    """Whether the stream has replicas, so that guarded writes cannot be pipelined into it.

    Raises what `Connection.api` raises.
    """
    info = await connection.api(f"STREAM.INFO.{stream}")
    return int(info["config"].get("num_replicas", 1)) > 1
