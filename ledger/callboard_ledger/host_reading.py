"""Reads BEATS into the hosts' rows, beside the journal and without any effect on its fold.

What cannot be read for the moment is tried again after a pause. Rows are saved once a second: a
ledger that was killed hears the next beat of every host within that time anyway.
"""

from __future__ import annotations

import asyncio
import logging

from callboard_broker.connection import Connection
from callboard_broker.errors import CallboardError
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_ledger.hosts import Hosts
from callboard_ledger.store import Store

__all__ = ["HostReading"]

_AGAIN_SECONDS = 2.0
_SAVE_SECONDS = 1.0
_FRESH_SECONDS = 10.0
_log = logging.getLogger(__name__)


class HostReading:
    """hosts: as far as their beats are read."""

    def __init__(self, connection: Connection, topology: Topology, store: Store) -> None:
        self._connection = connection
        self._topology = topology
        self._store = store
        self._reader: Reader | None = None
        self.hosts = Hosts(topology.subjects.prefix)
        store.load_hosts(self.hosts)

    async def keep(self) -> None:
        """Read until cancelled. Raises what the store raises."""
        while True:
            try:
                await self._read_on()
            except (CallboardError, OSError, LookupError) as error:
                _log.warning("beats are not read for the moment: %s", error)
            finally:
                self._reader = None
            await asyncio.sleep(_AGAIN_SECONDS)

    def flush(self) -> None:
        """Save what was heard."""
        if self.hosts.unsaved:
            self._store.save_hosts(self.hosts)
            self.hosts.saved()

    async def catch_up(self) -> None:
        """Return when every beat that is stored by now is read. Raises `TimeoutError`."""
        if self._reader is not None:
            last, _ = await last_sequence(self._connection, self._topology.beats)
            async with asyncio.timeout(_FRESH_SECONDS):
                await self._reader.reached(last)

    async def _read_on(self) -> None:
        await ensure_streams(self._connection, self._topology)
        info = await self._connection.api(f"STREAM.INFO.{self._topology.beats}")
        start = self.hosts.begin(str(info["created"]), int(info["state"]["last_seq"]))
        async with Reader(
            self._connection, self._topology.beats, start=start, callback=self._take
        ) as reader:
            self._reader = reader
            while True:
                try:
                    async with asyncio.timeout(_SAVE_SECONDS):
                        await reader.failed()
                except TimeoutError:
                    self.flush()

    def _take(self, records: list[Record]) -> None:
        for record in records:
            self.hosts.apply(record)
