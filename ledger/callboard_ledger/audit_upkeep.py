"""Keeps the audit log going: recovers from failed writes, and signs checkpoints of it.

A checkpoint goes to a file outside the server first, to a URL if there is one, and to AUDIT.
Where AUDIT or the journal are not what they were, nothing more is audited, and nothing signed but
the last tree that was as it should be: going on would hide it. The state is served all the same,
and says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass

from callboard_broker.connection import ApiError, Connection, NoResponder
from callboard_broker.errors import (
    AuditBroken,
    BadInput,
    BoardUnreachable,
    CallboardError,
    StreamMissing,
)
from callboard_broker.publisher import Done, Publisher
from callboard_broker.signing import SigningKey
from callboard_broker.streams import Topology
from callboard_ledger.audit import Auditor, Tail, check_tail, read_tail
from callboard_ledger.carrying import Carrier, check_url
from callboard_ledger.checkpoints import CheckpointFile, LogFolder
from callboard_ledger.notes import sign_checkpoint

__all__ = ["AuditUpkeep", "CheckpointOptions", "open_audit"]

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.25
_PAUSE_SECONDS = 0.2
_DRAIN_SECONDS = 5.0
_OUTAGE = (BoardUnreachable, NoResponder, StreamMissing, ApiError, TimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointOptions:
    """When a checkpoint is signed, if there is something new: after `seconds`, or at once after
    `events` leaves. url: where each is carried; None: nowhere. Raises `BadInput`."""

    seconds: float = 5.0
    events: int = 50_000
    url: str | None = None

    def __post_init__(self) -> None:
        if not 0.1 <= self.seconds <= 86_400:
            raise BadInput("checkpoint_seconds", "must be 0.1 to 86,400 seconds")
        if self.events < 1:
            raise BadInput("checkpoint_events", "must be at least 1")
        if self.url is not None:
            check_url(self.url)


class AuditUpkeep:
    """What runs beside an auditor. key: the log's."""

    def __init__(
        self,
        publisher: Publisher,
        topology: Topology,
        auditor: Auditor,
        *,
        key: SigningKey,
        file: CheckpointFile,
        options: CheckpointOptions,
    ) -> None:
        self.auditor = auditor
        self.key = key
        self._publisher = publisher
        self._topology = topology
        self._file = file
        self._options = options
        self._carrier = None if options.url is None else Carrier(options.url)
        self._kept = 0
        self._kept_at = 0.0
        self._ended = asyncio.Event()

    async def recover(self, connection: Connection) -> None:
        """After a write that failed, ask AUDIT what it ends with and go on from there; for ever."""
        auditor = self.auditor
        while auditor.problem is None:
            await auditor.unsure.wait()
            try:
                auditor.resume(await read_tail(connection, self._topology))
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
        """Write what waits, for at most 5 s; `keep` then signs the last tree and returns."""
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

    async def keep(self) -> None:
        """Sign checkpoints when they are due, until `end`."""
        while not self._ended.is_set():
            if self._is_due():  # at once after a start: AUDIT may be ahead of the file
                await self._sign()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._ended.wait()
        if self.auditor.tail.size > self._kept:
            await self._sign()
        if self._carrier is not None:
            await self._carrier.carry()

    async def carry(self) -> None:
        """Carry checkpoints to the URL, until cancelled."""
        if self._carrier is not None:
            await self._carrier.run()

    def _is_due(self) -> bool:
        fresh = self.auditor.tail.size - self._kept
        if fresh <= 0 or not self.auditor.tail.size:
            return False
        late = time.monotonic() - self._kept_at >= self._options.seconds
        return late or fresh >= self._options.events

    async def _sign(self) -> None:
        tail = self.auditor.tail
        if not tail.size:
            return
        note = sign_checkpoint(tail.size, tail.root, self.key)
        await asyncio.to_thread(self._file.append, note)  # it waits for the disk
        self._kept, self._kept_at = tail.size, time.monotonic()
        if self._carrier is not None:
            self._carrier.bring(note)
        if self.auditor.problem is not None:
            return  # what AUDIT is now is not what was signed
        try:
            subject = self._topology.subjects.audit_checkpoints
            await self._publisher.put(subject, note.encode())
        except (CallboardError, *_OUTAGE) as error:
            _log.warning("a checkpoint was not written to AUDIT: %s", error)


async def open_audit(
    connection: Connection,
    topology: Topology,
    publisher: Publisher,
    folder: LogFolder,
    key: SigningKey,
    *,
    journal: tuple[str, int],
    batch: int,
) -> Auditor:
    """An auditor at the end of AUDIT; one with a `problem` if that end is not what it was.

    journal: when it was created, and its last sequence. Raises what `Connection.api` raises.
    """

    def publish(data: bytes, headers: bytes, done: Done) -> None:
        publisher.publish(topology.subjects.audit, data, headers=headers, done=done)

    created, last = journal
    most_bytes = connection.link.max_payload // 2
    kept = CheckpointFile(folder.checkpoint_file)
    try:
        folder.check_journal(created)
        tail = await check_tail(connection, topology, kept.last([key.public]), last=last)
    except AuditBroken as error:
        _log.critical("%s; nothing more is audited", error)
        auditor = Auditor(publish, Tail(), batch=batch)
        files = (folder.key_file, folder.checkpoint_file, folder.journal_file)
        named = ", ".join(str(path) for path in files)
        auditor.problem = (
            f"{error}. To go on all the same, under a new name, move {named} away and start the "
            "ledger again"
        )
        return auditor
    return Auditor(publish, tail, batch=batch, most_bytes=most_bytes)
