"""Agents for the tests of the client: one that tells, one that waits, one with a long result."""

from __future__ import annotations

import asyncio
from pathlib import Path

from callboard import Context, agent


@agent("talk.slowly")
async def slowly(payload: dict[str, int], ctx: Context) -> str:
    """Tell of each step."""
    for done in range(payload["steps"]):
        await ctx.progress({"done": done})
    return "told"


@agent("wait.for")
async def wait_for(payload: dict[str, str]) -> str:
    """Return when a file is there."""
    while not Path(payload["file"]).exists():  # noqa: ASYNC110, ASYNC240  a file tells nobody
        await asyncio.sleep(0.02)
    return payload["file"]


@agent("long.result")
async def long_result(payload: dict[str, int]) -> str:
    """Return as much as is wanted."""
    return "x" * payload["bytes"]


@agent("count.bytes")
async def count_bytes(payload: dict[str, str]) -> int:
    """Return how long the text is."""
    return len(payload["text"])


@agent("list.numbers")
def numbers(payload: dict[str, int]) -> list[dict[str, int]]:
    """Return a list to fan out over."""
    return [{"n": number} for number in range(payload["upto"])]


@agent("square", slots=4)
async def square(payload: dict[str, int]) -> int:
    """Refuse 13, square everything else."""
    if payload["n"] == 13:
        raise ValueError("13 is out of luck")
    return payload["n"] ** 2


@agent("add.up")
async def add_up(payload: dict[str, list[int]]) -> int:
    """Return the sum."""
    return sum(payload["numbers"])
