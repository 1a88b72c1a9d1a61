"""What the differential test does on any board, in memory or real: tasks, workflows, commands.

It returns what a user can see of the ends: states, results and the types of errors.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from callboard import Board, Handle, Retry, Timeouts, Workflow

__all__ = ["ends_of_everything"]

_AT_ONCE = Retry(attempts=3, delay=0.01)


async def ends_of_everything(board: Board) -> dict[str, Any]:
    """Post everything at once, wait for all, and say how each ended."""
    handles = {**await _tasks(board), **await _workflows(board)}
    await _commands(board, handles)
    found = {name: await _end(handle) for name, handle in handles.items()}
    found["redriven"] = await _redriven(board, handles["bad payload"])
    found["resumed"] = await _resumed(board)
    found["steps"] = {
        name: await _steps(board, handle.id)
        for name, handle in handles.items()
        if name.startswith("flow ")
    }
    return found


async def _tasks(board: Board) -> dict[str, Handle]:
    return {
        "async": await board.submit("double", 21),
        "plain": await board.submit("plain", {"item": "tea", "count": 3}),
        "class": await board.submit("counter", 1),
        "isolated": await board.submit("isolated", 5),
        "bad payload": await board.submit("plain", {"count": 3}),
        "retried": await board.submit("flaky", {"failures": 2}, retry=_AT_ONCE),
        "not retried": await board.submit("flaky", {"failures": 1}),
        "gave up": await board.submit("hopeless", retry=_AT_ONCE),
        "odd result": await board.submit("odd.result"),
        "timed out": await board.submit("long", 30, timeout=0.2),
        "silent": await board.submit("long", 30, timeouts=Timeouts(heartbeat=0.2)),
        "unserved": await board.submit("nobody", timeouts=Timeouts(queue=0.3)),
        "cancelled": await board.submit("double", 1, delay=600),
        "delayed": await board.submit("double", 4, delay=0.2),
        "parent": await board.submit("parent", [1, 2, 3]),
        "plain parent": await board.submit("parent.plain", [4, 5]),
        "first of key": await board.submit("double", 6, key="same"),
        "second of key": await board.submit("double", 7, key="same"),
        "long payload": await board.submit("sum.up", [1] * 200_000),
    }


async def _workflows(board: Board) -> dict[str, Handle]:
    fan = Workflow("fan")
    listed = fan.step("list", "numbers", fan.inputs["n"])
    doubled = fan.step("double", "double", fan.item, each=listed, at_once=2)
    fan.step("sum", "sum.up", doubled)

    joins = Workflow("joins")
    good = joins.step("good", "picky", 1)
    bad = joins.step("bad", "picky", 2)
    joins.step("any", "double", 1, after=[good, bad], join="any")
    joins.step("best", "double", 2, after=[good, bad], join="best_effort")

    elements = Workflow("k of n")
    three = elements.step("three", "numbers", 3)
    some = elements.step("some", "picky", elements.item, each=three)
    elements.step("two", "sum.up", some, join=2)

    undone = Workflow("compensated")
    booked = undone.step("book", "double", 4, compensate=("undo", "the booking"))
    undone.step("fail", "picky", 2, after=[booked])

    chosen = Workflow("condition")
    number = chosen.step("number", "double", 1)
    chosen.step("never", "double", 9, when=number.equals(3))
    chosen.step("always", "double", 5, when=number.equals(2))

    gated = Workflow("gated")
    asked = gated.gate("ask", prompt="Go on?")
    told = gated.signal("told", after=[asked])
    gated.step("end", "double", told)

    refused = Workflow("refused")
    refused.gate("ask")
    inner = Workflow("outer")
    inner.sub("inside", fan, {"n": 2})
    return {
        "flow fan": await board.run(fan, {"n": 4}),
        "flow joins": await board.run(joins),
        "flow k of n": await board.run(elements),
        "flow compensated": await board.run(undone),
        "flow condition": await board.run(chosen),
        "flow gated": await board.run(gated),
        "flow refused": await board.run(refused),
        "flow outer": await board.run(inner),
    }


async def _commands(board: Board, handles: dict[str, Handle]) -> None:
    await handles["cancelled"].cancel("not needed")
    gated = handles["flow gated"].id
    await board.signal(gated, "told", 8)
    await board.approve(gated, reason="fine")
    await board.approve(handles["flow refused"].id, approved=False)


async def _end(handle: Handle) -> list[Any]:
    async with asyncio.timeout(60):
        state = await handle.wait()
    if state == "succeeded":
        return [state, await handle.result()]
    error = handle.error
    return [state, None if error is None else [error.type, error.field]]


async def _redriven(board: Board, handle: Handle) -> list[Any]:
    await board.redrive(handle.id, {"item": "milk"})
    end = await _end(await board.handle(handle.id))
    return [end[0], end[1].partition(" (")[0]]


async def _resumed(board: Board) -> list[Any]:
    """What has failed is paused and resumed, with other inputs."""
    flow = Workflow("picky")
    first = flow.step("first", "double", 1)
    flow.step("second", "picky", flow.inputs["n"], after=[first])
    handle = await board.run(flow, {"n": 2})
    before = await _end(handle)
    await board.resume(handle.id, inputs={"n": 3})
    return [before, await _end(await board.handle(handle.id))]


async def _steps(board: Board, flow: str) -> dict[str, list[Any]]:
    view = msgspec.json.decode(await board.ask("status", {"id": flow, "fresh": True}))
    return {
        step["id"]: [step["state"], step["total"], step["succeeded"], step.get("skipped", 0)]
        for step in view["steps"]
    }
