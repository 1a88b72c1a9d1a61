"""A stage for agent hosts: real streams and durables, and dispatches written by hand.

It plays the router's part for a host, and the ledger's, without deciding anything: a test says
what is dispatched, confirmed and known, and reads posts, outcomes, news and beats as they arrive.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any, TypeVar

import msgspec

from callboard_agents import Agent, Host, HostOptions
from callboard_broker import child
from callboard_broker.connection import Connection, open_link
from callboard_broker.publisher import Publisher
from callboard_broker.pull import ensure_durable
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Beat,
    Dispatch,
    Merged,
    Outcome,
    Post,
    decode_beat,
    decode_event,
    decode_post,
    encode,
)
from tests.servers import NatsServer

__all__ = ["AGENTS", "Stage", "open_stage"]

AGENTS = Path(__file__).parent / "stage_agents.py"
"""The agents that a host in a process of its own has."""

SECRET = "secret-of-a-test"  # noqa: S105  not one
_LATER_MS = 60_000

T = TypeVar("T")


class Stage:
    """Everything that one board's hosts see and say."""

    def __init__(self, connection: Connection, publisher: Publisher, subjects: Subjects) -> None:
        self.connection = connection
        self.subjects = subjects
        self.topology = Topology(subjects)
        self.outcomes: list[Outcome] = []
        self.beats: list[Beat] = []
        self.news: list[dict[str, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.word: dict[str, Any] = {"go": True}
        self.posts: list[tuple[int, Post]] = []
        self.known: dict[str, dict[str, Any]] = {}
        self.publisher = publisher
        self._tasks = 0
        self._stirred: asyncio.Event = asyncio.Event()

    async def queue(self, capability: str) -> None:
        """Make the durable of (shared, capability), as the router does."""
        seq, _ = await last_sequence(self.connection, self.topology.journal)
        await ensure_durable(self.connection, self.topology, "shared", capability, seq + 1)

    async def dispatch(self, capability: str, payload: object = None, **fields: Any) -> Dispatch:
        """Write a dispatch into the journal: a new task, unless `fields` name one."""
        dispatch = self._dispatch(payload, fields)
        subject = self.subjects.dispatch("acme", "shared", capability)
        await self.publisher.put(subject, encode(dispatch))
        return dispatch

    async def deliver(self, capability: str, payload: object = None, **fields: Any) -> Dispatch:
        """Write a dispatch into the mailbox of `host`, which is called so unless `fields` say."""
        given = {"host": "host", "pool": "shared", "capability": capability}
        dispatch = self._dispatch(payload, given | fields)
        assert dispatch.host is not None
        await self.publisher.put(self.subjects.mailbox("acme", dispatch.host), encode(dispatch))
        return dispatch

    def stop(self, *dispatches: Dispatch, why: str = "") -> None:
        """Ask the hosts, as the router would repeat it, to stop these attempts."""
        attempts = [(dispatch.task, dispatch.attempt) for dispatch in dispatches]
        request = msgspec.json.encode({"stop": attempts, "why": why})
        self.connection.send(self.subjects.stop("shared"), request)

    async def posted(self, number: int) -> tuple[int, Post]:
        """Return the `number`-th post of the journal (1 is the first), and its sequence."""
        await self.seen(lambda: len(self.posts) >= number or None)
        return self.posts[number - 1]

    async def merge(self, post: tuple[int, Post], same_as: int) -> None:
        """Say that a post repeats an earlier one."""
        assert post[1].shard is not None
        event = Merged(str(post[0]), str(same_as), 1)
        await self.publisher.put(self.subjects.run("acme", "merged", post[1].shard), encode(event))

    def _dispatch(self, payload: object, fields: dict[str, Any]) -> Dispatch:
        self._tasks += 1
        given: dict[str, Any] = {
            "task": str(self._tasks),
            "attempt": 1,
            "secret": SECRET,
            "epoch": 1,
            "shard": 3,
            "start_by": self.connection.server_now_ms() + _LATER_MS,
            "lease": 20.0,
        }
        if payload is not msgspec.UNSET:
            given["payload"] = msgspec.Raw(msgspec.json.encode(payload))
        return Dispatch(**(given | fields))

    async def outcome(self, dispatch: Dispatch) -> Outcome:
        """Return the first outcome of this attempt, once it is stored."""
        wanted = (dispatch.task, dispatch.attempt)
        return await self.seen(
            lambda: next((o for o in self.outcomes if (o.task, o.attempt) == wanted), None)
        )

    async def result(self, dispatch: Dispatch) -> Any:
        """Return the decoded result of a successful outcome."""
        outcome = await self.outcome(dispatch)
        assert outcome.error is None, outcome.error
        assert isinstance(outcome.result, msgspec.Raw)
        return msgspec.json.decode(outcome.result)

    async def held(self, dispatch: Dispatch) -> Beat:
        """Return the first beat that says that a host holds this attempt."""
        wanted = (dispatch.task, dispatch.attempt)
        return await self.beat(lambda beat: wanted in beat.holds)

    async def beat(self, condition: Callable[[Beat], bool]) -> Beat:
        """Return the first beat, so far or to come, that meets `condition`."""
        return await self.seen(lambda: next((b for b in self.beats if condition(b)), None))

    async def seen(self, look: Callable[[], T | None]) -> T:
        """Look at each change until `look` returns something."""
        async with asyncio.timeout(15):
            while (found := look()) is None:
                self._stirred.clear()
                await self._stirred.wait()
        return found

    def options(self, **options: Any) -> HostOptions:
        """The options of a host on this stage: quick beats, and a name of its own."""
        given = {
            "url": self.connection.url,
            "prefix": self.subjects.prefix,
            "name": "host",
            "beat_seconds": 0.1,
            "lease_seconds": 10.0,
            "drain_seconds": 10.0,
        }
        return HostOptions(**(given | options))

    @asynccontextmanager
    async def host(
        self, agents: Sequence[Agent[..., Any]], *, places: Sequence[str] = (), **options: Any
    ) -> AsyncIterator[Host]:
        """A host in this process, ready to work; drained at the end."""
        host = Host(agents, self.options(**options), places=places)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(host.run())
            try:
                async with asyncio.timeout(20):
                    await host.ready()
                yield host
                host.drain()
                await running
            finally:
                running.cancel()

    @asynccontextmanager
    async def process(self, **options: Any) -> AsyncIterator[Popen[bytes]]:
        """A host of `AGENTS` in a process of its own; killed at the end if it still lives."""
        given = self.options(**options)
        arguments = [f"--url={given.url}", *given.arguments()]
        process = child.start([sys.executable, "-m", "callboard_agents", str(AGENTS), *arguments])
        try:
            yield process
        finally:
            child.kill(process)

    def _journal(self, records: list[Record]) -> None:
        for record in records:
            kind = self.subjects.parse(record.subject).kind
            if kind == "post":
                self.posts.append((record.seq, decode_post(record.data)))
            elif kind == "outcome":
                outcome = decode_event("outcome", record.data)
                assert isinstance(outcome, Outcome)
                self.outcomes.append(outcome)
        self._stirred.set()

    def _beat(self, _subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        self.beats.append(decode_beat(data))
        self._stirred.set()

    def _news(self, _subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        self.news.append(msgspec.json.decode(data))
        self._stirred.set()

    def _confirm(self, _subject: str, reply: str, _headers: bytes, data: bytes) -> None:
        self.asked.append(msgspec.json.decode(data))
        self.connection.send(reply, msgspec.json.encode(self.word))
        self._stirred.set()

    def _status(self, _subject: str, reply: str, _headers: bytes, data: bytes) -> None:
        """The ledger's part: `known` says what it knows, by id."""
        task = msgspec.json.decode(data)["id"]
        unknown = {"error": {"type": "UnknownTask", "message": task}}
        view = {"id": task, **self.known[task]} if task in self.known else unknown
        self.connection.send(reply, msgspec.json.encode(view))


@asynccontextmanager
async def open_stage(nats: NatsServer, *queues: str) -> AsyncIterator[Stage]:
    """A stage on this server, with the durables of `queues`."""
    async with open_link(nats.url, name="stage") as connection, Publisher(connection) as publisher:
        stage = Stage(connection, publisher, Subjects(nats.prefix))
        topology = stage.topology
        await ensure_streams(connection, topology)
        for capability in queues:
            await stage.queue(capability)
        await connection.sink(stage.subjects.news("acme", 3), stage._news)
        await connection.sink(stage.subjects.ask("shared", "confirm"), stage._confirm)
        await connection.sink(stage.subjects.ask("acme", "status"), stage._status)
        # The beats by subscription: their stream is in memory, and a killed server loses it.
        await connection.sink(stage.subjects.beats, stage._beat)
        async with Reader(connection, topology.journal, start=1, callback=stage._journal):
            yield stage
