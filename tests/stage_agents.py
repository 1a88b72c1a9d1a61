"""Agents for hosts in processes of their own; a named pipe says when a handler may go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from callboard_agents import Context, agent


def read(pipe: str) -> str:
    """Wait until a line is written into the pipe."""
    with Path(pipe).open(encoding="utf-8") as lines:
        return lines.readline().strip()


@agent("echo")
async def echo(value: object) -> object:
    """Return the payload."""
    return value


@agent("block")
async def block(pipe: str) -> str:
    """Block the host's loop until the pipe is written."""
    return read(pipe)


@agent("wait")
async def wait(pipe: str) -> str:
    """Wait, as a coroutine should, until the pipe is written."""
    return await asyncio.to_thread(read, pipe)


@agent("thread")
def thread(pipe: str, ctx: Context) -> str:
    """Wait in a thread until the pipe is written."""
    ctx.progress("waiting")
    return read(pipe)


@agent("forever")
async def forever() -> None:
    """Run until stopped."""
    await asyncio.Event().wait()


@agent("stubborn", slots=2)
def stubborn(pipe: str) -> None:
    """Never end, whatever is asked."""
    while True:
        read(pipe)
