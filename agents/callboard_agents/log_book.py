"""What the handlers of a host log, on its way to LOGS: nobody waits for it, and nobody fails by it.

Each attempt that logs has a page. Lines are taken in any thread, bounded in number, rate and
length, and sent from the host's loop a moment later, or at the attempt's end before its outcome.
While the board is out of reach they wait here, up to a bound in bytes. What is dropped is counted,
and the last line of the page says how much.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from callboard_agents.facts import Attempt
from callboard_agents.log_options import LogOptions
from callboard_broker.errors import BadInput, BoardUnreachable, StreamMissing, WriteUnresolved
from callboard_broker.log_lines import (
    ERROR_BYTES,
    MESSAGE_BYTES,
    LogLine,
    bounded_fields,
    cut,
    level_name,
    level_number,
)
from callboard_broker.publisher import Publisher
from callboard_broker.subjects import Subjects

__all__ = ["LogBook", "Page"]

_SOON_SECONDS = 0.05
_AGAIN_SECONDS = 1.0
_BURST_SECONDS = 5.0  # so much of its rate an attempt may log at once
_MOST_BYTES = 16 * 1024 * 1024  # of all pages together
_MESSAGE_BYTES = 256 * 1024
_MESSAGE_LINES = 500
_UNDERWAY = 64  # messages without an acknowledgement
_LOG = logging.getLogger("callboard.host")
_encode = msgspec.json.Encoder().encode


_Line = tuple[int, bytes]
"""Its number, and what it is on the wire."""


class _Batch(msgspec.Struct, omit_defaults=True):
    """`LogBatch`, with lines that are encoded already."""

    task: str
    workflow: str
    attempt: int
    host: str
    capability: str
    trace: str
    lines: list[Raw]
    v: int = 1


class LogBook:
    """The pages of one host; made on its loop. now_ms: the server's time."""

    def __init__(
        self,
        publisher: Publisher,
        subjects: Subjects,
        *,
        host: str,
        options: LogOptions,
        now_ms: Callable[[], int],
    ) -> None:
        self._publisher = publisher
        self._subjects = subjects
        self._loop = asyncio.get_running_loop()
        self._stirred: dict[Page, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._underway = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._refused = False
        self._counting = threading.Lock()
        self._bytes = 0
        self.host = host
        self.options = options
        self.now_ms = now_ms
        self.level = level_number(options.level)

    def open(self, attempt: Attempt) -> Page:
        """The page of an attempt; from any thread."""
        return Page(self, attempt)

    @property
    def full(self) -> bool:
        """Whether as much waits as may."""
        return self._bytes > _MOST_BYTES

    def count(self, size: int) -> None:
        """So many bytes more wait; from any thread."""
        with self._counting:
            self._bytes += size

    async def settled(self) -> None:
        """Return when nothing is left to be sent or acknowledged."""
        self.send()
        await self._quiet.wait()

    def close(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def stir(self, page: Page) -> None:
        """There are lines to be sent; from any thread."""
        with suppress(RuntimeError):  # the loop is closed: the host has ended before its thread
            self._loop.call_soon_threadsafe(self.note, page)

    def send(self) -> None:
        """Send what there is, as far as not too much is underway. On the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._stirred and self._underway < _UNDERWAY:
            page = next(iter(self._stirred))
            lines = page.take(_MESSAGE_LINES, _MESSAGE_BYTES)
            if lines:
                self._publish(page, lines)
            else:
                del self._stirred[page]
        self._see_if_quiet()

    def note(self, page: Page) -> None:
        """There are lines to be sent. On the loop."""
        self._stirred[page] = None
        self._quiet.clear()
        self._wake(_SOON_SECONDS)

    def _wake(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self.send)

    def _see_if_quiet(self) -> None:
        if not self._stirred and not self._underway:
            self._quiet.set()

    def _publish(self, page: Page, lines: list[_Line]) -> None:
        def done(seq: int | None, error: Exception | None) -> None:
            self._underway -= 1
            pause = 0.0
            if seq is not None:
                self.count(-_size(lines))
            elif isinstance(error, BoardUnreachable | WriteUnresolved | StreamMissing):
                page.put_back(lines)  # a reader knows by its number a line that comes twice
                self._stirred[page] = None
                pause = _AGAIN_SECONDS
            else:
                self._drop(page, lines, error)
            if self._stirred:
                self._wake(pause)
            self._see_if_quiet()

        try:
            subject, data = page.message(lines)
            self._publisher.publish(subject, data, done=done)
        except BadInput as error:
            self._drop(page, lines, error)
        else:
            self._underway += 1

    def _drop(self, page: Page, lines: list[_Line], error: Exception | None) -> None:
        self.count(-_size(lines))
        page.dropped += len(lines)
        if not self._refused:
            self._refused = True
            _LOG.warning("lines of handlers are not stored, the first of them: %s", error)

    def subject(self, attempt: Attempt) -> str:
        """Where the lines of an attempt go."""
        return self._subjects.log(attempt.tenant, attempt.origin.shard)


class Page:
    """The lines of one attempt. dropped: how many there was no room for."""

    def __init__(self, book: LogBook, attempt: Attempt) -> None:
        self._book = book
        self._attempt = attempt
        self._lock = threading.Lock()
        self._lines: deque[_Line] = deque()
        self._stirred = False
        self._number = 0
        self._last_ms = 0
        self._tokens = book.options.rate * _BURST_SECONDS
        self._filled_at = time.monotonic()
        self.dropped = 0

    @property
    def level(self) -> int:
        """The least that is taken."""
        return self._book.level

    def line(
        self,
        level: int,
        message: str,
        *,
        logger: str = "",
        fields: Mapping[str, Any] | None = None,
        error: str = "",
    ) -> bool:
        """Take a line, if there is room for it; say whether the attempt is within its bounds.

        Raises nothing; from any thread.
        """
        with self._lock:
            if not self._has_room():
                self.dropped += 1
                return False
            if self._book.full:
                self.dropped += 1
            else:
                self._add(level, message, logger, bounded_fields(fields), error)
        return True

    def skip(self, count: int) -> None:
        """So many lines were dropped already where they were said."""
        with self._lock:
            self.dropped += count

    def end(self) -> None:
        """The attempt has ended: say what was dropped, and send everything now. On the loop."""
        with self._lock:
            if self.dropped:
                options = self._book.options
                why = f"more than {options.lines} of an attempt, or {options.rate:g} a second"
                text = f"{self.dropped} lines were dropped: {why}, or the board was out of reach"
                self._add(30, text, "callboard.host", UNSET, "")
                self.dropped = 0
        self._book.note(self)
        self._book.send()

    def take(self, most: int, most_bytes: int) -> list[_Line]:
        """Lines to be sent, at least one if there are any; they are no longer on the page."""
        taken: list[_Line] = []
        size = 0
        with self._lock:
            while self._lines and len(taken) < most:
                size += len(self._lines[0][1])
                if taken and size > most_bytes:
                    break
                taken.append(self._lines.popleft())
            if not taken:
                self._stirred = False
        return taken

    def put_back(self, lines: list[_Line]) -> None:
        """They could not be sent."""
        with self._lock:
            self._lines = deque(sorted([*lines, *self._lines]))
            self._stirred = True

    def message(self, lines: list[_Line]) -> tuple[str, bytes]:
        """The subject and the body that carry these lines."""
        attempt = self._attempt
        batch = _Batch(
            attempt.task,
            attempt.origin.root_of(attempt.task),
            attempt.attempt,
            self._book.host,
            attempt.capability,
            attempt.origin.trace_of(attempt.task),
            [Raw(data) for _, data in lines],
        )
        return self._book.subject(attempt), _encode(batch)

    def _has_room(self) -> bool:
        book = self._book
        rate = book.options.rate
        now = time.monotonic()
        self._tokens = min(rate * _BURST_SECONDS, self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        if self._tokens < 1 or self._number >= book.options.lines:
            return False
        self._tokens -= 1
        return True

    def _add(
        self, level: int, message: str, logger: str, fields: Raw | msgspec.UnsetType, error: str
    ) -> None:
        book = self._book
        self._number += 1
        self._last_ms = max(self._last_ms, book.now_ms())
        line = LogLine(
            self._number,
            self._last_ms,
            level_name(level),
            cut(message, MESSAGE_BYTES),
            cut(logger, 200),
            fields,
            cut(error, ERROR_BYTES, keep="end") if error else "",
        )
        data = _encode(line)
        self._lines.append((self._number, data))
        book.count(len(data))
        if not self._stirred:
            self._stirred = True
            book.stir(self)


def _size(lines: list[_Line]) -> int:
    return sum(len(data) for _, data in lines)
