"""The ledger of a board in memory: the aggregator and the answers of the real one, without an
audit.

Every record is folded as it is stored; the rows lie in an SQLite database in memory, written when
somebody asks.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from callboard.testing.memory_link import open_memory_link
from callboard.testing.memory_server import MemoryServer
from callboard_broker.connection import Connection
from callboard_broker.record import Record
from callboard_broker.streams import Topology
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.answering import Answering
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.store import Query
from callboard_ledger.viewing import view
from callboard_ledger.views import CommandView, FlowView, PositionView, ScheduleView, TaskView

__all__ = ["MemoryLedger", "open_memory_ledger"]


class MemoryLedger:
    """answering: what it answers to clients."""

    def __init__(self, server: MemoryServer, connection: Connection, topology: Topology) -> None:
        self.journal = server.streams[topology.journal]
        self._aggregator = Aggregator(topology.subjects)
        self._store = SqliteStore(None, stream=topology.journal)
        self.answering = Answering(
            connection,
            topology,
            (self._aggregator, self._store, None, None),
            flush=self._flush,
            catch_up=self._catch_up,
            position=self._position,
        )
        self.journal.heard.append(self.heard)

    def heard(self, record: Record) -> None:
        """The journal has stored this."""
        self._aggregator.apply(record)

    def rows(self) -> dict[str, TaskView | FlowView | ScheduleView]:
        """All tasks, workflows and schedules by id, in the order in which they came."""
        self._fold()
        self._flush()
        found = [view(row) for row in self._store.find(Query(limit=sys.maxsize))]
        return {one.id: one for one in reversed(found) if not isinstance(one, CommandView)}

    def close(self) -> None:
        """Forget everything."""
        self.journal.heard.remove(self.heard)
        self._store.close()

    def _fold(self) -> None:
        """Also what is stored and was not told yet."""
        for record in self.journal.records[self._aggregator.position :]:
            self._aggregator.apply(record)

    def _flush(self) -> None:
        if self._aggregator.unsaved:
            changes = self._aggregator.changes()
            self._store.save(changes)
            self._aggregator.saved(changes)

    async def _catch_up(self) -> None:
        self._fold()

    async def _position(self, _archive: int) -> PositionView:
        """Nothing is audited or archived, so that nothing is ever purged."""
        self._fold()
        aggregator = self._aggregator
        return PositionView(
            position=aggregator.position,
            last=self.journal.last_seq,
            audited=0,
            saved=aggregator.position - aggregator.unsaved,
            archived=0,
            void=aggregator.void,
            malformed=aggregator.malformed,
        )


@asynccontextmanager
async def open_memory_ledger(
    server: MemoryServer, topology: Topology
) -> AsyncIterator[MemoryLedger]:
    """A ledger that answers, and ends with the block. The streams must be there."""
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(open_memory_link(server, "ledger"))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        ledger = MemoryLedger(server, connection, topology)
        stack.callback(ledger.close)
        for sink in await ledger.answering.listen(group):
            stack.push_async_callback(sink.close)
        yield ledger
