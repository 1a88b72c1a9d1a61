"""Reads a stream in order, exactly once per reader, without acknowledgements.

An ephemeral consumer in the server's memory numbers what it delivers. A number that is missing,
a silence of two heartbeats or a new connection make a new consumer, from the position reached:
nothing comes twice or out of order. A consumer's messages arrive on a subject of its own, so that
nothing of an earlier one can be mistaken.

It is pulled, in two overlapping windows bounded in messages and bytes. A pushed one, with the
server's flow control, was cut off four times in 800,000 messages of 200 bytes: the flow control
does not count the protocol's own bytes, and the server gives up at 64 MiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

from nats.nuid import NUID

from callboard_broker.connection import ApiError, Connection, NoResponder
from callboard_broker.errors import BoardUnreachable, StreamDrift, StreamMissing
from callboard_broker.link import header
from callboard_broker.pull_requests import PullOptions, PullRequests
from callboard_broker.record import Record
from callboard_broker.streams import last_sequence

__all__ = ["Reader"]

_WINDOW = 4096  # messages asked for at most
_WINDOW_BYTES = 8 * 1024 * 1024  # what one of two requests may bring
_OVERHEAD_BYTES = 64 * 1024  # subjects and headers count, beside the payload
_HEARTBEAT_SECONDS = 1.0
_EXPIRES_SECONDS = 30.0
_INACTIVE_SECONDS = 60
_CREATE_SECONDS = (1.0, 2.0, 5.0)  # a call to a leader that has just died is never answered
_ELECTION_SECONDS = 15.0  # as long as a cluster was ever seen without a leader
_PAUSES = (0.02, 0.1, 0.5, 1.0)
_NANO = 1_000_000_000


class Reader:
    """Hands the messages of `stream` from sequence `start` on to `callback`, in batches.

    callback: called synchronously with what one read from the socket held, at least one record.
    filters: subjects (with wildcards); none means all. If `callback` raises, the error is
    reported and reading stops: `reached` and `failed` raise it, for the state behind it is
    incomplete.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        *,
        start: int,
        callback: Callable[[list[Record]], None],
        filters: Sequence[str] = (),
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._callback = callback
        self._filters = list(filters)
        self._position = max(start, 1) - 1
        self._consumer_seq = 0
        self._batch: list[Record] = []
        self._requests: PullRequests | None = None
        self._name = ""
        self._last = 0
        self._broken = asyncio.Event()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()

    @property
    def position(self) -> int:
        """Everything up to this sequence has been given to the callback."""
        return self._position

    async def __aenter__(self) -> Self:
        """Raises `StreamMissing`, `BoardUnreachable`, `StreamDrift`, `TimeoutError`."""
        await self._create_first()
        self._forget = self._connection.at_restore(self._broken.set)
        self._tending = asyncio.create_task(self._tend(), name=f"reader of {self._stream}")
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._forget()
        self._tending.cancel()
        with suppress(asyncio.CancelledError):
            await self._tending
        self._leave()
        if self._failure.done():
            self._failure.exception()  # heard by whoever asked, and reported already
        for _, waiter in self._waiters:
            waiter.cancel()

    async def reached(self, seq: int) -> None:
        """Return when `position` is `seq` or more, also where the last messages do not exist.

        Raises what made the reader fail.
        """
        if self._failure.done():
            self._failure.result()
        if self._position >= seq:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append((seq, waiter))
        await waiter

    async def failed(self) -> None:
        """Wait until the reader fails, and raise why."""
        await asyncio.shield(self._failure)

    # -- what arrives

    def _arrived(self, subject: str, reply: str, headers: bytes, data: bytes) -> None:
        if not reply:
            self._heard_status(subject, headers)
            return
        words = reply.split(".")
        if len(words) == 9:
            _, _, _, _, _, seq, consumer_seq, at_ns, pending = words
        else:
            seq, consumer_seq, at_ns, pending = words[7:11]
        expected = self._consumer_seq + 1
        if int(consumer_seq) != expected:
            self._break()
            return
        self._consumer_seq = expected
        batch = self._batch
        if not batch:
            self._connection.link.after_chunk(self._hand_over)
        batch.append(Record(int(seq), int(at_ns), subject, headers, data, int(pending)))

    def _heard_status(self, subject: str, headers: bytes) -> None:
        """Learn from a heartbeat how far the stream is read, and ask again where one ended."""
        requests = self._requests
        if requests is None:
            return
        ended = requests.heard_status(subject, headers)
        if ended is not None:
            if ended.everything:
                self._break()
            else:
                self._ask()
            return
        last = header(headers, "Nats-Last-Consumer")
        if last is None:
            return
        if int(last) != self._consumer_seq:
            self._break()
        elif not self._batch:
            self._advance(max(self._position, int(header(headers, "Nats-Last-Stream") or 0)))

    def _ask(self) -> None:
        requests = self._requests
        if requests is not None and requests.asked < _WINDOW // 2:
            requests.ask(_WINDOW - requests.asked)

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        if not batch or self._failure.done():
            return
        if self._requests is not None:
            self._requests.took(len(batch))
            self._ask()
        self._connection.clock.saw_ns(batch[-1].at_ns)
        try:
            self._callback(batch)
        except Exception as error:  # noqa: BLE001  told to `failed`, `reached` and `report`
            self._fail(error)
            return
        last = batch[-1]
        # Nothing was behind it: what the filters and deletions left out ended here too.
        self._advance(last.seq if last.pending else max(last.seq, self._last))

    def _advance(self, position: int) -> None:
        self._position = position
        if self._waiters:
            for seq, waiter in self._waiters:
                if seq <= position and not waiter.done():
                    waiter.set_result(None)
            self._waiters = [entry for entry in self._waiters if not entry[1].done()]

    def _break(self) -> None:
        """This consumer cannot be continued: nothing of it counts from here on."""
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        self._broken.set()

    def _fail(self, error: Exception) -> None:
        self._leave()
        if not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()  # also if nobody asks, it has been reported
            self._connection.report(error)
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()

    # -- its consumer

    async def _tend(self) -> None:
        """Make the next consumer whenever the last one cannot be continued."""
        while not self._failure.done():
            await self._broken.wait()
            await self._renew()

    async def _renew(self) -> None:
        attempt = 0
        while not self._failure.done():
            self._broken.clear()
            try:
                await self._connection.reached()
                await self._create(_CREATE_SECONDS[min(attempt, len(_CREATE_SECONDS) - 1)])
            except (BoardUnreachable, NoResponder, TimeoutError, ApiError, StreamMissing) as error:
                if self._connection.closed:
                    self._fail(error)
                elif attempt == len(_PAUSES):
                    self._connection.report(error)
                await asyncio.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
                attempt += 1
            except Exception as error:  # noqa: BLE001  told to `failed`, `reached` and `report`
                self._fail(error)
            else:
                return

    async def _create_first(self) -> None:
        """A cluster that has lost a leader answers nothing until it has another one."""
        for seconds in _CREATE_SECONDS:
            with suppress(TimeoutError):
                return await self._create(seconds)
        return await self._create(_ELECTION_SECONDS)

    async def _create(self, seconds: float) -> None:
        self._leave()
        self._last, _ = await last_sequence(self._connection, self._stream, timeout=seconds)
        if self._last < self._position:
            # A stream that ends before our position is not the one that we have read.
            wanted = f"{self._position} or more"
            raise StreamDrift(self._stream, {"last sequence": (self._last, wanted)})
        self._consumer_seq = 0
        self._name = f"reader-{NUID().next().decode()}"
        answer = await self._connection.api(
            f"CONSUMER.CREATE.{self._stream}.{self._name}",
            {"stream_name": self._stream, "config": self._config(), "action": "create"},
            timeout=seconds,
        )
        if answer.get("num_pending", 0) == 0:
            self._advance(self._last)
        limit = max(_WINDOW_BYTES, self._connection.link.max_payload + _OVERHEAD_BYTES)
        self._requests = PullRequests(
            self._connection,
            f"{self._stream}.{self._name}",
            self._arrived,
            self._break,
            PullOptions(expires=_EXPIRES_SECONDS, heartbeat=_HEARTBEAT_SECONDS, max_bytes=limit),
        )
        self._requests.ask(_WINDOW // 2)
        self._requests.ask(_WINDOW // 2)

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            "name": self._name,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._position + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": _INACTIVE_SECONDS * _NANO,
            "mem_storage": True,
            "num_replicas": 1,
        }
        if self._filters:
            config["filter_subjects"] = self._filters
        return config

    def _leave(self) -> None:
        """Unsubscribe, and let the server forget the consumer (in a minute it would anyway)."""
        self._batch.clear()
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._name:
            self._connection.send(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}", b"")
            self._name = ""
