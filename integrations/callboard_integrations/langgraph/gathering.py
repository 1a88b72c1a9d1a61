"""Writes that come in a burst, one by one where that is quick, else together.

A server that syncs before it acknowledges does so for each message, but once for a whole atomic
batch: 500 messages took 870 ms one by one and 30 ms together. Without syncing nothing is gained.
So the first few go out at once, and what they took per message decides about those that wait behind
them. A batch that is refused was not stored, and its messages go one by one.
"""

from __future__ import annotations

import asyncio
from collections import deque

from callboard_broker.errors import WriteRefused
from callboard_broker.publisher import MOST_IN_BATCH, Done, Publisher

__all__ = ["Gathering"]

_AHEAD = 16  # writes on their way before others wait behind them
_WORTH_SECONDS = 0.03  # about what a batch costs
_MOST_BYTES = 4 * 1024 * 1024

_Write = tuple[str, bytes, Done]


class Gathering:
    """Writes into one stream that allows atomic batches."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Write] = deque()
        self._on_the_way = 0
        self._since = 0.0
        self._sent = 0
        self._seconds_each = 0.0

    def write(self, subject: str, data: bytes, *, done: Done) -> None:
        """Store a message; `done` hears what becomes of it, as with `Publisher.publish`."""
        if self._on_the_way < _AHEAD and not self._queue:
            self._send((subject, data, done))
        else:
            self._queue.append((subject, data, done))

    def _send(self, write: _Write) -> None:
        subject, data, done = write

        def landed(seq: int | None, error: Exception | None) -> None:
            self._landed()
            done(seq, error)

        self._publisher.publish(subject, data, done=landed)
        if not self._on_the_way:
            self._since, self._sent = self._loop.time(), 0
        self._on_the_way += 1
        self._sent += 1

    def _landed(self) -> None:
        self._on_the_way -= 1
        if self._on_the_way:
            return
        self._seconds_each = (self._loop.time() - self._since) / self._sent
        if self._queue:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._on_the_way or not self._queue:
            return
        if self._seconds_each * len(self._queue) > _WORTH_SECONDS:
            self._send_together()
        else:
            self._send_each()

    def _send_each(self) -> None:
        queue, self._queue = self._queue, deque()
        for write in queue:
            self._send(write)

    def _send_together(self) -> None:
        taken: list[_Write] = []
        size = 0
        while self._queue and len(taken) < MOST_IN_BATCH:
            size += len(self._queue[0][1])
            if taken and size > _MOST_BYTES:
                break
            taken.append(self._queue.popleft())

        def landed(seq: int | None, error: Exception | None) -> None:
            self._on_the_way = 0
            if isinstance(error, WriteRefused):
                self._queue.extendleft(reversed(taken))
                self._send_each()
                return
            for number, (_, _, done) in enumerate(taken, 1 - len(taken)):
                done(None if seq is None else seq + number, error)
            self._loop.call_soon(self._flush)

        messages = [(subject, data) for subject, data, _ in taken]
        self._on_the_way = _AHEAD  # whatever comes now waits for the batch
        self._publisher.publish_batch(messages, conditions=b"", done=landed)
