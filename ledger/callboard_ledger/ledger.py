"""One run of a ledger: what arrives is folded and audited; loops save, recover and answer.

Rows and position are saved together every `flush_seconds` or `batch` events. An error that leaves
an event half folded stops all saving: the store stays at the last place that was sound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

from callboard_broker.connection import Connection
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, last_sequence
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.answering import Answering
from callboard_ledger.archiving import Archiver
from callboard_ledger.audit_upkeep import AuditUpkeep
from callboard_ledger.host_keys import HostKeys
from callboard_ledger.host_reading import HostReading
from callboard_ledger.log_reading import LogReading
from callboard_ledger.options import LedgerOptions
from callboard_ledger.racing import first_of
from callboard_ledger.reading import read
from callboard_ledger.store import Store
from callboard_ledger.views import PositionView

__all__ = ["AuditLog", "Ledger"]

_FRESH_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """What the audit log is made by."""

    upkeep: AuditUpkeep
    archiver: Archiver | None
    keys: HostKeys


class Ledger:
    """stores: of rows, and of the lines of handlers. audit: by which the log is made."""

    def __init__(
        self,
        options: LedgerOptions,
        connection: Connection,
        topology: Topology,
        *,
        stores: tuple[Store, LogReading],
        audit: AuditLog,
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
        self._hosts = HostReading(connection, topology, store)
        self._answering = Answering(
            connection,
            topology,
            (self._aggregator, store, lines, self._hosts),
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
        self._hosts.flush()

    async def _run(self, stopping: asyncio.Event, ready: Callable[[], None] | None) -> None:
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(self._save_now_and_then()),
                group.create_task(self._upkeep.recover(self._connection)),
                group.create_task(self._upkeep.carry()),
                group.create_task(self._host_keys.run()),
                group.create_task(self._lines.keep()),
                group.create_task(self._hosts.keep()),
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
