"""Keeps the audit log going: recovers from failed writes, and keeps its head outside the server.

Where AUDIT or the journal are not what they were, nothing more is audited: going on would hide it.
The state is served all the same, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from callboard_broker.connection import ApiError, Connection, NoResponder
from callboard_broker.errors import AuditBroken, BoardUnreachable, StreamMissing
from callboard_broker.publisher import Done, Publisher
from callboard_broker.streams import Topology
from callboard_ledger.audit import Auditor, Tail, check_tail, read_tail
from callboard_ledger.heads import Head, HeadFile

__all__ = ["AuditUpkeep", "open_audit"]

_log = logging.getLogger(__name__)

_HEAD_SECONDS = 1.0
_PAUSE_SECONDS = 0.2
_DRAIN_SECONDS = 5.0
_OUTAGE = (BoardUnreachable, NoResponder, StreamMissing, ApiError, TimeoutError)


class AuditUpkeep:
    """What runs beside an auditor. created: when the journal was, as the server tells it."""

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        auditor: Auditor,
        heads: HeadFile,
        *,
        created: str,
    ) -> None:
        self.auditor = auditor
        self._connection = connection
        self._topology = topology
        self._heads = heads
        self._created = created
        self._kept = 0 if auditor.problem is None else auditor.tail.batch
        self._ended = asyncio.Event()

    async def recover(self) -> None:
        """After a write that failed, ask AUDIT what it ends with and go on from there; for ever."""
        auditor = self.auditor
        while auditor.problem is None:
            await auditor.unsure.wait()
            try:
                auditor.resume(await read_tail(self._connection, self._topology))
            except AuditBroken as error:
                auditor.problem = str(error)
                _log.critical("%s; nothing more is audited", error)
            except _OUTAGE as error:
                _log.warning("the audit log cannot be written: %s", error)
            auditor.changed.set()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def can_catch_up(self) -> None:
        """Return when leaves were dropped and there is room for them again."""
        while not (self.auditor.behind and self.auditor.idle):
            self.auditor.changed.clear()
            await self.auditor.changed.wait()

    async def end(self) -> None:
        """Write what waits, for at most 5 s; `keep_heads` then keeps the last head and returns."""
        auditor = self.auditor
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while auditor.problem is None and not auditor.idle:
                    auditor.changed.clear()
                    auditor.flush()
                    await auditor.changed.wait()
        except TimeoutError:
            _log.warning("stopped with %d events not audited yet", auditor.waiting)
        self._ended.set()

    async def keep_heads(self) -> None:
        """Keep the head outside the server, once a second, until `end`."""
        while not self._ended.is_set():
            await self._keep_head()  # also at once: after a kill, AUDIT may be ahead of the file
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEAD_SECONDS):
                    await self._ended.wait()
        await self._keep_head()

    async def _keep_head(self) -> None:
        tail = self.auditor.tail
        if tail.batch == self._kept:
            return
        head = Head(
            batch=tail.batch,
            last=tail.last,
            head=tail.head.hex(),
            at=int(time.time() * 1000),
            journal=self._created,
        )
        await asyncio.to_thread(self._heads.write, head)  # it waits for the disk
        self._kept = tail.batch


async def open_audit(
    connection: Connection,
    topology: Topology,
    publisher: Publisher,
    heads: HeadFile,
    *,
    journal: tuple[str, int],
    batch: int,
) -> Auditor:
    """An auditor at the end of AUDIT; one with a `problem` if that end is not what it was.

    journal: when it was created, and its last sequence. Raises what `Connection.api` raises.
    """

    def publish(data: bytes, headers: bytes, done: Done) -> None:
        publisher.publish(topology.subjects.audit, data, headers=headers, done=done)

    most_bytes = connection.link.max_payload // 2
    try:
        tail = await check_tail(connection, topology, heads.read(), journal=journal)
    except AuditBroken as error:
        _log.critical("%s; nothing more is audited", error)
        auditor = Auditor(publish, Tail(), batch=batch)
        auditor.problem = (
            f"{error}. To go on all the same, move {heads.path.name} out of {heads.path.parent} "
            "and start the ledger again"
        )
        return auditor
    return Auditor(publish, tail, batch=batch, most_bytes=most_bytes)
