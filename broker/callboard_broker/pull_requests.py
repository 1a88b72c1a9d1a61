"""Standing pull requests on one consumer: what is asked for, what has ended, whether it is silent.

A delivered message does not say which request it answers, so only the total is counted: each
message takes one off, and the status that ends a request says how many of it are left. An event
that ends all requests at once (the consumer moved or is gone, the server was silent) begins a new
era; statuses of an earlier one are ignored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from callboard_broker.connection import Connection, Sink
from callboard_broker.link import header, status
from callboard_broker.protocol_parser import SinkCallback

__all__ = ["Ended", "PullOptions", "PullRequests"]

_NANO = 1_000_000_000
_IDLE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PullOptions:
    """expires, heartbeat: seconds; a heartbeat is at most half of expires.

    max_bytes: what one request may bring; 0 means any.
    """

    expires: float = 30.0
    heartbeat: float = 2.0
    max_bytes: int = 0


class Ended(NamedTuple):
    """Why a request ended. everything: all others ended with it, or cannot be relied upon."""

    code: int
    text: str
    everything: bool


class PullRequests:
    """The requests of one consumer on one connection's life; make another after a reconnect.

    The owner's sink gets everything: a message has a reply subject (call `took`), a status has
    none (call `heard_status`).
    silent: called when two heartbeats are missing while something is asked for.
    """

    def __init__(
        self,
        connection: Connection,
        consumer: str,
        sink: SinkCallback,
        silent: Callable[[], None],
        options: PullOptions,
    ) -> None:
        self.asked = 0
        self.heard_at = 0.0
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer}"
        self._silent = silent
        self._options = options
        self._inbox = connection.new_inbox()
        self._era = 0
        self._number = 0
        expires, heartbeat = (
            int(seconds * _NANO) for seconds in (options.expires, options.heartbeat)
        )
        limit = f',"max_bytes":{options.max_bytes}' if options.max_bytes else ""
        self._tail = f',"expires":{expires},"idle_heartbeat":{heartbeat}{limit}}}'
        self._loop = asyncio.get_running_loop()
        self._sink: Sink | None = connection.add_sink(f"{self._inbox}.*.*", sink)
        self._looked_at = self._loop.time()
        self._timer = self._loop.call_later(options.heartbeat, self._watch)

    def ask(self, count: int) -> None:
        """Ask for `count` more messages."""
        if not self.asked:
            self.heard_at = self._loop.time()
        self.asked += count
        self._number += 1
        self._connection.send(
            self._subject,
            f'{{"batch":{count}{self._tail}'.encode(),
            reply=f"{self._inbox}.{self._era}.{self._number}",
        )

    def took(self, count: int = 1) -> None:
        """`count` messages have arrived."""
        self.heard_at = self._loop.time()
        self.asked = max(0, self.asked - count)

    def heard_status(self, subject: str, headers: bytes) -> Ended | None:
        """Account for a status message; return what it means if it ended a request."""
        self.heard_at = self._loop.time()
        line = status(headers)
        if (
            line is None
            or line[0] == _IDLE
            or not subject.startswith(f"{self._inbox}.{self._era}.")
        ):
            return None
        left = header(headers, "Nats-Pending-Messages")
        if left is None:
            self.forget()
        else:
            self.asked = max(0, self.asked - int(left))
        return Ended(line[0], line[1], left is None)

    def forget(self) -> None:
        """Nothing that was asked for is expected any more."""
        self.asked = 0
        self._era += 1

    async def finish(self) -> None:
        """Unsubscribe, and take what the server has delivered before: it will not do so again."""
        if self._sink is not None:
            await self._sink.finish()

    def close(self) -> None:
        """Unsubscribe: the server drops the requests, for nobody listens to their answers."""
        self._timer.cancel()
        if self._sink is not None:
            self._sink.drop()
            self._sink = None

    def _watch(self) -> None:
        heartbeat = self._options.heartbeat
        self._timer = self._loop.call_later(heartbeat, self._watch)
        now = self._loop.time()
        if now - self._looked_at > 1.5 * heartbeat:
            self.heard_at = now  # this process was held up itself: first read what has come
        self._looked_at = now
        if self.asked and now - self.heard_at > 2 * heartbeat:
            self.forget()
            self._silent()
