"""The hosts of a board in memory: each begins again when it was lost, as under a supervisor."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from callboard.testing.memory_host import MemoryHost, Surroundings
from callboard.testing.memory_router import MemoryRouter
from callboard_agents.agent import Agent
from callboard_agents.options import HostOptions
from callboard_broker.wire import Beat
from callboard_config import Settings

__all__ = ["MemoryCrew"]


class MemoryCrew:
    """All hosts, by pool and name."""

    def __init__(
        self, agents: Sequence[Agent[..., Any]], settings: Settings, around: Surroundings
    ) -> None:
        self._agents = agents
        self._settings = settings
        self._around = around
        self._hosts: dict[tuple[str, str], MemoryHost] = {}
        self._lives = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._group: asyncio.TaskGroup | None = None
        self._router: MemoryRouter | None = None

    def beats(self) -> Iterator[Beat]:
        """What every living host would say now."""
        for host in self._hosts.values():
            if host.ready.is_set():
                yield host.beat()

    @asynccontextmanager
    async def working(
        self, router: MemoryRouter, pools: Sequence[str], count: int
    ) -> AsyncIterator[None]:
        """Start `count` hosts in each pool; they end with the block."""
        self._router = router
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                if self._agents:
                    for pool in pools:
                        for number in range(count):
                            await self._begin(pool, f"host-{number}")
                yield
            finally:
                for task in self._tasks:
                    task.cancel()

    async def lose(self, name: str | None, *, silent: bool) -> str:
        """Kill a host and begin another; return its name. Raises `LookupError`."""
        router = self._router
        found = [host for (_, own), host in self._hosts.items() if name in (None, own)]
        if not found or router is None:
            there = ", ".join(sorted({own for _, own in self._hosts})) or "none"
            raise LookupError(f"there is no host {name!r}; hosts: {there}")
        host = max(found, key=lambda one: one.busy)
        now = router.now()
        router.engine.heard(host.beat(), at=now)  # what it had begun, the board knows
        host.kill()
        del self._hosts[host.options.pool, host.options.name]
        if not silent:
            router.engine.heard(host.beat(gone=True), at=now)
        router.hosts_changed()
        await self._begin(host.options.pool, host.options.name if not silent else self._another())
        return host.options.name

    def _another(self) -> str:
        """A name that no host has had: a new incarnation of the old one would prove its death."""
        return f"host-again-{next(self._lives)}"

    async def _begin(self, pool: str, name: str) -> None:
        settings = self._settings
        options = HostOptions(
            url="memory:",
            pool=pool,
            name=name,
            incarnation=f"{name}-{next(self._lives)}",
            lease_seconds=settings.lease.lease_seconds,
            beat_seconds=settings.lease.beat_seconds,
            blob_bytes=settings.payload.blob_bytes,
            slots_inline=settings.agents.slots_inline,
            slots_thread=settings.agents.slots_thread,
            timeout_seconds=settings.agents.timeout_seconds,
        )
        host = MemoryHost(self._agents, options, self._around)
        if self._group is None or self._router is None:
            raise RuntimeError("the hosts of this board have ended")
        self._hosts[pool, name] = host
        task = self._group.create_task(host.run(), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await host.ready.wait()
        self._router.hosts_changed()
