"""Publishes a post until it is acknowledged: its nonce makes the repeats one task."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from callboard_broker.connection import Connection
from callboard_broker.errors import BoardUnreachable, StreamMissing, WriteUnresolved
from callboard_broker.publisher import Publisher

__all__ = ["Posting"]

_NEW_BOARD_SECONDS = 5.0
_STREAM_PAUSE_SECONDS = 0.1


class Posting:
    """patience: seconds in which a post is repeated."""

    def __init__(self, connection: Connection, publisher: Publisher, patience: float) -> None:
        self._connection = connection
        self._publisher = publisher
        self._patience = patience
        self._stored_before = False

    async def stored(self, subject: str, data: bytes) -> int:
        """Return the sequence that the journal gave it.

        Raises `WriteUnresolved`, `BoardUnreachable`, `StreamMissing`, `WriteRefused`.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        deadline = begun + self._patience
        while True:
            stored: asyncio.Future[int] = loop.create_future()

            def done(
                seq: int | None,
                error: Exception | None,
                stored: asyncio.Future[int] = stored,
            ) -> None:
                if stored.done():
                    return
                if seq is not None:
                    stored.set_result(seq)
                else:
                    stored.set_exception(error or WriteUnresolved(subject, 0))

            self._publisher.publish(subject, data, done=done)
            try:
                seq = await stored
            except (WriteUnresolved, BoardUnreachable):
                if loop.time() >= deadline:
                    raise
            except StreamMissing:
                # a cluster that elects a leader has no stream for a while; a new board never had
                if loop.time() >= (deadline if self._stored_before else begun + _NEW_BOARD_SECONDS):
                    raise
                await asyncio.sleep(_STREAM_PAUSE_SECONDS)
            else:
                self._stored_before = True
                return seq
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - loop.time())):
                    await self._connection.reached()
