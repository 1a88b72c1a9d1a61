"""Waits for a task or workflow and shows its way: a live line on a terminal, else only its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any

import msgspec

from callboard.census import Census, take_census
from callboard.cli.chunks import Chunks
from callboard.cli.screen import Screen
from callboard_broker.client import Board
from callboard_broker.errors import TaskError
from callboard_broker.handle import Handle, Update
from callboard_broker.streams import Topology

__all__ = [
    "follow",
    "follow_or_name",
    "follow_to_end",
    "say_if_nobody_offers",
    "show_result",
    "unoffered",
]


async def say_if_nobody_offers(board: Board, capabilities: set[str], screen: Screen) -> None:
    """Note which capabilities no host offers at the moment: what needs them waits."""
    census = await take_census(board.connection, Topology(board.subjects))
    if missing := unoffered(census, capabilities):
        names = ", ".join(missing)
        screen.note(f"no agent offers {names} at the moment: it waits until one does")


def unoffered(census: Census, capabilities: Iterable[str]) -> list[str]:
    """Those of them that no host offers, nor a more general one; sorted."""
    offered = {offer.capability for seen in census.hosts for offer in seen.beat.offers}
    return sorted({name for name in capabilities if name and not any(_above(name, offered))})


def _above(capability: str, offered: set[str]) -> Iterator[str]:
    """Which of those offered may work on it: itself, or the more general ones above it."""
    parts = capability.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return (name for name in names if name in offered)


async def follow(handle: Handle, screen: Screen) -> int:
    """Print the result, or why there is none; return the exit code."""
    try:
        return await _follow(handle, screen)
    except asyncio.CancelledError:
        screen.note(f"it goes on without you: callboard status {handle.id}")
        raise


async def follow_or_name(handle: Handle, screen: Screen, *, wait: bool) -> int:
    """Follow what was posted, or print only its id; return the exit code."""
    if wait:
        return await follow(handle, screen)
    if screen.json:
        screen.document({"id": handle.id, "tenant": handle.tenant})
    else:
        screen.line(handle.id)
        if screen.terminal:
            screen.note(f"follow it: callboard status {handle.id}")
    return 0


async def follow_to_end(handle: Handle, screen: Screen) -> None:
    """Return when it has ended. Parts of its result are shown as they come; on a terminal a line
    tells how far it is, until the first of them."""
    steps: dict[str, str] = {}
    chunks = Chunks(handle.id, screen)
    live = screen.errors.is_terminal
    with screen.errors.status(f"{handle.id}: {handle.state}") if live else nullcontext() as status:
        async for update in handle:
            if update.chunk is not None:
                if status is not None:
                    status.stop()  # from here on, what comes is the sign of life
                chunks.write(update.chunk)
            elif status is not None:
                status.update(_progress(handle, update, steps))
    chunks.close()
    await handle.wait()


async def _follow(handle: Handle, screen: Screen) -> int:
    await follow_to_end(handle, screen)
    try:
        result = await handle.result()
    except TaskError as error:
        failure = handle.error
        if screen.json:
            screen.document({"id": handle.id, "state": handle.state, "error": failure})
        else:
            screen.note(f"callboard: {error}")
        return 1
    if screen.json:
        screen.document({"id": handle.id, "state": handle.state, "result": result})
    else:
        show_result(screen, result)
    return 0


def show_result(screen: Screen, result: Any) -> None:
    """A text as it is, everything else as JSON: indented for a person, one line in a pipe."""
    if isinstance(result, str):
        for line in result.splitlines():
            screen.line(line)
        return
    data = msgspec.json.encode(result)
    text = msgspec.json.format(data, indent=2) if screen.terminal else data
    for line in text.decode().splitlines():
        screen.line(line)


def _progress(handle: Handle, update: Update, steps: dict[str, str]) -> str:
    own = update.task == handle.id
    if not own and update.state is not None:
        steps[update.task] = update.state
    done = sum(state == "succeeded" for state in steps.values())
    running = sum(state == "running" for state in steps.values())
    counted = f" · {done} steps done, {running} running" if steps else ""
    told = "" if update.progress is None else f" · {msgspec.json.encode(update.progress).decode()}"
    return f"{handle.id}: {handle.state}{counted}{told[:60]}".replace("[", "(")
