"""Lists hosts and what attempts hold: who is there now by the beats, all else by the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from callboard.census import Census, take_census
from callboard.cli.holding import show_held, show_known
from callboard.cli.reaching import link_to, reach
from callboard.cli.screen import Cell, Screen
from callboard.cli.watching import watch
from callboard.connecting import locate
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects

__all__ = ["Asked", "list_held", "list_hosts", "show_census"]

_BLOCKED_SECONDS = 1.0  # that a loop does not answer for less, is nothing to be told


@dataclass(frozen=True, slots=True)
class Asked:
    """What of the allocations is asked for, whose, and how many rows of it at most."""

    question: dict[str, Any]
    tenant: str
    rows: int


async def list_hosts(
    screen: Screen, nats: str | None, prefix: str | None, *, every: bool, follow: bool
) -> None:
    """Those that are there; every: also who is silent or gone."""
    if every:
        async with reach(nats, prefix, name="callboard agents") as board:

            async def tell() -> bool:
                await show_known(screen, board)
                return True

            await watch(screen, tell, follow=follow)
        return
    place = locate(nats, prefix)
    async with link_to(place, name="callboard agents") as connection:

        async def show() -> bool:
            census = await take_census(connection, Topology(Subjects(place.prefix)))
            show_census(screen, census)
            return True

        await watch(screen, show, follow=follow)


async def list_held(
    screen: Screen, nats: str | None, prefix: str | None, asked: Asked, *, follow: bool
) -> None:
    """What attempts hold."""
    async with reach(nats, prefix, name="callboard agents") as board:

        async def tell() -> bool:
            await show_held(screen, board, asked.question, asked.tenant, asked.rows)
            return True

        await watch(screen, tell, follow=follow)


def show_census(screen: Screen, census: Census) -> None:
    """The table of hosts."""
    if screen.json:
        hosts = [
            {
                "host": seen.beat.host,
                "pool": seen.beat.pool,
                "node": seen.beat.node,
                "pid": seen.beat.pid,
                "running": len(seen.beat.holds),
                "cpu": round(seen.beat.cpu, 3),
                "memory_mb": round(seen.beat.memory_mb, 1),
                "allocated_cpu": round(seen.beat.allocated_cpu, 3),
                "allocated_mb": round(seen.beat.allocated_mb, 1),
                "blocked_seconds": round(seen.beat.blocked, 3),
                "layers": sorted(seen.beat.layers),
                "silent_seconds": round(seen.age, 3),
                "offers": seen.beat.offers,
            }
            for seen in census.hosts
        ]
        screen.document({"hosts": hosts})
        return
    if not census.hosts:
        screen.note("no host is there: start one with `callboard agents run MODULE`")
        return
    rows: list[list[Cell]] = [
        [
            seen.beat.host,
            seen.beat.pool,
            seen.beat.pid,
            len(seen.beat.holds),
            f"{seen.beat.memory_mb:.0f} MiB",
            f"{seen.age:.1f} s",
            f"{seen.beat.blocked:.0f} s" if seen.beat.blocked >= _BLOCKED_SECONDS else "",
            " ".join(sorted(offer.capability for offer in seen.beat.offers)),
        ]
        for seen in census.hosts
    ]
    columns = ("host", "pool", "pid#", "running#", "memory#", "silent#", "blocked#", "capabilities")
    screen.table(columns, rows, fold="capabilities")
