"""nats-py's client with a hot path of its own: reconnecting, TLS and authentication stay nats-py's.

Messages for a *sink* are handed over synchronously by the parser; what is sent in one turn of the
event loop leaves in one write. A message that is sent while the connection is down is dropped, and
what was not yet written when it broke is too: whoever needs to know asks for an acknowledgement.
All dealings with nats-py's private parts are in this file; `tests/unit/test_link_parser.py` and
the tests of the connection pin them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nats import errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from callboard_broker.errors import BadInput, BoardUnreachable, TooLarge
from callboard_broker.headers import header, raw_headers, status
from callboard_broker.protocol_parser import Parser, SinkCallback

__all__ = [
    "MAX_SUBJECT",
    "Link",
    "check_pattern",
    "header",
    "raw_headers",
    "status",
    "too_large",
]

_FLUSH_BYTES = 256 * 1024
_HIGH_WATER_BYTES = 4 * 1024 * 1024
_READ_BYTES = 64 * 1024
MAX_SUBJECT = 1024  # the server closes the connection at a control line of 4,096 bytes
_CLOSE_SECONDS = 2.0


class Link(Client):
    """One connection to a NATS server, until it is closed for good.

    on_lost: called at once, with the reason, when the connection breaks or closes.
    on_restored: called when nats-py has reconnected and subscribed again.
    on_closed: called when nats-py has given up for good.
    on_error: hears what a sink raised and what the server complained about.
    """

    def __init__(
        self,
        *,
        on_lost: Callable[[Exception | None], None],
        on_restored: Callable[[], None],
        on_closed: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        super().__init__()
        self._sinks: dict[str, SinkCallback] = {}
        self._parser = Parser(self, self._sinks, on_error)
        self._ps = self._parser  # type: ignore[assignment]  # the seam: nats-py only calls it
        self._on_lost = on_lost
        self._on_restored = on_restored
        self._on_closed = on_closed
        self._on_error = on_error
        self._flushing = False
        self._opening = True
        self._failures = 0
        self._loop = asyncio.get_running_loop()
        self.up = False
        self.denied = False
        self.last_problem: Exception | None = None

    async def open(self, url: str, *, name: str, seconds: float, **options: Any) -> None:
        """Try each server of `url` once. Raises `BoardUnreachable`; make another link then.

        seconds: how long the whole may take. `denied` says afterwards whether the reason was
        the login, which trying again does not cure.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.connect(
                    servers=[part.strip() for part in url.split(",")],
                    name=name,
                    error_cb=self._heard_error,
                    reconnected_cb=self._reconnected,
                    closed_cb=self._was_closed,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]  # seconds; a float works
                    **options,
                )
        except (TimeoutError, errors.Error, OSError) as error:
            reason = self.last_problem or error
            self._opening = False
            self._abort()
            await self._end()
            raise BoardUnreachable(url, str(reason) or type(reason).__name__) from error
        self._opening = False
        self.up = True

    async def shut(self) -> None:
        """Write what is pending and close; a server that does not read is not waited for."""
        self.up = False
        if not self.is_closed:
            await self._end()

    async def _end(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._close(Client.CLOSED, do_cbs=False)
        except (TimeoutError, OSError) as error:  # the socket is broken or the server stopped
            self.last_problem = error
            self._abort()

    # -- sinks

    def add_sink(self, subject: str, callback: SinkCallback, *, queue: str = "") -> int:
        """Subscribe `callback`, synchronously; returns the subscription's id.

        nats-py knows the subscription too, and so makes it again at each reconnect.
        """
        check_pattern(subject, queue)
        self._sid += 1
        sid = self._sid
        self._subs[sid] = Subscription(self, sid, subject, queue=queue)
        self._sinks[str(sid)] = callback
        if self.up:
            self._append(f"SUB {subject} {queue} {sid}\r\n".encode())
        return sid

    def drop_sink(self, sid: int) -> None:
        """Unsubscribe; the callback is not called again."""
        self._sinks.pop(str(sid), None)
        if self._subs.pop(sid, None) is not None and self.up:
            self._append(f"UNSUB {sid}\r\n".encode())

    async def finish_sink(self, sid: int) -> None:
        """Unsubscribe; the callback is still called for what the server has sent before."""
        if self._subs.pop(sid, None) is not None and self.up:
            self._append(f"UNSUB {sid}\r\n".encode())
        await self.round_trip()
        self._sinks.pop(str(sid), None)

    async def sink(self, subject: str, callback: SinkCallback, *, queue: str = "") -> int:
        """Subscribe `callback` and return when the server knows of it; returns the id."""
        sid = self.add_sink(subject, callback, queue=queue)
        await self.round_trip()
        return sid

    async def unsink(self, sid: int) -> None:
        """Unsubscribe; the callback is not called again."""
        self.drop_sink(sid)

    def after_chunk(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the chunk that is being read has been handed out."""
        self._parser.after_chunk.append(callback)

    # -- sending

    def send(self, subject: str, data: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        """Send a message in this turn of the event loop; at most once.

        headers: a block as `raw_headers` builds it. Raises `TooLarge` for what the server would
        close the connection for. Without a connection the message is dropped.
        """
        size = len(headers) + len(data)
        if size > self._max_payload or len(subject) > MAX_SUBJECT:
            raise too_large(subject, size, self._max_payload)
        if not self.up:
            return
        if headers:
            head = f"HPUB {subject} {reply} {len(headers)} {size}\r\n".encode()
            self._append(b"%b%b%b\r\n" % (head, headers, data))
        else:
            self._append(b"%b%b\r\n" % (f"PUB {subject} {reply} {size}\r\n".encode(), data))

    def _append(self, command: bytes) -> None:
        self._pending.append(command)
        self._pending_data_size += len(command)
        if self._pending_data_size > _FLUSH_BYTES:
            self._write()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._write()

    def _write(self) -> None:
        writer = self._socket_writer()
        if writer is not None and writer.transport.is_closing():
            return  # the read loop sees it next, and then drops what was not written
        if self._pending and self.is_connected and self._transport is not None:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pending_data_size = 0
            self._transport.write(data)

    @property
    def congested(self) -> bool:
        """Whether 4 MiB or more wait to be sent."""
        writer = self._socket_writer()
        return writer is not None and (
            writer.transport.get_write_buffer_size() >= _HIGH_WATER_BYTES
        )

    async def drained(self) -> None:
        """Return when fewer than 4 MiB wait to be sent, or the connection is down."""
        while self.up and self._transport is not None:
            self._write()
            writer = self._socket_writer()
            if writer is None or writer.transport.get_write_buffer_size() < _HIGH_WATER_BYTES:
                return
            try:
                await writer.drain()
            except OSError as error:  # the read loop sees it too, and makes nats-py reconnect
                self.last_problem = error
                return

    async def round_trip(self) -> None:
        """Return when the server has read what was sent so far, or the connection is down."""
        if not self.up:
            return
        self._write()
        try:
            await self.flush()
        except errors.Error as error:
            self.last_problem = error

    # -- what nats-py tells

    def _went_down(self, reason: Exception | None) -> None:
        """Drop what was not written: its sender hears that it is unresolved, or does not care."""
        self._pending.clear()
        self._pending_data_size = 0
        if self.up:
            self.up = False
            self._on_lost(reason)

    async def _read_loop(self) -> None:
        """Read until the connection ends; whatever ends it makes nats-py reconnect.

        nats-py's own loop stops for good, without a word, at an error it does not expect.
        """
        transport = self._transport
        problem: Exception = errors.UnexpectedEOF()
        try:
            while transport is not None and not transport.at_eof():
                await self._parser.parse(await transport.read(_READ_BYTES))
        except Exception as error:  # noqa: BLE001  handed on as the reason of the loss
            problem = error
        await self._process_op_err(problem)

    async def _process_op_err(self, e: Exception) -> None:
        if not (self.is_closed or self.is_reconnecting):
            self._went_down(e)
            self._abort()
        await super()._process_op_err(e)

    def _socket_writer(self) -> asyncio.StreamWriter | None:
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        return writer

    def _abort(self) -> None:
        """Drop the socket: nats-py would wait forever for a stopped peer to take its last bytes."""
        writer = self._socket_writer()
        if writer is not None:
            writer.transport.abort()

    async def force_reconnect(self) -> None:
        self._went_down(None)
        await super().force_reconnect()

    async def _close(self, status: int, do_cbs: bool = True) -> None:  # noqa: FBT001, FBT002
        if self.up:
            self._went_down(self._err)
        await super()._close(status, do_cbs)

    async def _reconnected(self) -> None:
        self.up = True
        self._on_restored()

    async def _was_closed(self) -> None:
        self._went_down(self._err)
        self._on_closed()

    async def _heard_error(self, error: Exception) -> None:
        self.last_problem = error
        if self._opening:
            # nats-py would try for ever; what is raised here ends its `connect`.
            self.denied = "authorization" in str(error).lower()
            self._failures += 1
            if self.denied or self._failures >= len(self._server_pool):
                raise error
        elif self.is_connected:
            self._on_error(error)

    @property
    def stuck(self) -> bool:
        """Whether a task of nats-py has died without its noticing: it will not recover."""
        if self.is_closed:
            return True
        if self.is_connected:
            tasks = (self._reading_task, self._ping_interval_task, self._flusher_task)
            return any(task is None or task.done() for task in tasks)
        return self._reconnection_task is None or self._reconnection_task.done()


def check_pattern(subject: str, queue: str) -> None:
    """Raise `BadInput` for what would break the line of a subscription."""
    for text in (subject, queue):
        if len(text) > MAX_SUBJECT or any(space in text for space in " \t\r\n"):
            raise BadInput("subject", f"{text[:80]!r} cannot be subscribed to")
    if not all(subject.split(".")):
        raise BadInput("subject", f"{subject[:80]!r} has an empty token")


def too_large(subject: str, size: int, limit: int) -> Exception:
    """The error of a message that no server takes."""
    if len(subject) > MAX_SUBJECT:
        return BadInput("subject", f"longer than {MAX_SUBJECT} characters")
    return TooLarge("payload", f"{size:,} bytes; the server accepts at most {limit:,}")
