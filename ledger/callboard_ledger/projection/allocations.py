"""What hosts have to give and have promised, as their beats say; one row a host.

Beats are no events: only the last one of a host counts, and one that could not be written is
replaced by the next.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from callboard_broker.beats import Beat, decode_beat
from callboard_broker.connection import ApiError, Connection, NoResponder
from callboard_broker.errors import (
    BadInput,
    BoardUnreachable,
    StreamMissing,
    TargetAway,
    TargetRefused,
)
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, last_sequence
from callboard_ledger.projection.documents import without_nul
from callboard_ledger.projection.target import Target

__all__ = ["Allocations"]

_log = logging.getLogger(__name__)

_ROUTERS = "router"
_SHARED = "shared"
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
        self._position = 0

    async def write(self) -> None:
        """Never raises for a server or a database that is away."""
        try:
            beats = await self._heard()
            rows = [_row(self._topology.subjects.prefix, *heard) for heard in beats.values()]
            for start in range(0, len(rows), _PAGE):
                document = without_nul(_encoder.encode(rows[start : start + _PAGE]))
                await self._target.call("callboard_observe", document.decode())
        except (TargetAway, BoardUnreachable, NoResponder, StreamMissing, TimeoutError) as error:
            _log.debug("allocations are not written now: %s", error)
        except (TargetRefused, ApiError) as error:
            _log.warning("allocations are not written: %s", error)

    async def _heard(self) -> dict[tuple[str, str], tuple[Beat, int]]:
        beats: dict[tuple[str, str], tuple[Beat, int]] = {}
        last, _ = await last_sequence(self._connection, self._topology.beats)
        if last <= self._position:
            return beats

        def hear(records: list[Record]) -> None:
            for record in records:
                try:
                    beat = decode_beat(record.data)
                except BadInput:
                    continue  # a beat that nobody can read is nobody's
                if beat.pool != _ROUTERS:
                    beats[beat.pool, beat.host] = beat, record.at_ns // 1_000_000

        start = self._position + 1
        async with (
            asyncio.timeout(_READ_SECONDS),
            Reader(self._connection, self._topology.beats, start=start, callback=hear) as reader,
        ):
            await reader.reached(last)
        self._position = last
        return beats


def _row(board: str, beat: Beat, at_ms: int) -> dict[str, Any]:
    return {
        "board": board,
        "pool": beat.pool,
        "host": beat.host,
        "tenant": "" if beat.pool == _SHARED else beat.pool,
        "incarnation": beat.incarnation,
        "node": beat.node,
        "seen_at": at_ms,
        "gone": beat.gone,
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
