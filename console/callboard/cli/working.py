"""A host inside a command: it offers the command's own agents while something is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from callboard_agents import Agent, Host, HostOptions

__all__ = ["working"]


@asynccontextmanager
async def working(agents: Sequence[Agent[..., Any]], options: HostOptions) -> AsyncIterator[None]:
    """A host in this process, until the block ends and what runs has finished."""
    host = Host(agents, options)
    async with asyncio.TaskGroup() as group:
        group.create_task(host.run())
        await host.ready()
        try:
            yield
        finally:
            host.drain()
