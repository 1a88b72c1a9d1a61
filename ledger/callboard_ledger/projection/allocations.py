"""What hosts have to give and have promised, as their beats say; one row a host.

By the ledger's fold of BEATS. Beats are no events: only the last one of a host counts, and one that
could not be written is replaced by the next.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from callboard_broker.beats import ROUTERS
from callboard_broker.connection import ApiError, Connection, NoResponder
from callboard_broker.errors import (
    BoardUnreachable,
    StreamMissing,
    TargetAway,
    TargetRefused,
)
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology
from callboard_ledger.hosts import HostRow, Hosts, owner_of
from callboard_ledger.projection.documents import without_nul
from callboard_ledger.projection.target import Target

__all__ = ["Allocations"]

_log = logging.getLogger(__name__)

_READ_SECONDS = 10.0
_PAGE = 500
_encoder = msgspec.json.Encoder()


class Allocations:
    """Writes the rows of the hosts that were heard since the last time."""

    PAUSE_SECONDS = 5.0

    def __init__(self, connection: Connection, topology: Topology, target: Target) -> None:
        self._connection = connection
        self._topology = topology
        self._target = target
        self._hosts = Hosts(topology.subjects.prefix)

    async def write(self) -> None:
        """Never raises for a server or a database that is away."""
        try:
            await self._hear()
            heard, _ = self._hosts.changed()
            rows = [
                _row(self._topology.subjects.prefix, row) for row in heard if row.pool != ROUTERS
            ]
            for start in range(0, len(rows), _PAGE):
                document = without_nul(_encoder.encode(rows[start : start + _PAGE]))
                await self._target.call("callboard_observe", document.decode())
            self._hosts.saved()
        except (TargetAway, BoardUnreachable, NoResponder, StreamMissing, TimeoutError) as error:
            _log.debug("allocations are not written now: %s", error)
        except (TargetRefused, ApiError) as error:
            _log.warning("allocations are not written: %s", error)

    async def _hear(self) -> None:
        info = await self._connection.api(f"STREAM.INFO.{self._topology.beats}")
        last = int(info["state"]["last_seq"])
        start = self._hosts.begin(str(info["created"]), last)
        if start > last:
            return

        def hear(records: list[Record]) -> None:
            for record in records:
                self._hosts.apply(record)

        async with (
            asyncio.timeout(_READ_SECONDS),
            Reader(self._connection, self._topology.beats, start=start, callback=hear) as reader,
        ):
            await reader.reached(last)


def _row(board: str, row: HostRow) -> dict[str, Any]:
    beat = row.beat
    return {
        "board": board,
        "pool": beat.pool,
        "host": beat.host,
        "tenant": owner_of(beat.pool),
        "incarnation": beat.incarnation,
        "node": beat.node,
        "seen_at": row.seen_at,
        "gone": row.gone,
        "cpus": beat.cpus,
        "cpu_used": beat.cpu,
        "cpu_allocated": beat.allocated_cpu,
        "memory_mb": beat.memory_mb,
        "memory_mb_free": beat.free_mb,
        "memory_mb_allocated": beat.allocated_mb,
        "slots": sum(offer.slots for offer in beat.offers),
        "free": sum(offer.free for offer in beat.offers),
        "attempts": beat.holds,
        "offers": beat.offers,
    }
