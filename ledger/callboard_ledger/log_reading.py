"""Reads LOGS into its store, beside the journal and without any effect on that.

Whatever is wrong with the stream or the store of lines is reported, and tried again after a pause;
meanwhile the lines wait in LOGS. A message that cannot be read is passed over.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

from callboard_broker.connection import Connection
from callboard_broker.errors import BadInput, CallboardError, StreamDrift, StreamMissing
from callboard_broker.log_lines import decode_log_batch, level_number
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_ledger.log_store import Lines, LogQuery, LogStore, Stored
from callboard_ledger.questions import LogsQuestion

__all__ = ["LogReading"]

_AGAIN_SECONDS = 2.0
_SWEEP_SECONDS = 30.0
_FRESH_SECONDS = 10.0
_log = logging.getLogger(__name__)


class LogReading:
    """The lines of one board, as far as they are read. path: of the database."""

    def __init__(self, connection: Connection, topology: Topology, path: Path) -> None:
        self._connection = connection
        self._topology = topology
        self._path = path
        self._store: LogStore | None = None
        self._reader: Reader | None = None

    async def keep(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                await self._read_on()
            except (CallboardError, OSError, sqlite3.Error, LookupError) as error:
                _log.warning("lines of handlers are not read for the moment: %s", error)
            finally:
                self._reader = None
                self.close()
            await asyncio.sleep(_AGAIN_SECONDS)

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
            self._store = None

    async def position(self) -> tuple[int, int]:
        """How far LOGS is read, and where it ends."""
        read = 0 if self._reader is None else self._reader.position
        try:
            last, _ = await last_sequence(self._connection, self._topology.logs)
        except StreamMissing:  # it is made again by `keep`
            return read, read
        return read, last

    async def answer(self, tenant: str, task: str, question: LogsQuestion) -> Lines:
        """Lines of a task that this tenant has. Raises `BadInput`, `LogsUnread`."""
        level = level_number(question.level)
        if question.fresh and self._reader is not None:
            last, _ = await last_sequence(self._connection, self._topology.logs)
            async with asyncio.timeout(_FRESH_SECONDS):
                await self._reader.reached(last)
        if self._store is None:
            raise LogsUnread("the lines of handlers cannot be read at the moment: see the log")
        return self._store.find(
            LogQuery(
                tenant=tenant,
                task=task,
                level=level,
                after=question.after,
                limit=question.limit,
                last=question.last,
            )
        )

    async def _read_on(self) -> None:
        await ensure_streams(self._connection, self._topology)
        info = await self._connection.api(f"STREAM.INFO.{self._topology.logs}")
        store = self._store = LogStore(
            self._path, stream=self._topology.logs, created=str(info["created"])
        )
        if store.position > int(info["state"]["last_seq"]):
            store.clear()
        async with Reader(
            self._connection, self._topology.logs, start=store.position + 1, callback=self._take
        ) as reader:
            self._reader = reader
            while True:
                try:
                    async with asyncio.timeout(_SWEEP_SECONDS):
                        await reader.failed()
                except TimeoutError:
                    await self._sweep(store)

    async def _sweep(self, store: LogStore) -> None:
        """Drop what LOGS has dropped. Raises `StreamDrift` if it is not the stream it was."""
        info = await self._connection.api(f"STREAM.INFO.{self._topology.logs}")
        if str(info["created"]) != store.created:
            changed: dict[str, tuple[object, object]] = {
                "created": (info["created"], store.created)
            }
            raise StreamDrift(self._topology.logs, changed)
        first = int(info["state"]["first_seq"])
        more = True
        while more:
            more = store.forget(first)
            await asyncio.sleep(0)  # others have their turn between two transactions

    def _take(self, records: list[Record]) -> None:
        if self._store is not None:
            self._store.save([self._understood(record) for record in records])

    def _understood(self, record: Record) -> Stored:
        try:
            tenant = self._topology.subjects.tenant_of_log(record.subject)
            return Stored(seq=record.seq, tenant=tenant, batch=decode_log_batch(record.data))
        except BadInput as error:
            _log.warning("message %d of LOGS cannot be read: %s", record.seq, error)
            return Stored(seq=record.seq, tenant="", batch=None)


class LogsUnread(CallboardError, RuntimeError):
    """The ledger has no lines to look into at the moment."""
