"""Agents with lifespans and middleware, in children and in the host, for tests of both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from callboard import Call, Context, Middleware, Next, agent, lifespan

state: dict[str, Any] = {"loaded": 0}


@lifespan
def model() -> Iterator[None]:
    """The file, if the test has made one, tells that it was left."""
    state["loaded"] += 1
    state["set_up_in"] = os.getpid()
    if Path(__file__).with_suffix(".broken").exists():
        raise OSError("no such model")
    yield
    state["loaded"] -= 1


class Stamp(Middleware):
    """It adds where the chain runs."""

    async def attempt(self, call: Call, following: Next) -> Any:
        """Around the handler, in its own process."""
        result = await following(call.with_payload({"n": call.payload["n"] + 1}))
        return {**result, "chain": os.getpid(), "attempt": call.attempt, "task": call.task}


middleware = [Stamp()]


@agent("hooked.child", isolation="process")
def in_child(payload: dict[str, int]) -> dict[str, Any]:
    return {"n": payload["n"], "pid": os.getpid(), **state}


@agent("hooked.async", isolation="process")
async def in_child_async(payload: dict[str, int], ctx: Context) -> dict[str, Any]:
    return {"n": payload["n"], "pid": os.getpid(), "tenant": ctx.tenant, **state}


@agent("hooked.thread")
def in_thread(payload: dict[str, int]) -> dict[str, Any]:
    return {"n": payload["n"], "pid": os.getpid(), **state}


@agent("hooked.class", isolation="process")
class Counter:
    """Entered once, before any child is forked."""

    def __init__(self) -> None:
        self.entered = 0

    def __enter__(self) -> Self:
        self.entered += 1
        return self

    def __exit__(self, *_raised: object) -> None:
        self.entered -= 1

    def __call__(self, payload: dict[str, int]) -> dict[str, Any]:
        return {"n": payload["n"], "entered": self.entered}
