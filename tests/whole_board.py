"""A whole board in the process of a test: router, ledger and host on its loop, quick to start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from callboard import Board, connect
from callboard_agents import Host, HostOptions, load
from callboard_agents.log_options import LogOptions
from callboard_broker.log_lines import LogBounds
from callboard_broker.wire import Limit
from callboard_ledger import LedgerOptions, run_ledger
from callboard_router.desk import Policy
from callboard_router.shell import RouterOptions, run_router
from tests.servers import NatsServer

__all__ = ["WholeBoard", "whole_board"]

_LIMITS = {"global": Limit(concurrency=100), "tenant": Limit(concurrency=100)}


@dataclass(slots=True)
class WholeBoard:
    """What a test asks, and may stop. board: a client of it."""

    board: Board
    nats: NatsServer
    options: LedgerOptions

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[None]:
        """A ledger that answers."""
        ready, stop = asyncio.Event(), asyncio.Event()
        running = asyncio.create_task(run_ledger(self.options, ready=ready.set, stop=stop))
        try:
            await _unless_over(running, ready)
            yield
        finally:
            stop.set()
            await running

    @asynccontextmanager
    async def host(
        self, module: str, *capabilities: str, log: LogOptions | None = None
    ) -> AsyncIterator[Host]:
        """A host with these agents of a module beside this file."""
        place = str(Path(__file__).parent / module)
        agents = [agent for agent in load([place]) if agent.capability in capabilities]
        options = HostOptions(
            url=self.nats.url,
            prefix=self.nats.prefix,
            name="host",
            beat_seconds=0.2,
            log=log or LogOptions(),
        )
        host = Host(agents, options, places=[place])
        running = asyncio.create_task(host.run())
        try:
            yield host
        finally:
            host.drain()
            await running


@asynccontextmanager
async def whole_board(nats: NatsServer, folder: Path) -> AsyncIterator[WholeBoard]:
    """A board with a router; the test opens its ledger and hosts."""
    ready = asyncio.Event()
    options = RouterOptions(
        url=nats.url, name="router", policy=Policy(limits=_LIMITS), prefix=nats.prefix
    )
    running = asyncio.create_task(run_router(options, ready=ready.set))
    try:
        await _unless_over(running, ready)
        ledger = LedgerOptions(
            url=nats.url, prefix=nats.prefix, store=folder / "ledger", log_bounds=LogBounds()
        )
        async with connect(nats.url, prefix=nats.prefix) as board:
            yield WholeBoard(board, nats, ledger)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def _unless_over(running: asyncio.Task[None], ready: asyncio.Event) -> None:
    """Wait until it is ready; raise what ended it before."""
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        waiting.cancel()
