"""Runs the ledger: reads the journal once and in order, for the state and for the audit log.

The state is saved every `flush_seconds` or `batch` events, rows and position in one transaction;
the audit log has a position of its own, in AUDIT itself. Whatever kills the ledger, it goes on
from both. An error that leaves either in doubt ends it: start it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from callboard_broker.connection import Connection, open_link
from callboard_broker.endpoint import Endpoint
from callboard_broker.errors import BadInput
from callboard_broker.log_lines import LogBounds
from callboard_broker.publisher import Publisher
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, bound_logs, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.answering import Answering
from callboard_ledger.archiving import ArchiveFolder, Archiver
from callboard_ledger.audit_upkeep import AuditUpkeep, CheckpointOptions, open_audit
from callboard_ledger.checkpoints import CheckpointFile, LogFolder
from callboard_ledger.directory import LedgerDirectory
from callboard_ledger.host_keys import HostKeys
from callboard_ledger.log_reading import LogReading
from callboard_ledger.racing import first_of
from callboard_ledger.reading import read
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.stopping import stop_event
from callboard_ledger.store import Store
from callboard_ledger.views import PositionView

__all__ = ["LedgerOptions", "run_ledger"]

_log = logging.getLogger(__name__)

_FRESH_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerOptions:
    """What a ledger is started with. Raises `BadInput`."""

    url: str
    """The NATS server, or several separated by commas."""
    prefix: str = "cb"
    """The board: the first token of its subjects."""
    replicas: int = 1
    """Copies of each stream that it has to create, and the least of one that is there."""
    store: Path
    """A directory of its own: rows (`ledger.db`), key and checkpoints of the audit log, a lock."""
    flush_seconds: float = 0.05
    """How long an event may wait to be saved and audited."""
    batch: int = 500
    """How many events may wait to be saved and audited."""
    metrics: Endpoint | None = None
    """Where its metrics are shown; None: nowhere."""
    key: Path | None = None
    """The private key of the audit log; None: `audit.key` in `store`, made at the first start."""
    checkpoints: Path | None = None
    """The file that checkpoints are appended to; None: `checkpoints` in `store`."""
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    """When they are signed, and where else they go."""
    archive: Path | None = None
    """Where events are archived before they are purged; None: `archive` in `store`."""
    archiving: bool = True
    """Whether they are; if not, what is purged is gone."""
    log_bounds: LogBounds = field(default_factory=LogBounds)
    """How much of what handlers log is kept."""
    rebuild: bool = False
    """Whether it forgets its rows first, and folds the journal from its first event again."""

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
    `StoreLocked`, `BadInput` if the rows cannot be built anew, and what the store raises.
    """
    with LedgerDirectory(options.store) as directory:
        async with (
            stop_event(stop) as stopping,
            open_link(options.url, name="callboard-ledger") as connection,
            Publisher(connection) as publisher,
        ):
            topology = Topology(Subjects(options.prefix), options.replicas, options.log_bounds)
            await ensure_streams(connection, topology)
            await bound_logs(connection, topology)
            info = await connection.api(f"STREAM.INFO.{topology.journal}")
            created, last = str(info["created"]), int(info["state"]["last_seq"])
            first = int(info["state"]["first_seq"])
            if options.rebuild and first > 1:
                why = f"the journal begins at {first}: what was before it stands in no other place"
                raise BadInput("rebuild", f"{why} than this store")
            folder = LogFolder(directory.path, options.key, options.checkpoints)
            key = folder.open_key(options.prefix)
            store = _open_store(directory.database, topology, (created, last))
            if options.rebuild:
                store.clear()
            _warn_of_a_gap(store, first)
            try:
                auditor = await open_audit(
                    connection,
                    topology,
                    publisher,
                    folder,
                    key,
                    journal=(created, last),
                    batch=options.batch,
                )
                upkeep = AuditUpkeep(
                    publisher,
                    topology,
                    auditor,
                    key=key,
                    file=CheckpointFile(folder.checkpoint_file),
                    options=options.checkpoint,
                )
                archiver = None
                if options.archiving:
                    archive = ArchiveFolder(options.archive or directory.path / "archive")
                    archiver = Archiver(
                        connection,
                        publisher,
                        topology,
                        archive,
                        key,
                        tail=lambda: auditor.tail,
                    )
                keys = HostKeys(connection, publisher, topology, key)
                ledger = _Ledger(
                    options,
                    connection,
                    topology,
                    stores=(store, LogReading(connection, topology, directory.lines)),
                    audit=_Audit(upkeep=upkeep, archiver=archiver, keys=keys),
                )
                async with ledger.shown():
                    await ledger.run(stopping, ready)
            finally:
                store.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Audit:
    """What the audit log is made by."""

    upkeep: AuditUpkeep
    archiver: Archiver | None
    keys: HostKeys


class _Ledger:
    """One run: what arrives goes through `_read`; loops save, recover and answer."""

    def __init__(
        self,
        options: LedgerOptions,
        connection: Connection,
        topology: Topology,
        *,
        stores: tuple[Store, LogReading],
        audit: _Audit,
    ) -> None:
        self._options = options
        self._connection = connection
        self._topology = topology
        self._store, self._lines = store, lines = stores
        self._upkeep = audit.upkeep
        self._auditor = audit.upkeep.auditor
        self._archiver = audit.archiver
        self._host_keys = audit.keys
        self._aggregator = Aggregator(topology.subjects)
        self._aggregator.restore(store.load())
        self._answering = Answering(
            connection,
            topology,
            (self._aggregator, store, lines),
            flush=self._flush,
            catch_up=self._catch_up,
            position=self._position,
        )
        self._reader: Reader | None = None
        self._sound = True  # False: an event was left half folded, so nothing is saved any more

    def shown(self) -> AbstractAsyncContextManager[None]:
        """Its metrics, whose library is imported only where they are wanted."""
        if self._options.metrics is None:
            return nullcontext()
        from callboard_broker.exposition import new_registry, shown  # noqa: PLC0415  see above
        from callboard_ledger.metrics import observe  # noqa: PLC0415  see above

        registry = new_registry()
        observe(self._position, registry)
        return shown(self._options.metrics, registry)

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
                group.create_task(self._upkeep.recover(self._connection)),
                group.create_task(self._upkeep.carry()),
                group.create_task(self._host_keys.run()),
                group.create_task(self._lines.keep()),
            ]
            if self._archiver is not None:
                loops.append(group.create_task(self._archiver.run()))
            group.create_task(self._upkeep.keep())  # ends by itself: a thread may be writing
            sinks = await self._answering.listen(group)
            await self._read_on(stopping, ready)
            for sink in sinks:
                await sink.close()
            await self._upkeep.end()
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
                await first_of(reader.failed(), stopping.wait(), self._upkeep.can_catch_up())

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

    async def _catch_up(self) -> None:
        last, _ = await last_sequence(self._connection, self._topology.journal)
        async with asyncio.timeout(_FRESH_SECONDS):
            if self._reader is not None and self._aggregator.position < last:
                await self._reader.reached(last)

    async def _position(self, wanted: int = 0) -> PositionView:
        """wanted: archive up to that event, which somebody wants to purge."""
        last, _ = await last_sequence(self._connection, self._topology.journal)
        aggregator = self._aggregator
        audited = self._auditor.tail.last
        saved = aggregator.position - aggregator.unsaved
        archived = audited
        if self._archiver is not None:
            self._archiver.want(min(wanted, audited, saved))
            archived = self._archiver.last
        read, written = await self._lines.position()
        return PositionView(
            position=aggregator.position,
            last=last,
            audited=audited,
            saved=saved,
            archived=archived,
            void=aggregator.void,
            malformed=aggregator.malformed,
            audit_problem=self._auditor.problem,
            logs=read,
            logs_last=written,
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


def _warn_of_a_gap(store: Store, first: int) -> None:
    position = store.load().position
    if position + 1 < first:
        _log.warning(
            "the journal begins at %d, the store is at %d: what is between is unknown here; if a "
            "projector has it, stop this ledger and run `callboard projector restore`",
            first,
            position,
        )
