"""Agents that say something, for tests of the lines of handlers."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from callboard import Context, agent


@agent("log.inline")
async def inline(_payload: object, ctx: Context) -> str:
    ctx.log.debug("nobody hears this")
    ctx.log.info("first of %d", 3, extra={"files": 7})
    ctx.log.warning("second \x1b[31m")
    try:
        raise ValueError("what went wrong")
    except ValueError:
        ctx.log.exception("third")
    return ctx.trace


@agent("log.thread")
def thread(_payload: object, ctx: Context) -> str:
    for number in range(3):
        ctx.log.info("thread %d", number)
    return ctx.trace


@agent("log.process", isolation="process")
def process(_payload: object, ctx: Context) -> str:
    ctx.log.info("in a child", extra={"files": 7})
    print("printed")
    print("to the other one", file=sys.stderr)
    logging.getLogger("library").warning("from a library")
    print("without an end", end="")
    return ctx.trace


@agent("log.odd", isolation="process")
def odd(lines: int, ctx: Context) -> None:
    """What a child may say is bounded by its host; it must not be killed for saying it."""
    nothing: Any = ["no", "mapping"]
    ctx.log.log(5000, "loud", extra=nothing)
    ctx.log.info("deep", extra={"deep": json.loads("[" * 100 + "]" * 100)})
    ctx.log.info("long %s", "\x00" * 100_000, extra={"long": "\x01" * 50_000})
    ctx.log.info("%d files", "three")
    logging.getLogger("\ud800" * 300).warning("\ud800")
    print("x" * 20_000)
    for number in range(lines):
        print(number)


@agent("log.parent")
async def parent(_payload: object, ctx: Context) -> list[str]:
    ctx.log.info("spawning")
    child = await ctx.spawn("log.middle")
    return [ctx.trace, *await child.result()]


@agent("log.middle")
async def middle(_payload: object, ctx: Context) -> list[str]:
    ctx.log.info("spawning again")
    child = await ctx.spawn("log.process")
    return [ctx.trace, await child.result()]


@agent("log.flood")
async def flood(lines: int, ctx: Context) -> None:
    for number in range(lines):
        ctx.log.info("line %d", number)


@agent("log.silent")
async def silent(_payload: object, ctx: Context) -> str:
    return ctx.workflow


@agent("log.twice")
async def twice(_payload: object, ctx: Context) -> None:
    ctx.log.info("attempt %d", ctx.attempt)
    if ctx.attempt == 1:
        raise ValueError("not yet")


@agent("log.patient")
async def patient(_payload: object, ctx: Context) -> None:
    ctx.log.info("begun")
    await asyncio.Event().wait()


@agent("log.slowly")
async def slowly(lines: int, ctx: Context) -> None:
    for number in range(lines):
        ctx.log.info("line %d", number)
        await asyncio.sleep(0.02)
