"""A connection that outlives its links: whatever makes nats-py give up, a new link is built.

nats-py reconnects by itself when a socket breaks, and closes for good when the server complains
(an expired login, a subject too long for its line). One supervising task builds the next link and
subscribes every sink again, so that components register here and not on the link. `generation`
grows with each (re)connect. What is sent while there is no connection is dropped.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from nats.nuid import NUID

from callboard_broker.answers import Answers, ApiError, NoResponder, Reply, read_api_answer
from callboard_broker.errors import BoardUnreachable
from callboard_broker.link import Link
from callboard_broker.protocol_parser import SinkCallback
from callboard_broker.server_clock import ServerClock

__all__ = ["ApiError", "Connection", "NoResponder", "Reply", "Sink", "open_link"]

_log = logging.getLogger(__name__)

_CHECK_SECONDS = 1.0
_REBUILD_SECONDS = 5.0
_BACKOFF_SECONDS = (0.05, 0.2, 0.5, 1.0)

RestoreCallback = Callable[[], Awaitable[None] | None]


class Sink:
    """A subscription that is made again on every new link, until it is closed."""

    __slots__ = ("_connection", "_sid", "callback", "queue", "subject")

    def __init__(
        self, connection: Connection, subject: str, callback: SinkCallback, queue: str
    ) -> None:
        self._connection = connection
        self._sid = 0
        self.subject = subject
        self.callback = callback
        self.queue = queue

    def attach(self, link: Link) -> None:
        """Subscribe on `link`."""
        self._sid = link.add_sink(self.subject, self.callback, queue=self.queue)

    def drop(self) -> None:
        """Unsubscribe, synchronously; the callback is not called again."""
        if self in self._connection.sinks:
            self._connection.sinks.remove(self)
            self._connection.link.drop_sink(self._sid)

    async def finish(self) -> None:
        """Unsubscribe; the callback is still called for what the server has sent before."""
        if self in self._connection.sinks:
            self._connection.sinks.remove(self)
            await self._connection.link.finish_sink(self._sid)

    async def close(self) -> None:
        """Unsubscribe; the callback is not called again."""
        self.drop()


class Connection:
    """The way to one NATS server or cluster. Made by `open_link`, and closed by it.

    link: the current link. generation: 1 at first, one more at each (re)connect.
    clock: the server's clock. inbox: the subject under which answers arrive.
    last_problem: why the connection was lost last.
    """

    def __init__(self, url: str, name: str, options: Mapping[str, Any]) -> None:
        self.url = url
        self.name = name
        self.generation = 0
        self.closed = False
        self.clock = ServerClock()
        self.sinks: list[Sink] = []
        prefix = options.get("inbox_prefix", "_INBOX")
        self.inbox = f"{prefix}.{NUID().next().decode()}"
        self._options = dict(options)
        self._numbers = 0
        self._answers = Answers(self.inbox)
        self._at_lost: list[Callable[[], None]] = []
        self._at_restore: list[RestoreCallback] = []
        self._at_error: list[Callable[[Exception], None]] = []
        self._up = asyncio.Event()
        self._stirred = asyncio.Event()
        self._restores: list[Awaitable[None]] = []
        self.last_problem: Exception | None = None
        self.link = self._new_link()

    # -- what components use

    @property
    def connected(self) -> bool:
        """Whether messages can be sent now."""
        return self.link.up

    def send(self, subject: str, data: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        """Send a message, at most once; without a connection it is dropped. Raises `TooLarge`."""
        self.link.send(subject, data, reply=reply, headers=headers)

    @property
    def congested(self) -> bool:
        """Whether 4 MiB or more wait to be sent."""
        return self.link.congested

    async def drained(self) -> None:
        """Return when fewer than 4 MiB wait to be sent, or the connection is down."""
        await self.link.drained()

    async def sink(self, subject: str, callback: SinkCallback, *, queue: str = "") -> Sink:
        """Call `callback` for each message on `subject`, from now on and on every later link.

        Returns when the server knows of it. Raises `BadInput` for an impossible subject.
        """
        sink = self.add_sink(subject, callback, queue=queue)
        await self.link.round_trip()
        return sink

    def add_sink(self, subject: str, callback: SinkCallback, *, queue: str = "") -> Sink:
        """Do as `sink` does, without waiting for the server."""
        sink = Sink(self, subject, callback, queue)
        sink.attach(self.link)
        self.sinks.append(sink)
        return sink

    def new_inbox(self) -> str:
        """Return a subject of its own, below this connection's inbox."""
        self._numbers += 1
        return f"{self.inbox}.i{self._numbers}"

    async def request(
        self,
        subject: str,
        data: bytes,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109  it also says which error an end of it means
        headers: bytes = b"",
    ) -> Reply:
        """Ask and return the answer. timeout: seconds, also for a connection to come back.

        Raises `BoardUnreachable` if there is no connection or it broke, `NoResponder` if nobody
        listens, `TimeoutError` if nobody answered, `TooLarge`.
        """
        inbox = ""
        try:
            async with asyncio.timeout(timeout):
                await self.reached()
                inbox, answer = self._answers.expect(subject)
                self.link.send(subject, data, reply=inbox, headers=headers)
                return await answer
        except TimeoutError:
            if not self.connected:
                raise self._unreachable() from None
            raise TimeoutError(f"no answer on {subject} within {timeout:g} s") from None
        finally:
            self._answers.forget(inbox)

    async def api(
        self,
        verb: str,
        body: object = None,
        *,
        timeout: float = 5.0,  # noqa: ASYNC109  as for `request`
    ) -> dict[str, Any]:
        """Call `$JS.API.<verb>`. Raises `ApiError`, `StreamMissing`, and what `request` raises."""
        data = b"" if body is None else msgspec.json.encode(body)
        reply = await self.request(f"$JS.API.{verb}", data, timeout=timeout)
        return read_api_answer(verb, reply.data)

    async def reached(self) -> None:
        """Return when there is a connection. Raises `BoardUnreachable` after the close."""
        if not self.link.up:
            await self._up.wait()
        if self.closed:
            raise self._unreachable()

    def server_now_ms(self) -> int:
        """The server's clock, Unix milliseconds."""
        return self.clock.now_ms()

    def at_restore(self, callback: RestoreCallback) -> Callable[[], None]:
        """Call `callback` after each reconnect; returns what takes it back.

        A plain function is called at once, a coroutine function runs in a task. Either may find
        the connection lost again.
        """
        return _registered(self._at_restore, callback)

    def at_lost(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` at once when the connection breaks; returns what takes it back."""
        return _registered(self._at_lost, callback)

    def at_error(self, callback: Callable[[Exception], None]) -> Callable[[], None]:
        """Call `callback` with what callbacks raise and the server complains about.

        Without one it is logged. Returns what takes it back.
        """
        return _registered(self._at_error, callback)

    def report(self, error: Exception) -> None:
        """Tell `at_error`, or the log, of an error that has no caller to raise to."""
        if not self._at_error:
            _log.error("nats connection %s: %s", self.name, error, exc_info=error)
        for callback in self._at_error:
            callback(error)

    # -- its life

    async def open(self, seconds: float) -> None:
        """Connect for the first time, trying for `seconds`. Raises `BoardUnreachable`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            left = max(deadline - loop.time(), _BACKOFF_SECONDS[0])
            try:
                await self.link.open(self.url, name=self.name, seconds=left, **self._options)
                break
            except BoardUnreachable:
                if self.link.denied or loop.time() + _BACKOFF_SECONDS[1] > deadline:
                    raise
            await asyncio.sleep(_BACKOFF_SECONDS[1])
            self.link = self._new_link()
        self.add_sink(f"{self.inbox}.*", self._answers.arrived)
        self.generation = 1
        self._up.set()

    async def close(self) -> None:
        """Write what is pending and close; requests that wait raise `BoardUnreachable`."""
        self.closed = True
        await self.link.shut()
        self._lose()
        self._up.set()
        for restore in self._restores:
            if inspect.iscoroutine(restore):
                restore.close()  # it would not have found a connection
        self._restores.clear()

    async def supervise(self) -> None:
        """Build a new link whenever the current one is beyond recovery; runs until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_CHECK_SECONDS):
                        await self._stirred.wait()
                self._stirred.clear()
                if self.link.stuck:
                    await self._rebuild()  # tries until it succeeds
                restores, self._restores = self._restores, []
                for restore in restores:
                    group.create_task(self._guarded(restore))

    async def _rebuild(self) -> None:
        attempt = 0
        while True:
            await self.link.shut()
            self._lose()
            link = self._new_link()
            try:
                await link.open(self.url, name=self.name, seconds=_REBUILD_SECONDS, **self._options)
            except Exception as error:  # noqa: BLE001  nobody else would build the next link
                self.last_problem = error
                _log.warning("nats connection %s: %s", self.name, error)
                await asyncio.sleep(_BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)])
                attempt += 1
                continue
            self.link = link
            for sink in self.sinks:
                sink.attach(link)
            await link.round_trip()
            if link.up:
                self._restored(link)
                return

    def _new_link(self) -> Link:
        link = Link(
            on_lost=lambda reason: self._lost(link, reason),
            on_restored=lambda: self._restored(link),
            on_closed=self._stirred.set,
            on_error=self.report,
        )
        return link

    def _lost(self, link: Link, reason: Exception | None) -> None:
        if link is self.link:
            self.last_problem = reason
            self._lose()

    def _lose(self) -> None:
        if not self._up.is_set():
            return
        self._up.clear()
        self._answers.fail(self._unreachable)
        self._call(self._at_lost)

    def _restored(self, link: Link) -> None:
        if link is not self.link:
            return
        self.generation += 1
        self._up.set()
        self._call(self._at_restore)

    def _call(self, callbacks: list[Any]) -> None:
        for callback in callbacks[:]:
            try:
                result = callback()
            except Exception as error:  # noqa: BLE001  one component must not harm the others
                self.report(error)
                continue
            if inspect.isawaitable(result):
                self._restores.append(result)
                self._stirred.set()

    async def _guarded(self, restore: Awaitable[None]) -> None:
        try:
            await restore
        except Exception as error:  # noqa: BLE001  one component must not harm the others
            self.report(error)

    def _unreachable(self) -> BoardUnreachable:
        problem = self.link.last_problem or self.last_problem
        reason = "closed" if self.closed else str(problem or "connection lost")
        return BoardUnreachable(self.url, reason)


@asynccontextmanager
async def open_link(
    url: str,
    *,
    name: str,
    on_lost: Callable[[], None] | None = None,
    on_restored: RestoreCallback | None = None,
    tries_seconds: float = 5.0,
    options: Mapping[str, Any] | None = None,
) -> AsyncIterator[Connection]:
    """Connect to `url` (several are separated by commas) and close at the end.

    name: shown by the server's monitoring. options: further ones of `nats.connect`, such as
    `user_credentials`, `tls` or `inbox_prefix`. Raises `BoardUnreachable` when no server has
    answered within `tries_seconds`, or at once when it denies access.
    """
    connection = Connection(url, name, options or {})
    if on_lost is not None:
        connection.at_lost(lambda: None if connection.closed else on_lost())
    if on_restored is not None:
        connection.at_restore(on_restored)
    await connection.open(tries_seconds)
    supervisor = asyncio.create_task(connection.supervise(), name=f"supervise {name}")
    try:
        yield connection
    finally:
        supervisor.cancel()
        with suppress(asyncio.CancelledError):
            await supervisor
        await connection.close()


def _registered(callbacks: list[Any], callback: object) -> Callable[[], None]:
    callbacks.append(callback)

    def unregister() -> None:
        with suppress(ValueError):
            callbacks.remove(callback)

    return unregister
