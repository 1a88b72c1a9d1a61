"""The router's shell: it owns the sockets and the clock, and drives the engine.

It reads the journal and the beats in order, publishes what the engine decides, each write guarded
by the epoch (`batch`), and fetches what the engine asks for. A decision is taken once for each
batch that was read and once for each tick, never by polling.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec

from callboard_broker.batch import GUARD_FAILED, GuardedWriter, is_clustered
from callboard_broker.blobs import Blobs
from callboard_broker.connection import ApiError, Connection, open_link
from callboard_broker.endpoint import Endpoint
from callboard_broker.errors import (
    BadInput,
    BoardUnreachable,
    CallboardError,
    StreamMissing,
    TooLarge,
    WriteRefused,
)
from callboard_broker.publisher import Publisher
from callboard_broker.pull import ensure_durable
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Beat,
    Dispatch,
    Entered,
    Failure,
    Settled,
    decode_beat,
    encode,
)
from callboard_router.desk import Policy
from callboard_router.engine import ROUTERS, Engine
from callboard_router.fetching import Fetching
from callboard_router.liveness import Queue
from callboard_router.proposals import Proposal
from callboard_router.questions import Questions
from callboard_router.start import JournalCut, starting_state
from callboard_router.tenure import Role
from callboard_router.upkeep import Upkeep, UpkeepOptions
from callboard_router.values import Source

__all__ = ["RouterOptions", "Shell", "run_router"]

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.1
_BEAT_SECONDS = 0.5
_ATTACHING_AT_ONCE = 16
_STOPS_IN_MESSAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOptions:
    """url: the NATS server. name: a token, unique to this process. replicas: of new streams.

    upkeep: when snapshots are taken, and how long the journal is kept. metrics: where they are
    shown; None: nowhere.
    """

    url: str
    name: str
    policy: Policy
    prefix: str = "cb"
    replicas: int = 1
    connect_seconds: float = 5.0
    upkeep: UpkeepOptions = field(default_factory=UpkeepOptions)
    metrics: Endpoint | None = None


@dataclass(slots=True)
class Shell:
    """What stands between the engine and the connection. now: the monotonic clock, in seconds."""

    options: RouterOptions
    connection: Connection
    topology: Topology
    engine: Engine
    publisher: Publisher
    writer: GuardedWriter
    blobs: Blobs
    fetching: Fetching
    group: asyncio.TaskGroup
    now: Callable[[], float] = time.monotonic
    role: Role = Role.FOLLOWER
    _scheduled: bool = False
    _busy: set[Queue] = field(default_factory=set)
    _attaching: asyncio.Semaphore = field(
        default_factory=partial(asyncio.Semaphore, _ATTACHING_AT_ONCE)
    )

    # -- what comes in

    def read_journal(self, records: list[Record]) -> None:
        engine = self.engine
        record_in = engine.record
        now = self.now()
        first = engine.state.seq + 1
        if records[0].seq != first or records[-1].seq - first + 1 != len(records):
            self.start(self._check_gap(first, records[0].seq), "gap")
        for record in records:
            record_in(record.seq, record.at_ns // 1_000_000, record.subject, record.data, now=now)
        self.wake()

    def read_beats(self, records: list[Record]) -> None:
        now, now_ms = self.now(), self.connection.server_now_ms()
        for record in records:
            try:
                beat = decode_beat(record.data)
                subject = self.topology.subjects.beat(beat.pool, beat.host)
            except BadInput as error:
                _log.warning("a beat on %s cannot be read: %s", record.subject, error)
                continue
            if record.subject != subject:
                _log.warning("a beat on %s claims to be another host's", record.subject)
                continue
            age = max(0, now_ms - record.at_ns // 1_000_000) / 1000
            self.engine.heard(beat, at=now - age)
        self.wake()

    async def _check_gap(self, first: int, found: int) -> None:
        """A message was deleted, or this router slept until the purge had overtaken it."""
        _log.warning(
            "the journal has no message %d, or one soon after; the next is %d", first, found
        )
        while True:
            try:
                info = await self.connection.api(f"STREAM.INFO.{self.topology.journal}")
                break
            except (OSError, LookupError, ApiError) as error:
                _log.debug("the journal does not answer yet: %s", error)
            await asyncio.sleep(_TICK_SECONDS)
        begins = int(info["state"]["first_seq"])
        if begins > first:
            why = f"this router had read up to {first - 1}"
            raise JournalCut(self.topology.journal, begins, why)

    def restored(self) -> None:
        """The connection was made anew: what was under way is void, leases are granted again."""
        self.engine.reconnected(self.now())

    # -- what goes out

    def wake(self) -> None:
        """Decide once what was read in this turn of the event loop is folded."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.decide)

    def decide(self, *, timers: bool = False) -> None:
        """Write what the engine decides now."""
        self._scheduled = False
        engine = self.engine
        now = self.now()
        for proposal in engine.decide(now, self.connection.server_now_ms(), timers=timers):
            if proposal.attach is not None:
                self.start(self._attach(proposal, proposal.attach), "attach")
            else:
                self._write(proposal, proposal.data())
        for source in engine.wanted():
            self.start(self._fetch(source), "fetch")

    def _write(self, proposal: Proposal, data: bytes) -> None:
        done = partial(self._written, proposal)
        try:
            self.writer.write(proposal.subject, data, guard=proposal.guard, done=done)
        except TooLarge as error:
            done(None, error)

    def _written(self, proposal: Proposal, _seq: int | None, error: Exception | None) -> None:
        if error is None:
            return
        now = self.now()
        if isinstance(error, WriteRefused) and error.code == GUARD_FAILED:
            self.engine.refused(proposal, now)
        else:
            level = logging.DEBUG if isinstance(error, BoardUnreachable) else logging.WARNING
            _log.log(level, "a write of the router is unresolved: %s", error)
            self.engine.unresolved(now)

    async def _attach(self, proposal: Proposal, payload: bytes) -> None:
        """Put the payload into the blob store first; then the event can refer to it."""
        event = proposal.event
        try:
            async with self._attaching:
                blob = await self.blobs.put(payload)
        except CallboardError as error:
            _log.warning("a payload could not be stored: %s", error)
            self.engine.unresolved(self.now())
            return
        if isinstance(event, Dispatch | Settled | Entered):
            event = msgspec.structs.replace(event, blob=blob)
        self._write(proposal, encode(event))

    async def _fetch(self, source: Source) -> None:
        try:
            value: Any = await self.fetching.value(source)
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
            self.look()

    def look(self) -> None:
        """Decide what the mere passing of time has changed, and see to queues and stops."""
        self.decide(timers=True)
        if self.engine.tenure.role is not self.role:
            self.role = self.engine.tenure.role
            _log.info("router %s is now %s", self.options.name, self.role.value)
        if self.role is Role.LEADER:
            self._ask_to_stop()
            for queue in self.engine.missing_queues():
                if queue not in self._busy:
                    self._busy.add(queue)
                    self.start(self._create(queue), "durable")

    def _ask_to_stop(self) -> None:
        for pool, attempts, why in self.engine.stops(self.now()):
            subject = self.topology.subjects.stop(pool)
            for start in range(0, len(attempts), _STOPS_IN_MESSAGE):
                some = attempts[start : start + _STOPS_IN_MESSAGE]
                self.connection.send(subject, encode({"stop": some, "why": why}))

    async def beat(self) -> None:
        """Be heard by the standby, and by this router itself: it does not write unheard."""
        subjects = self.topology.subjects
        subject = subjects.beat(ROUTERS, self.options.name)
        data = encode(Beat(self.options.name, self.options.name, ROUTERS))
        while True:
            self.publisher.publish(subject, data)
            await asyncio.sleep(_BEAT_SECONDS)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work` in the background; what it raises ends the router."""
        self.group.create_task(work, name=name)


def _shown(
    endpoint: Endpoint, engine: Engine, connection: Connection
) -> AbstractAsyncContextManager[None]:
    """Its metrics, whose library is imported only where they are wanted."""
    from callboard_broker.exposition import new_registry, shown  # noqa: PLC0415  see above
    from callboard_router.metrics import observe  # noqa: PLC0415  see above

    registry = new_registry()
    observe(engine, registry, connection.server_now_ms)
    return shown(endpoint, registry)


async def run_router(options: RouterOptions, *, ready: Callable[[], None] | None = None) -> None:
    """Run one router until it is cancelled. ready: called when it has read the whole journal.

    Raises `BoardUnreachable`, `StreamDrift`, `JournalCut`, and what breaks the fold.
    """
    subjects = Subjects(options.prefix)
    topology = Topology(subjects, options.replicas)
    policy = options.policy
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(
            open_link(options.url, name=options.name, tries_seconds=options.connect_seconds)
        )
        await ensure_streams(connection, topology)
        blobs = Blobs(connection, topology)
        engine = Engine(options.name, subjects, policy)
        if options.metrics is not None:
            await stack.enter_async_context(_shown(options.metrics, engine, connection))
        state = await starting_state(connection, topology, blobs)
        if state is not None:
            _log.info("router %s starts from the snapshot at %d", options.name, state.seq)
            engine.restore(state, time.monotonic())
        publisher = await stack.enter_async_context(
            Publisher(connection, timeout=policy.unresolved)
        )
        writer = GuardedWriter(
            connection,
            publisher,
            subjects.epoch,
            batched=await is_clustered(connection, topology.journal),
            timeout=policy.unresolved,
        )
        group = await stack.enter_async_context(asyncio.TaskGroup())
        shell = Shell(
            options=options,
            connection=connection,
            topology=topology,
            engine=engine,
            publisher=publisher,
            writer=writer,
            blobs=blobs,
            fetching=Fetching(connection, topology, blobs),
            group=group,
        )
        questions = Questions(connection, topology, engine, shell.start)
        last, _ = await last_sequence(connection, topology.journal)
        questions.connected_seq = last
        stack.callback(connection.at_restore(shell.restored))
        stack.callback(connection.at_restore(questions.restored))
        await questions.listen()
        beats = await stack.enter_async_context(
            Reader(connection, topology.beats, start=1, callback=shell.read_beats)
        )
        journal = await stack.enter_async_context(
            Reader(
                connection,
                topology.journal,
                start=engine.state.seq + 1,
                callback=shell.read_journal,
            )
        )
        questions.journal = journal
        group.create_task(shell.beat(), name="beat")
        await journal.reached(last)
        engine.tenure.start(time.monotonic())
        if ready is not None:
            ready()
        upkeep = Upkeep(connection, topology, engine, blobs, options.upkeep)
        if state is None:
            upkeep.mistrust(engine.state.snapshot)
        group.create_task(beats.failed(), name="beats")
        group.create_task(shell.tick(), name="tick")
        group.create_task(upkeep.run(), name="upkeep")
        await journal.failed()
