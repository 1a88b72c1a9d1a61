"""Agents that mark each start in an outside table: one appended line, which nothing can tear."""

from __future__ import annotations

import asyncio
import os

import msgspec

from callboard import Context, agent

TABLE = os.environ["MARKING_TABLE"]


class Work(msgspec.Struct):
    """What is to be marked."""

    n: int


@agent("mark.work", slots=20)
async def work(payload: Work, ctx: Context) -> int:
    """Mark the start, take a little while, return what came."""
    _mark(ctx)
    await asyncio.sleep(0.03)
    return payload.n


@agent("mark.slow", slots=250)
async def slow(payload: Work, ctx: Context) -> int:
    """Do the same, but take longer than a cluster needs to elect a leader."""
    _mark(ctx)
    await asyncio.sleep(10)
    return payload.n


def _mark(ctx: Context) -> None:
    table = os.open(TABLE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(table, f"{ctx.task} {ctx.attempt} {os.getpid()}\n".encode())
    os.close(table)
