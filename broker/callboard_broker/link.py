"""nats-py's client with a hot path of its own: reconnecting, TLS and authentication stay nats-py's.

Messages for a *sink* are handed over synchronously by the parser; what is sent in one turn of the
event loop leaves in one write. A message that is sent while the connection is down is dropped, and
what was not yet written when it broke is too: whoever needs to know asks for an acknowledgement.
All dealings with nats-py's private parts are in this file; `tests/unit/test_link_parser.py` and
the tests of the connection pin them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from nats import errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from callboard_broker.errors import BadInput, BoardUnreachable, TooLarge
from callboard_broker.protocol_parser import Parser, SinkCallback

__all__ = ["Link", "header", "raw_headers", "status"]

_FLUSH_BYTES = 256 * 1024
_HIGH_WATER_BYTES = 4 * 1024 * 1024
_MAX_SUBJECT = 1024  # the server closes the connection at a control line of 4,096 bytes
_STATUS_START = b"NATS/1.0 "
_CLOSE_SECONDS = 2.0


def raw_headers(mapping: Mapping[str, str]) -> bytes:
    """Return the header block of `mapping`. Raises `BadInput` for what would break its lines."""
    lines = []
    for name, value in mapping.items():
        line = f"{name}: {value}"
        if not name or ":" in name or "\r" in line or "\n" in line:
            raise BadInput("headers", f"{name[:80]!r} does not fit into a header line")
        lines.append(line + "\r\n")
    return f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()


def header(raw: bytes, name: str) -> str | None:
    """Return the first value of header `name` (case as written) in a raw block, or None."""
    start = raw.find(b"\r\n%s:" % name.encode())
    if start < 0:
        return None
    start += len(name) + 3
    stop = raw.find(b"\r\n", start)
    return raw[start : stop if stop >= 0 else len(raw)].strip().decode("utf-8", "replace")


def status(raw: bytes) -> tuple[int, str] | None:
    """Return the status line of a block (`(503, "")`, `(100, "Idle Heartbeat")`), or None."""
    if not raw.startswith(_STATUS_START):
        return None
    line = raw[len(_STATUS_START) : raw.find(b"\r\n")]
    code, _, text = line.partition(b" ")
    return (int(code), text.decode("utf-8", "replace")) if code.isdigit() else None


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
        self._loop = asyncio.get_running_loop()
        self.up = False
        self.last_problem: Exception | None = None

    async def open(self, url: str, *, name: str, seconds: float, **options: Any) -> None:
        """Connect, trying for `seconds`. Raises `BoardUnreachable`, at once if access is denied."""
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
            await self._close(Client.CLOSED, do_cbs=False)
            reason = self.last_problem or error
            raise BoardUnreachable(url, str(reason) or type(reason).__name__) from error
        self._opening = False
        self.up = True

    async def shut(self) -> None:
        """Write what is pending and close; a server that does not read is not waited for."""
        self.up = False
        if self.is_closed:
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.close()
        except TimeoutError:
            self._abort()

    # -- sinks

    def add_sink(self, subject: str, callback: SinkCallback, *, queue: str = "") -> int:
        """Subscribe `callback`, synchronously; returns the subscription's id.

        nats-py knows the subscription too, and so makes it again at each reconnect.
        """
        _check_pattern(subject, queue)
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
        if size > self._max_payload or len(subject) > _MAX_SUBJECT:
            raise _too_large(subject, size, self._max_payload)
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
        if self._pending and self.is_connected and self._transport is not None:
            data = b"".join(self._pending)
            self._pending.clear()
            self._pending_data_size = 0
            self._transport.write(data)

    @property
    def unsent_bytes(self) -> int:
        """What waits in this process to be taken by the server."""
        writer = getattr(self._transport, "_io_writer", None)
        waiting: int = writer.transport.get_write_buffer_size() if writer is not None else 0
        return waiting + self._pending_data_size

    async def drained(self) -> None:
        """Return when fewer than 4 MiB wait to be sent, or the connection is down."""
        while self.up and self.unsent_bytes > _HIGH_WATER_BYTES and self._transport is not None:
            self._write()
            await self._transport.drain()  # type: ignore[no-untyped-call]  # nats-py's

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

    def _abort(self) -> None:
        """Drop the socket: a stopped peer would let nats-py wait for its last bytes forever."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _process_op_err(self, e: Exception) -> None:
        self._went_down(e)
        self._abort()
        await super()._process_op_err(e)

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
            if "authorization" in str(error).lower():
                raise BoardUnreachable("", str(error))
        elif self.is_connected:
            self._on_error(error)

    @property
    def stuck(self) -> bool:
        """Whether a task of nats-py has died without its noticing: it will not recover."""
        if self.is_closed:
            return True
        if self.is_connected:
            return self._reading_task is None or self._reading_task.done()
        return self._reconnection_task is None or self._reconnection_task.done()


def _check_pattern(subject: str, queue: str) -> None:
    for text in (subject, queue):
        if len(text) > _MAX_SUBJECT or any(space in text for space in " \t\r\n"):
            raise BadInput("subject", f"{text[:80]!r} cannot be subscribed to")
    if not all(subject.split(".")):
        raise BadInput("subject", f"{subject[:80]!r} has an empty token")


def _too_large(subject: str, size: int, limit: int) -> Exception:
    if len(subject) > _MAX_SUBJECT:
        return BadInput("subject", f"longer than {_MAX_SUBJECT} characters")
    return TooLarge("payload", f"{size:,} bytes; the server accepts at most {limit:,}")
