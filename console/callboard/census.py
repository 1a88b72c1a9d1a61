"""Who is there: the last beat of every host and router, read from the BEATS stream.

By the same fold as the ledger's: this is the live truth of it, also while no ledger runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from callboard_broker.beats import ROUTERS
from callboard_broker.connection import Connection
from callboard_broker.errors import BadInput
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, last_sequence
from callboard_broker.wire import Beat, decode_beat
from callboard_ledger.hosts import Hosts

__all__ = ["Census", "Seen", "hosts_there", "take_census"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One beat. age: seconds since the server stored it."""

    beat: Beat
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """hosts, routers: by name; those that said goodbye are left out."""

    hosts: list[Seen]
    routers: list[Seen]


async def take_census(
    connection: Connection, topology: Topology, *, within: float = 20.0
) -> Census:
    """Read the beats that are younger than `within` seconds. Raises `StreamMissing`."""
    hosts = Hosts(topology.subjects.prefix)
    last, now_ms = await last_sequence(connection, topology.beats)

    def hear(records: list[Record]) -> None:
        for record in records:
            hosts.apply(record)

    async with Reader(connection, topology.beats, start=1, callback=hear) as reader:
        await reader.reached(last)
    seen = [
        Seen(beat=row.beat, age=max(0, now_ms - row.seen_at) / 1000)
        for _, row in sorted(hosts.rows.items())
        if not row.gone
    ]
    alive = [found for found in seen if found.age <= within]
    return Census(
        hosts=[found for found in alive if found.beat.pool != ROUTERS],
        routers=[found for found in alive if found.beat.pool == ROUTERS],
    )


async def hosts_there(connection: Connection, topology: Topology, names: Collection[str]) -> None:
    """Return when every host of `names` has said that it is there. Raises `StreamMissing`."""
    missing = set(names)
    there = asyncio.Event()

    def hear(records: list[Record]) -> None:
        for record in records:
            try:
                beat = decode_beat(record.data)
            except BadInput:
                continue
            if not beat.gone:
                missing.discard(beat.host)
        if not missing:
            there.set()

    async with Reader(connection, topology.beats, start=1, callback=hear):
        await there.wait()
