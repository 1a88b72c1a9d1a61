"""Work for a host: standing, overlapping pulls on a durable consumer, into a synchronous callback.

The host says how many places are free and is asked again whenever it calls `refill`; what became
free in one turn of the event loop is asked for at once. A request that ended, a silence of two
heartbeats, a consumer that was deleted or has moved, and a new connection make it ask again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

import msgspec

from callboard_broker.connection import ApiError, Connection
from callboard_broker.pull_requests import PullOptions, PullRequests
from callboard_broker.streams import Topology
from callboard_broker.subjects import check_capability, check_token

__all__ = ["Delivery", "Pull", "durable_name", "ensure_durable"]

_NANO = 1_000_000_000
_RETRY_SECONDS = 0.5  # a consumer that is gone is asked for again after this
_MAX_WAITING = 16_384  # requests of all hosts together; the server's default is 512
_CONSUMER_EXISTS = 10148
_OPTIONS = PullOptions()


class Delivery(msgspec.Struct, gc=False, frozen=True):
    """One message handed over by a durable consumer.

    at_ns: when it was stored, server time, Unix nanoseconds. headers: the raw block, or b"".
    num_delivered: 1 the first time. reply: where it is acknowledged.
    """

    seq: int
    at_ns: int
    subject: str
    data: bytes
    headers: bytes
    num_delivered: int
    reply: str
    connection: Connection

    def ack(self) -> None:
        """Acknowledge: it will not be delivered again. Sent at most once, without an answer."""
        self.connection.send(self.reply, b"+ACK")


class Pull:
    """Delivers from `durable` of `stream` to `callback`. `async with` opens and closes it.

    slots: how many places are free now, less what `callback` has taken. What is asked for never
    exceeds it, but after a silence or a reconnect more may arrive than was asked for last: take
    every delivery.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        durable: str,
        callback: Callable[[Delivery], None],
        *,
        slots: Callable[[], int],
    ) -> None:
        self._connection = connection
        self._consumer = f"{stream}.{durable}"
        self._callback = callback
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._requests: PullRequests | None = None
        self._refilling = False
        self._retry: asyncio.TimerHandle | None = None
        self.last_status = ""

    async def __aenter__(self) -> Self:
        self._forget = [
            self._connection.at_restore(self._start),
            self._connection.at_lost(self._stop),
        ]
        self._start()
        return self

    async def __aexit__(self, *raised: object) -> None:
        for forget in self._forget:
            forget()
        if self._requests is not None:
            await self._requests.finish()
        self._stop()

    @property
    def asked(self) -> int:
        """How many messages are asked for and have not arrived."""
        return self._requests.asked if self._requests is not None else 0

    def refill(self) -> None:
        """Places have become free: ask for them, once in this turn of the event loop."""
        if not self._refilling:
            self._refilling = True
            self._loop.call_soon(self._refill)

    def _refill(self) -> None:
        self._refilling = False
        if self._requests is None or self._retry is not None:
            return
        free = self._slots() - self._requests.asked
        if free > 0:
            self._requests.ask(free)

    def _start(self) -> None:
        self._stop()
        self._requests = PullRequests(
            self._connection, self._consumer, self._arrived, self.refill, _OPTIONS
        )
        self.refill()

    def _stop(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._requests is not None:
            self._requests.close()
            self._requests = None

    def _arrived(self, subject: str, reply: str, headers: bytes, data: bytes) -> None:
        requests = self._requests
        if not reply:
            self._heard_status(subject, headers)
            return
        if requests is not None:
            requests.took()
        words = reply.split(".")
        if len(words) == 9:
            _, _, _, _, count, seq, _, at_ns, _ = words
        else:
            count, seq, _, at_ns = words[6:10]
        self._callback(
            Delivery(
                int(seq), int(at_ns), subject, data, headers, int(count), reply, self._connection
            )
        )

    def _heard_status(self, subject: str, headers: bytes) -> None:
        requests = self._requests
        ended = requests.heard_status(subject, headers) if requests is not None else None
        if ended is None:
            return
        self.last_status = f"{ended.code} {ended.text}".strip()
        if not ended.everything and ended.code == 408:
            self.refill()
        elif self._retry is None:
            self._retry = self._loop.call_later(_RETRY_SECONDS, self._ask_again)

    def _ask_again(self) -> None:
        self._retry = None
        self.refill()


def durable_name(pool: str, capability: str) -> str:
    """The durable consumer of one queue: `shared=review=python`.

    No name may hold a `=`, so that no two queues come to share a durable.
    """
    check_token(pool, "pool")
    return f"{pool}={check_capability(capability).replace('.', '=')}"


async def ensure_durable(
    connection: Connection, topology: Topology, pool: str, capability: str, start_seq: int
) -> None:
    """Create the durable consumer of (pool, capability), delivering from `start_seq` on.

    One that exists is left as it is, with its position. Raises `StreamMissing`, `ApiError`.
    """
    name = durable_name(pool, capability)
    config = {
        "durable_name": name,
        "name": name,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": max(start_seq, 1),
        "ack_policy": "explicit",
        "ack_wait": 30 * _NANO,
        "max_deliver": 1,
        "max_ack_pending": -1,
        "max_waiting": _MAX_WAITING,
        "filter_subject": topology.subjects.dispatch_filter(pool, capability),
        "replay_policy": "instant",
        "num_replicas": topology.replicas,
    }
    body = {"stream_name": topology.journal, "config": config, "action": "create"}
    try:
        await connection.api(f"CONSUMER.CREATE.{topology.journal}.{name}", body)
    except ApiError as error:
        if error.err_code != _CONSUMER_EXISTS:
            raise
