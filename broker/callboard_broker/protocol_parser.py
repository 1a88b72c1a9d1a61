"""Reads NATS' wire protocol; a message for a sink goes to it at once, without a task or a queue.

nats-py's own parser moves the whole rest of its buffer at every message. This one walks through
each chunk with an index, keeps only what is incomplete, and joins the chunks of a long message
once. What is no sink's business (PING, INFO, -ERR, other subscriptions) is handed back to nats-py.

Arguments are separated by the space alone: a subject may hold any other byte, and one with a
vertical tab (which `\\s` matches) must not stop every reader of a journal for good.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from nats.errors import ProtocolError

__all__ = ["Parser", "SinkCallback", "Upstream"]

SinkCallback = Callable[[str, str, bytes, bytes], None]
"""subject, reply, raw header block (or b""), data"""

_MAX_LINE = 1024 * 1024  # an INFO line names every server of a cluster; a longer one is no line


class Upstream(Protocol):
    """What the parser hands back to the client: nats-py's own methods, by their own names."""

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None: ...
    async def _process_err(self, err_msg: str) -> None: ...
    async def _process_ping(self) -> None: ...
    async def _process_pong(self) -> None: ...
    async def _process_info(self, info: dict[str, Any]) -> None: ...


class Parser:
    """Stands in for nats-py's parser: `parse` and `reset` are what its client calls.

    sinks: callbacks by subscription id (its decimal text, as it stands on the wire).
    failed: hears what a sink raised.
    """

    def __init__(
        self,
        client: Upstream,
        sinks: dict[str, SinkCallback],
        failed: Callable[[Exception], None],
    ) -> None:
        self._client = client
        self._sinks = sinks
        self._failed = failed
        self._resets = 0
        self.after_chunk: list[Callable[[], None]] = []
        self.reset()

    def reset(self) -> None:
        """Forget what is incomplete: the next chunk is of a new connection."""
        self._resets += 1
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0
        self._upstream: list[Callable[[], Awaitable[None]]] = []

    async def parse(self, data: bytes = b"") -> None:
        """Read a chunk. Raises `ProtocolError` if it is not NATS' protocol."""
        self.feed(data)
        await self.settle()

    async def settle(self) -> None:
        """Let nats-py do what is not a sink's business."""
        while self._upstream:
            calls, self._upstream = self._upstream, []
            for call in calls:
                await call()

    @property
    def unsettled(self) -> bool:
        """Whether `settle` has something to do."""
        return bool(self._upstream)

    def feed(self, data: bytes) -> None:
        """Read a chunk: call the sinks, and keep the rest for `settle`."""
        if self._parts:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._parts = []
        resets = self._resets
        position, need = self._walk(data)
        if self.after_chunk:
            self._end_chunk()
        if position < len(data) and resets == self._resets:
            rest = data[position:] if position else data
            self._parts, self._have, self._need = [rest], len(rest), need

    def _end_chunk(self) -> None:
        callbacks = self.after_chunk[:]
        self.after_chunk.clear()
        for callback in callbacks:
            try:
                callback()
            except Exception as error:  # noqa: BLE001  reported; the read loop must live on
                self._failed(error)

    def _walk(self, data: bytes) -> tuple[int, int]:
        """Return where the incomplete rest begins, and how many bytes it needs at least."""
        position, end = 0, len(data)
        find, get = data.find, self._sinks.get
        while position < end:
            stop = find(b"\r\n", position)
            if stop < 0:
                if end - position > _MAX_LINE:
                    raise ProtocolError
                return position, end - position + 1
            first = data[position]
            try:
                if first == 0x4D:  # MSG subject sid [reply] size
                    words = data[position + 4 : stop].decode("utf-8", "replace").split(" ")
                    header_end = start = stop + 2
                    after = start + int(words[-1])
                    reply = words[2] if len(words) == 4 else ""
                elif first == 0x48:  # HMSG subject sid [reply] header-size size
                    words = data[position + 5 : stop].decode("utf-8", "replace").split(" ")
                    start = stop + 2
                    header_end = start + int(words[-2])
                    after = start + int(words[-1])
                    reply = words[2] if len(words) == 5 else ""
                else:
                    self._control(data[position:stop])
                    position = stop + 2
                    continue
                sink = get(words[1])
            except (ValueError, IndexError) as error:
                raise ProtocolError from error
            if after + 2 > end:
                return position, after + 2 - position
            if sink is not None:
                try:
                    sink(words[0], reply, data[start:header_end], data[header_end:after])
                except Exception as error:  # noqa: BLE001  reported; the read loop must live on
                    self._failed(error)
            else:
                self._hand_back(data[position:stop], data[start:header_end], data[header_end:after])
            position = after + 2
        return position, 0

    def _hand_back(self, line: bytes, headers: bytes, data: bytes) -> None:
        words = line.split(b" ")
        subject, sid = words[1], int(words[2])
        reply = words[3] if len(words) == (6 if headers else 5) else b""
        process = self._client._process_msg  # noqa: SLF001  nats-py's own seam
        self._upstream.append(lambda: process(sid, subject, reply, data, headers))

    def _control(self, line: bytes) -> None:
        client = self._client
        word = line.rstrip()
        if word == b"PING":
            self._upstream.append(client._process_ping)  # noqa: SLF001  nats-py's own seam
        elif word == b"PONG":
            self._upstream.append(client._process_pong)  # noqa: SLF001  nats-py's own seam
        elif line.startswith(b"-ERR"):
            text = line[4:].strip().decode("utf-8", "replace").lower()
            self._upstream.append(lambda: client._process_err(text))  # noqa: SLF001
        elif line.startswith(b"INFO "):
            try:
                info = json.loads(line[5:])
            except ValueError as error:
                raise ProtocolError from error
            self._upstream.append(lambda: client._process_info(info))  # noqa: SLF001
        elif word != b"+OK":
            raise ProtocolError
