"""A connection whose other end is a server in the same loop.

Everything above the link is what runs in production: requests and their answers, sinks, publishing,
blobs, the client. A message that is too large for a server is refused here likewise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from callboard.testing.memory_server import MemoryServer, Subscription
from callboard_broker.connection import Connection
from callboard_broker.link import MAX_SUBJECT, Link, check_pattern, too_large
from callboard_broker.protocol_parser import SinkCallback

__all__ = ["MemoryConnection", "open_memory_link"]

_MAX_PAYLOAD = 1024 * 1024  # nats-server's default


class _MemoryLink(Link):
    """Overrides every way in and out; nothing of nats-py's client ever runs."""

    def __init__(self, server: MemoryServer, **told: Any) -> None:
        super().__init__(**told)
        self._server = server
        self._max_payload = _MAX_PAYLOAD
        self._heard: dict[int, Subscription] = {}

    async def open(self, url: str, *, name: str, seconds: float, **options: Any) -> None:  # noqa: ARG002  a link's interface
        self.up = True

    async def shut(self) -> None:
        self.cut()

    def cut(self) -> None:
        """Nothing is sent or heard any more, from this moment on."""
        self.up = False
        for subscription in self._heard.values():
            self._server.unsubscribe(subscription)
        self._heard.clear()

    @property
    def stuck(self) -> bool:
        return False

    def add_sink(self, subject: str, callback: SinkCallback, *, queue: str = "") -> int:
        check_pattern(subject, queue)
        self._sid += 1
        self._heard[self._sid] = self._server.subscribe(subject, callback, queue)
        return self._sid

    def drop_sink(self, sid: int) -> None:
        subscription = self._heard.pop(sid, None)
        if subscription is not None:
            self._server.unsubscribe(subscription)

    async def finish_sink(self, sid: int) -> None:
        self.drop_sink(sid)

    def send(self, subject: str, data: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        size = len(headers) + len(data)
        if size > self._max_payload or len(subject) > MAX_SUBJECT:
            raise too_large(subject, size, self._max_payload)
        if self.up:
            self._server.take(subject, reply, headers, data)

    @property
    def congested(self) -> bool:
        return False

    async def drained(self) -> None:
        """Nothing ever waits to be sent."""

    async def round_trip(self) -> None:
        """The server knows everything at once."""


class MemoryConnection(Connection):
    """A connection to `server`. It needs no supervisor: it breaks only when `cut` says so."""

    def __init__(self, server: MemoryServer, name: str) -> None:
        self._server = server
        super().__init__("memory:", name, {})
        self.clock = server.clock

    def cut(self) -> None:
        """Break it for good, as the death of its process would."""
        link = self.link
        if isinstance(link, _MemoryLink):
            link.cut()

    def _new_link(self) -> Link:
        return _MemoryLink(
            self._server,
            on_lost=lambda _reason: None,
            on_restored=lambda: None,
            on_closed=lambda: None,
            on_error=self.report,
        )


@asynccontextmanager
async def open_memory_link(server: MemoryServer, name: str) -> AsyncIterator[MemoryConnection]:
    """Connect to `server`, and close at the end."""
    connection = MemoryConnection(server, name)
    await connection.open(1.0)
    try:
        yield connection
    finally:
        await connection.close()
