"""Runs the ledger: reads the journal once and in order, for the state and for the audit log.

The state is saved every `flush_seconds` or `batch` events, rows and position in one transaction;
the audit log has a position of its own, in AUDIT itself. Whatever kills the ledger, it goes on
from both. An error that leaves either in doubt ends it: start it again.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from callboard_broker.connection import ApiError, Connection, NoResponder, Sink, open_link
from callboard_broker.errors import (
    AuditBroken,
    BadInput,
    BoardUnreachable,
    CallboardError,
    StreamMissing,
)
from callboard_broker.publisher import Done, Publisher
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.answering import VERBS, Answering
from callboard_ledger.audit import Auditor, Tail, check_tail, read_tail
from callboard_ledger.directory import LedgerDirectory
from callboard_ledger.heads import Head, HeadFile
from callboard_ledger.reading import read
from callboard_ledger.store import SqliteStore, Store
from callboard_ledger.views import Answer, Complaint, ErrorView, ListView, PositionView

__all__ = ["LedgerOptions", "run_ledger"]

_log = logging.getLogger(__name__)

_QUEUE = "ledger"
_MOST_ASKED = 20_000  # questions that may wait; all handles of a big client ask after an outage
_AT_ONCE = 64
_HEAD_SECONDS = 1.0
_PAUSE_SECONDS = 0.2
_DRAIN_SECONDS = 5.0
_FRESH_SECONDS = 10.0
_ANSWER_BYTES = 900 * 1024
_OUTAGE = (BoardUnreachable, NoResponder, StreamMissing, ApiError, TimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerOptions:
    """What a ledger is started with. Raises `BadInput`."""

    url: str
    """The NATS server, or several separated by commas."""
    prefix: str = "cb"
    """The board: the first token of its subjects."""
    store: Path
    """A directory of its own: rows (`ledger.db`), the head of the audit log, a lock."""
    flush_seconds: float = 0.05
    """How long an event may wait to be saved and audited."""
    batch: int = 500
    """How many events may wait to be saved and audited."""

    def __post_init__(self) -> None:
        Subjects(self.prefix)
        if not 0.001 <= self.flush_seconds <= 60:
            raise BadInput("flush_seconds", "must be 0.001 to 60 seconds")
        if not 1 <= self.batch <= 100_000:
            raise BadInput("batch", "must be 1 to 100,000 events")


async def run_ledger(
    options: LedgerOptions,
    *,
    ready: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run until `stop` is set, or without it until SIGTERM or SIGINT; then save everything.

    ready: called once when it reads and answers. Raises `BoardUnreachable`, `StreamDrift`,
    `StoreLocked`, and what the store raises.
    """
    with LedgerDirectory(options.store) as directory:
        async with (
            _stopping(stop) as stopping,
            open_link(options.url, name="callboard-ledger") as connection,
            Publisher(connection) as publisher,
        ):
            topology = Topology(Subjects(options.prefix))
            await ensure_streams(connection, topology)
            info = await connection.api(f"STREAM.INFO.{topology.journal}")
            journal = str(info["created"]), int(info["state"]["last_seq"])
            heads = HeadFile(directory.path)
            store = _open_store(directory.database, topology, journal)
            try:
                auditor = await _open_audit(connection, topology, publisher, heads, journal)
                ledger = _Ledger(
                    options, connection, topology, store=store, auditor=auditor, heads=heads
                )
                ledger.created = journal[0]
                await ledger.run(stopping, ready)
            finally:
                store.close()


class _Ledger:
    """One run: what arrives goes through `_read`; loops save, recover and answer."""

    def __init__(
        self,
        options: LedgerOptions,
        connection: Connection,
        topology: Topology,
        *,
        store: Store,
        auditor: Auditor,
        heads: HeadFile,
    ) -> None:
        self._options = options
        self._connection = connection
        self._topology = topology
        self._store = store
        self._auditor = auditor
        self._heads = heads
        self._kept = 0 if auditor.problem is None else auditor.tail.batch
        self._aggregator = Aggregator(topology.subjects)
        self._aggregator.restore(store.load())
        self._answering = Answering(
            connection,
            topology,
            (self._aggregator, store),
            flush=self._flush,
            catch_up=self._catch_up,
            position=self._position,
        )
        self._reader: Reader | None = None
        self._sound = True  # False: an event was left half folded, so nothing is saved any more
        self._ended = asyncio.Event()
        self._asked = 0
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self.created = ""

    async def run(self, stopping: asyncio.Event, ready: Callable[[], None] | None) -> None:
        """Read, save, audit and answer until `stopping`."""
        try:
            await self._run(stopping, ready)
        except ExceptionGroup as errors:
            if len(errors.exceptions) == 1:
                raise errors.exceptions[0] from None
            raise
        self._flush()

    async def _run(self, stopping: asyncio.Event, ready: Callable[[], None] | None) -> None:
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(self._save_now_and_then()),
                group.create_task(self._recover_audit()),
            ]
            group.create_task(self._keep_head_now_and_then())
            sinks = await self._listen(group)
            await self._read_on(stopping, ready)
            for sink in sinks:
                await sink.close()
            await self._drain_audit()
            self._ended.set()  # the loop of the head ends by itself: its thread may be writing
            for loop in loops:
                loop.cancel()

    async def _read_on(self, stopping: asyncio.Event, ready: Callable[[], None] | None) -> None:
        """Read the journal; again from an earlier place if the audit log fell behind."""
        while not stopping.is_set():
            start = self._aggregator.position + 1
            if self._auditor.problem is None:
                start = min(start, self._auditor.reread())
            async with Reader(
                self._connection, self._topology.journal, start=start, callback=self._read
            ) as reader:
                self._reader = reader
                if ready is not None:
                    ready()
                    ready = None
                await _first_of(reader.failed(), stopping.wait(), self._audit_can_catch_up())

    def _read(self, records: list[Record]) -> None:
        subjects, fold, add = self._topology.subjects, self._aggregator.fold, self._auditor.add
        self._sound = False
        for record in records:
            reading = read(subjects, record)
            fold(record, reading)
            add(record, reading)
        self._sound = True
        if self._aggregator.unsaved >= self._options.batch:
            self._flush()

    def _flush(self) -> None:
        if self._aggregator.unsaved and self._sound:
            changes = self._aggregator.changes()
            self._store.save(changes)
            self._aggregator.saved(changes)

    async def _save_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._options.flush_seconds)
            self._flush()
            self._auditor.flush()

    # The audit log.

    async def _recover_audit(self) -> None:
        """After a write that failed: ask AUDIT what it ends with, and go on from there."""
        auditor = self._auditor
        while True:
            await auditor.unsure.wait()
            try:
                auditor.resume(await read_tail(self._connection, self._topology))
            except AuditBroken as error:
                auditor.problem = str(error)
                _log.critical("%s; nothing more is audited", error)
                return
            except _OUTAGE as error:
                _log.warning("the audit log cannot be written: %s", error)
            auditor.changed.set()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _audit_can_catch_up(self) -> None:
        """Return when leaves were dropped and there is room again."""
        while not (self._auditor.behind and self._auditor.idle):
            self._auditor.changed.clear()
            await self._auditor.changed.wait()

    async def _drain_audit(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._auditor.problem is None and not self._auditor.idle:
                    self._auditor.changed.clear()
                    self._auditor.flush()
                    await self._auditor.changed.wait()
        except TimeoutError:
            _log.warning("stopped with %d events not audited yet", self._auditor.waiting)

    async def _keep_head_now_and_then(self) -> None:
        while not self._ended.is_set():
            await self._keep_head()  # also at once: after a kill, AUDIT may be ahead of the file
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEAD_SECONDS):
                    await self._ended.wait()
        await self._keep_head()

    async def _keep_head(self) -> None:
        tail = self._auditor.tail
        if tail.batch == self._kept:
            return
        head = Head(
            batch=tail.batch,
            last=tail.last,
            head=tail.head.hex(),
            at=int(time.time() * 1000),
            journal=self.created,
        )
        await asyncio.to_thread(self._heads.write, head)
        self._kept = tail.batch

    # Questions.

    async def _listen(self, group: asyncio.TaskGroup) -> list[Sink]:
        def asked(subject: str, reply: str, _headers: bytes, data: bytes) -> None:
            if not reply:
                return
            if self._asked >= _MOST_ASKED:
                _log.warning("%d questions wait for an answer; one more is dropped", self._asked)
                return
            self._asked += 1
            group.create_task(self._respond(subject, reply, data))

        subjects = self._topology.subjects
        return [
            await self._connection.sink(subjects.ask_filter(verb), asked, queue=_QUEUE)
            for verb in sorted(VERBS)
        ]

    async def _respond(self, subject: str, reply: str, data: bytes) -> None:
        tenant, verb = subject.split(".")[2:4]
        try:
            async with self._turns:
                answer: Answer = await self._answering.answer(tenant, verb, data)
        except (BoardUnreachable, NoResponder, TimeoutError) as error:
            # Like a ledger that is down: the asker will ask again, and must not take "not now"
            # for a statement about the task.
            _log.warning("a question on %s cannot be answered now: %s", subject, error)
            return
        except BadInput as error:
            answer = ErrorView(Complaint(type(error).__name__, error.reason, error.field))
        except CallboardError as error:
            answer = ErrorView(Complaint(type(error).__name__, str(error)))
        except Exception as error:  # noqa: BLE001  one question must not stop the others
            self._connection.report(error)
            answer = ErrorView(Complaint("Internal", f"{type(error).__name__}: see the log"))
        finally:
            self._asked -= 1
        self._send(reply, answer)

    def _send(self, reply: str, answer: Answer) -> None:
        data = msgspec.json.encode(answer)
        while isinstance(answer, ListView) and len(data) > _ANSWER_BYTES and len(answer.items) > 1:
            answer = ListView(answer.items[: len(answer.items) // 2], answer.position)
            data = msgspec.json.encode(answer)
        try:
            self._connection.send(reply, data)
        except BadInput as error:
            complaint = Complaint(type(error).__name__, error.reason, error.field)
            self._connection.send(reply, msgspec.json.encode(ErrorView(complaint)))

    async def _catch_up(self) -> None:
        last, _ = await last_sequence(self._connection, self._topology.journal)
        async with asyncio.timeout(_FRESH_SECONDS):
            if self._reader is not None and self._aggregator.position < last:
                await self._reader.reached(last)

    async def _position(self) -> PositionView:
        last, _ = await last_sequence(self._connection, self._topology.journal)
        aggregator = self._aggregator
        return PositionView(
            position=aggregator.position,
            last=last,
            audited=self._auditor.tail.last,
            saved=aggregator.position - aggregator.unsaved,
            void=aggregator.void,
            malformed=aggregator.malformed,
            audit_problem=self._auditor.problem,
        )


def _open_store(path: Path, topology: Topology, journal: tuple[str, int]) -> SqliteStore:
    """The store, emptied if it is of another journal or knows more than this one holds."""
    created, last = journal
    store = SqliteStore(path, stream=topology.journal, created=created)
    position = store.load().position
    if position > last:
        _log.warning("the journal ends at %d, the store at %d: built anew", last, position)
        store.clear()
    return store


async def _open_audit(
    connection: Connection,
    topology: Topology,
    publisher: Publisher,
    heads: HeadFile,
    journal: tuple[str, int],
) -> Auditor:
    def publish(data: bytes, headers: bytes, done: Done) -> None:
        publisher.publish(topology.subjects.audit, data, headers=headers, done=done)

    try:
        tail = await check_tail(connection, topology, heads.read(), journal=journal)
    except AuditBroken as error:
        _log.critical("%s; nothing more is audited", error)
        auditor = Auditor(publish, Tail())
        auditor.problem = (
            f"{error}. To go on all the same, move {heads.path.name} out of {heads.path.parent} "
            "and start the ledger again"
        )
        return auditor
    return Auditor(publish, tail)


@asynccontextmanager
async def _stopping(stop: asyncio.Event | None) -> AsyncIterator[asyncio.Event]:
    """`stop`, or an event that SIGTERM and SIGINT set."""
    if stop is not None:
        yield stop
        return
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def _first_of(*waits: Coroutine[object, object, object]) -> None:
    """Return when one of the coroutines has ended; raise what it raised; end the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
