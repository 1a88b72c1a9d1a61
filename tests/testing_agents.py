"""Agents for the tests of the harness, which run in memory and on a real board alike."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from callboard import Context, GiveUp, agent


@dataclass
class Order:
    """A typed payload."""

    item: str
    count: int = 1


@agent("double")
async def double(payload: int) -> int:
    """Return twice as much."""
    return 2 * payload


@agent("plain")
def plain(order: Order, ctx: Context) -> str:
    """A plain function, in a thread."""
    ctx.progress({"item": order.item})
    return f"{order.count} x {order.item} ({ctx.attempt})"


@agent("counter")
class Counter:
    """A class: one instance for all attempts of a host."""

    def __init__(self) -> None:
        self.step = 1

    async def __call__(self, payload: int) -> int:
        return payload + self.step


@agent("isolated", isolation="process")
def isolated(payload: int) -> int:
    """In production, in a child process."""
    return -payload


@agent("flaky")
async def flaky(payload: dict[str, int], ctx: Context) -> int:
    """Fail so many times, then return the attempt."""
    if ctx.attempt <= payload["failures"]:
        raise ValueError(f"attempt {ctx.attempt} fails")
    return ctx.attempt


@agent("hopeless")
async def hopeless() -> None:
    """Say that no other attempt helps."""
    raise GiveUp("never")


@agent("odd.result")
async def odd_result() -> Any:
    """Return what JSON cannot hold."""
    return object()


@agent("long", timeout=3600)
async def long(payload: float) -> str:
    """Take as many seconds as it is told."""
    await asyncio.sleep(payload)
    return "slept"


@agent("parent")
async def parent(payload: list[int], ctx: Context) -> list[int]:
    """Let children double every number."""
    children = [await ctx.spawn("double", number) for number in payload]
    return [await child.result() for child in children]


@agent("parent.plain")
def plain_parent(payload: list[int], ctx: Context) -> list[int]:
    """The same from a thread."""
    children = [ctx.wait(ctx.spawn("double", number)) for number in payload]
    return [ctx.wait(child.result()) for child in children]


@agent("numbers")
async def numbers(payload: int) -> list[int]:
    """Return a list to fan out over."""
    return list(range(payload))


@agent("picky")
async def picky(payload: int) -> int:
    """Refuse 2."""
    if payload == 2:
        raise ValueError("2 is not to be had")
    return payload


@agent("sum.up")
async def sum_up(payload: list[int | None]) -> int:
    """Return the sum of what is there."""
    return sum(number for number in payload if number is not None)


@agent("undo")
async def undo(payload: Any) -> str:
    """Compensate something."""
    return f"undone {payload}"
