"""Agents for hosts in processes of their own; a named pipe says when a handler may go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from callboard_agents import Context, agent


@agent("echo")
async def echo(value: object) -> object:
    """Return the payload."""
    return value


@agent("block")
async def block(pipe: str) -> str:
    """Block the host's loop until the pipe is written."""
    return Path(pipe).read_text(encoding="utf-8")  # noqa: ASYNC240  blocking is the point


@agent("wait")
async def wait(pipe: str) -> str:
    """Wait, as a coroutine should, until the pipe is written."""
    return await asyncio.to_thread(Path(pipe).read_text, encoding="utf-8")


@agent("thread")
def thread(pipe: str, ctx: Context) -> str:
    """Wait in a thread until the pipe is written."""
    ctx.progress("waiting")
    return Path(pipe).read_text(encoding="utf-8")


@agent("forever")
async def forever() -> None:
    """Run until stopped."""
    await asyncio.Event().wait()


@agent("stubborn", slots=2)
def stubborn(pipe: str) -> None:
    """Never end, whatever is asked."""
    while True:
        Path(pipe).read_text(encoding="utf-8")
