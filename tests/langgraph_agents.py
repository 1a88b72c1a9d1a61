"""Agents that graphs of the tests use; each run of a handler is a line of the table outside."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt

from callboard import Context, agent

FOLDER = Path(os.environ.get("LANGGRAPH_FOLDER", "."))


def mark(word: str) -> None:
    with (FOLDER / "table").open("a") as table:
        table.write(f"{word}\n")


async def opened(name: str, ctx: Context) -> None:
    """Wait until the test opens this door, and say so, but at doors of silence."""
    while not (FOLDER / name).exists():  # a file tells nobody that it has come
        if name != "silence":
            ctx.progress("waiting")
        await asyncio.sleep(0.02)


@agent("double", slots=200)
async def double(value: int, ctx: Context) -> int:
    mark(f"double {value}")
    ctx.progress({"half": value})
    return 2 * value


@agent("door", slots=200)
async def door(payload: dict[str, Any], ctx: Context) -> str:
    """Runs until its door is open; says so when it is cancelled."""
    mark(f"door {payload['name']} begins")
    try:
        await opened(payload["door"], ctx)
    except asyncio.CancelledError:
        mark(f"door {payload['name']} cancelled")
        raise
    mark(f"door {payload['name']} ends")
    return f"through {payload['name']}"


@agent("beating")
async def beating(seconds: float, ctx: Context) -> str:
    """Works for a while and says often that it does."""
    for number in range(int(seconds * 20)):
        ctx.progress(number)
        await asyncio.sleep(0.05)
    return "done"


@agent("fails")
async def fails(payload: dict[str, Any]) -> str:
    """Fails as long as its door is closed."""
    mark(f"fails {payload['name']}")
    if not (FOLDER / payload["door"]).exists():
        raise KeyError(payload["name"])
    return "recovered"


class Form(TypedDict, total=False):
    topic: str
    outline: str
    pages: Annotated[list[str], lambda old, new: (old or []) + (new or [])]
    approved: str
    door: str


def outline(state: Form) -> Form:
    mark("outline")
    get_stream_writer()({"outlined": state["topic"]})
    return {"outline": f"outline of {state['topic']}"}


def ask(state: Form) -> Form:
    return {"approved": interrupt({"approve": state["outline"]})}


async def local(_state: Form) -> Form:
    mark("local")
    return {"pages": ["local"]}


def spread(state: Form) -> list[Send]:
    return [
        Send("page", {"name": f"p{number}", "door": f"{state['door']}{number % 2}"})
        for number in range(6)
    ]


def pages(node: Any) -> StateGraph[Any, Any, Any, Any]:
    """A first step, then one superstep of a local node and six remote tasks at two doors."""
    graph = StateGraph(Form)
    graph.add_node("outline", outline)
    graph.add_node("local", local)
    graph.add_node("page", node)
    graph.add_edge(START, "outline")
    graph.add_edge("outline", "local")
    graph.add_conditional_edges("outline", spread, ["page"])
    graph.add_edge("page", END)
    return graph


class ListNode:
    """A node whose result is a list of one, for a reducer that adds lists."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self.__name__ = "page"

    async def __call__(self, state: Any) -> Form:
        return {"pages": [await self._node.run(state)]}
