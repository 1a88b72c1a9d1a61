"""The router's shell: it owns the sockets and the clock, and drives the engine.

It reads the journal and the beats in order, publishes what the engine decides, pipelined and each
write guarded by the epoch, and fetches what the engine asks for. A decision is taken once for each
batch that was read and once for each tick, never by polling.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from callboard_broker.blobs import Blobs
from callboard_broker.bounds import check_document
from callboard_broker.connection import ApiError, Connection, open_link
from callboard_broker.direct import get_message
from callboard_broker.errors import (
    BadInput,
    BoardUnreachable,
    CallboardError,
    StreamMissing,
    WriteRefused,
)
from callboard_broker.link import raw_headers
from callboard_broker.publisher import Publisher
from callboard_broker.pull import ensure_durable
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Beat,
    BlobRef,
    Dispatch,
    Failure,
    Outcome,
    Settled,
    decode_beat,
    decode_event,
    decode_flow_run,
    encode,
)
from callboard_router.decide import Policy
from callboard_router.engine import ROUTERS, Engine
from callboard_router.filling import Source
from callboard_router.liveness import Claim, Queue
from callboard_router.proposals import Proposal
from callboard_router.tenure import Role

__all__ = ["RouterOptions", "run_router"]

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.1
_BEAT_SECONDS = 0.5
_GUARD_FAILED = frozenset({10071, 10164})


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOptions:
    """url: the NATS server. name: a token, unique to this process. replicas: of new streams."""

    url: str
    name: str
    policy: Policy
    prefix: str = "cb"
    replicas: int = 1
    connect_seconds: float = 5.0


class _Question(msgspec.Struct):
    """A host asks whether it may start a dispatch that is older than its connection."""

    task: str
    attempt: int
    secret: str
    host: str
    incarnation: str


@dataclass(slots=True)
class _Shell:
    options: RouterOptions
    connection: Connection
    topology: Topology
    engine: Engine
    publisher: Publisher
    blobs: Blobs
    group: asyncio.TaskGroup
    journal: Reader | None = None
    connected_seq: int | None = None
    role: Role = Role.FOLLOWER
    _scheduled: bool = False
    _guard: tuple[int, bytes] = (-1, b"")
    _busy: set[Queue | Source] = field(default_factory=set)

    # -- what comes in

    def read_journal(self, records: list[Record]) -> None:
        record_in = self.engine.record
        now = time.monotonic()
        for record in records:
            record_in(record.seq, record.at_ns // 1_000_000, record.subject, record.data, now=now)
        self.wake()

    def read_beats(self, records: list[Record]) -> None:
        now, now_ms = time.monotonic(), self.connection.server_now_ms()
        for record in records:
            try:
                beat = decode_beat(record.data)
            except BadInput as error:
                _log.warning("a beat on %s cannot be read: %s", record.subject, error)
                continue
            if record.subject != self.topology.subjects.beat(beat.pool, beat.host):
                _log.warning("a beat on %s claims to be another host's", record.subject)
                continue
            age = max(0, now_ms - record.at_ns // 1_000_000) / 1000
            self.engine.heard(beat, at=now - age)
        self.wake()

    async def restored(self) -> None:
        """The connection was made anew: what was under way is void, leases are granted again."""
        self.connected_seq = None
        self.engine.reconnected(time.monotonic())
        generation = self.connection.generation
        while self.connection.generation == generation and self.connected_seq is None:
            try:
                last, _ = await last_sequence(self.connection, self.topology.journal)
            except (OSError, LookupError, ApiError) as error:
                _log.debug("the journal does not answer yet: %s", error)
                await asyncio.sleep(_TICK_SECONDS)
            else:
                self.connected_seq = last

    def asked(self, _subject: str, reply: str, _headers: bytes, data: bytes) -> None:
        if reply and self.engine.tenure.role is Role.LEADER:
            self._start(self._answer(reply, data), "answer")

    async def _answer(self, reply: str, data: bytes) -> None:
        """Say yes only with the whole journal folded: an outcome may stand at its very end."""
        try:
            check_document(data, depth=4)
            question = msgspec.json.decode(data, type=_Question)
        except (BadInput, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            answer = {"error": {"type": "BadInput", "message": str(error)}}
            self.connection.send(reply, encode(answer))
            return
        if self.journal is None:
            return
        try:
            last, _ = await last_sequence(self.connection, self.topology.journal)
        except (OSError, LookupError, ApiError) as error:
            _log.debug("a host is not answered, and asks again: %s", error)
            return
        await self.journal.reached(last)
        claim = Claim(
            task=question.task,
            attempt=question.attempt,
            host=question.host,
            incarnation=question.incarnation,
        )
        known = last if self.connected_seq is None else self.connected_seq
        word = self.engine.confirm(claim, question.secret, known, time.monotonic())
        if word is not None:
            self.connection.send(reply, encode({"go": word.go, "wait": word.wait, "why": word.why}))

    # -- what goes out

    def wake(self) -> None:
        """Decide once what was read in this turn of the event loop is folded."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._decide)

    def _decide(self, *, timers: bool = False) -> None:
        self._scheduled = False
        engine = self.engine
        now = time.monotonic()
        for proposal in engine.decide(now, self.connection.server_now_ms(), timers=timers):
            if proposal.attach is not None:
                self._start(self._attach(proposal, proposal.attach), "attach")
            else:
                self._write(proposal, proposal.data())
        for source in engine.wanted():
            self._start(self._fetch(source), "fetch")

    def _write(self, proposal: Proposal, data: bytes) -> None:
        if self._guard[0] != proposal.guard:
            self._guard = (proposal.guard, guard_headers(proposal.guard, self.topology.subjects))
        self.publisher.publish(
            proposal.subject,
            data,
            headers=self._guard[1],
            done=partial(self._written, proposal),
        )

    def _written(self, proposal: Proposal, _seq: int | None, error: Exception | None) -> None:
        if error is None:
            return
        now = time.monotonic()
        if isinstance(error, WriteRefused) and error.code in _GUARD_FAILED:
            self.engine.refused(proposal, now)
        else:
            level = logging.DEBUG if isinstance(error, BoardUnreachable) else logging.WARNING
            _log.log(level, "a write of the router is unresolved: %s", error)
            self.engine.unresolved(now)

    async def _attach(self, proposal: Proposal, payload: bytes) -> None:
        """Put the payload into the blob store first; then the event can refer to it."""
        event = proposal.event
        try:
            blob = await self.blobs.put(payload)
        except CallboardError as error:
            _log.warning("a payload could not be stored: %s", error)
            self.engine.unresolved(time.monotonic())
            return
        if isinstance(event, Dispatch | Settled):
            event = msgspec.structs.replace(event, blob=blob)
        self._write(proposal, encode(event))

    async def _fetch(self, source: Source) -> None:
        try:
            value: Any = await self._value(source)
        except (OSError, StreamMissing, ApiError):
            await self.connection.reached()
            await asyncio.sleep(_TICK_SECONDS)
            self.engine.desk.agenda.wanted[source] = None
            self.wake()
            return
        except (LookupError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            value = Failure(type(error).__name__, f"an upstream value is not to be had: {error}")
        self.engine.fetched(source, value)
        self.wake()

    async def _value(self, source: Source) -> Any:
        blob: BlobRef | None = source.blob
        if blob is not None:
            return msgspec.json.decode(await self.blobs.get(blob))
        record = await get_message(self.connection, self.topology.journal, source.seq)
        if source.inputs:
            return msgspec.json.decode(decode_flow_run(record.data).inputs)
        event = decode_event("outcome", record.data)
        if not isinstance(event, Outcome) or not isinstance(event.result, msgspec.Raw):
            raise LookupError(f"no result in the outcome at {source.seq}")  # noqa: TRY004  not a type: a value that is absent
        return msgspec.json.decode(event.result)

    async def _create(self, queue: Queue) -> None:
        """Create the durable of a queue; what is dispatched to it comes later than that."""
        try:
            last, _ = await last_sequence(self.connection, self.topology.journal)
            await ensure_durable(self.connection, self.topology, *queue, last + 1)
        except (CallboardError, TimeoutError) as error:
            _log.warning("the durable of %s in pool %s: %s", queue[1], queue[0], error)
        else:
            self.engine.queue_is_ready(queue)
            self.wake()
        finally:
            self._busy.discard(queue)

    # -- time

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._decide(timers=True)
            if self.engine.tenure.role is not self.role:
                self.role = self.engine.tenure.role
                _log.info("router %s is now %s", self.options.name, self.role.value)
            if self.role is Role.LEADER:
                for queue in self.engine.missing_queues():
                    if queue not in self._busy:
                        self._busy.add(queue)
                        self._start(self._create(queue), "durable")

    async def beat(self) -> None:
        """Be heard by the standby, and by this router itself: it does not write unheard."""
        subjects = self.topology.subjects
        subject = subjects.beat(ROUTERS, self.options.name)
        data = encode(Beat(self.options.name, self.options.name, ROUTERS))
        while True:
            self.publisher.publish(subject, data)
            await asyncio.sleep(_BEAT_SECONDS)

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.group.create_task(work, name=name)


def guard_headers(epoch: int, subjects: Subjects) -> bytes:
    """The condition of every write of a router: the server refuses it if the epoch is another."""
    return raw_headers(
        {
            "Nats-Expected-Last-Subject-Sequence": str(epoch),
            "Nats-Expected-Last-Subject-Sequence-Subject": subjects.epoch,
        }
    )


async def run_router(options: RouterOptions, *, ready: Callable[[], None] | None = None) -> None:
    """Run one router until it is cancelled. ready: called when it has read the whole journal.

    Raises `BoardUnreachable`, `StreamDrift`, and what breaks the fold.
    """
    subjects = Subjects(options.prefix)
    topology = Topology(subjects, options.replicas)
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(
            open_link(options.url, name=options.name, tries_seconds=options.connect_seconds)
        )
        await ensure_streams(connection, topology)
        publisher = await stack.enter_async_context(
            Publisher(connection, timeout=options.policy.unresolved)
        )
        group = await stack.enter_async_context(asyncio.TaskGroup())
        shell = _Shell(
            options=options,
            connection=connection,
            topology=topology,
            engine=Engine(options.name, subjects, options.policy),
            publisher=publisher,
            blobs=Blobs(connection, topology),
            group=group,
        )
        last, _ = await last_sequence(connection, topology.journal)
        shell.connected_seq = last
        stack.callback(connection.at_restore(shell.restored))
        await connection.sink(subjects.ask_filter("confirm"), shell.asked)
        beats = await stack.enter_async_context(
            Reader(connection, topology.beats, start=1, callback=shell.read_beats)
        )
        shell.journal = await stack.enter_async_context(
            Reader(connection, topology.journal, start=1, callback=shell.read_journal)
        )
        group.create_task(shell.beat(), name="beat")
        await shell.journal.reached(last)
        shell.engine.tenure.start(time.monotonic())
        if ready is not None:
            ready()
        group.create_task(beats.failed(), name="beats")
        group.create_task(shell.tick(), name="tick")
        await shell.journal.failed()
