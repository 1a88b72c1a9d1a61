"""A graph of agent nodes as a workflow: equal values without barriers, or each reason why not."""

from __future__ import annotations

import asyncio
import operator
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.types import RetryPolicy

from callboard import agent
from callboard.testing import memory_board, virtual_time
from callboard_broker.client import Board
from callboard_integrations.langgraph import NotMappable, agent_node, workflow_from_graph


class State(TypedDict, total=False):
    topic: str
    plan: str
    left: str
    right: str
    late: str
    book: str
    pages: Annotated[list[str], operator.add]


@agent("slow")
async def slow(text: str) -> str:
    await asyncio.sleep(100)
    return f"slow({text})"


@agent("fast")
async def fast(text: str) -> str:
    await asyncio.sleep(1)
    return f"fast({text})"


@agent("join")
async def join(parts: dict[str, str]) -> str:
    return "+".join(parts[name] for name in sorted(parts))


def book(board: Board | None) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(State)
    nodes = {
        "plan": agent_node("fast", board=board, reads="topic", writes="plan"),
        "left": agent_node("slow", board=board, reads="plan", writes="left"),
        "right": agent_node("fast", board=board, reads="plan", writes="right"),
        "late": agent_node("slow", board=board, reads="right", writes="late"),
        "again": agent_node("fast", board=board, reads="plan", writes="plan"),
        "book": agent_node("join", board=board, reads=["left", "late", "topic"], writes="book"),
    }
    for name, node in nodes.items():
        graph.add_node(name, node)
    graph.add_edge(START, "plan")
    for name in ("left", "right"):
        graph.add_edge("plan", name)
    graph.add_edge("right", "late")
    graph.add_edge(["left", "late"], "book")
    graph.add_edge("book", "again")
    graph.add_edge("again", END)
    return graph


@virtual_time
async def test_a_workflow_gives_what_the_graph_gives_and_waits_for_no_superstep():
    async with memory_board([slow, fast, join]) as board:
        begun = board.now()
        wanted = await book(board).compile().ainvoke({"topic": "cats"})
        graph_seconds = (board.now() - begun).total_seconds()
        begun = board.now()
        handle = await board.run(workflow_from_graph(book(None)), {"topic": "cats"})
        found = await handle.result()
        seconds = (board.now() - begun).total_seconds()
    assert found == {key: value for key, value in wanted.items() if key != "pages"}
    assert found["book"] == "slow(fast(fast(cats)))+slow(fast(cats))+cats"
    # late follows right, which takes a second, and not left, which takes a hundred
    assert seconds == pytest.approx(103, abs=1)
    assert graph_seconds == pytest.approx(202, abs=1)


def reasons_of(change: Any) -> list[str]:
    graph = book(None)
    change(graph)
    with pytest.raises(NotMappable) as refused:
        workflow_from_graph(graph)
    assert all(reason in str(refused.value) for reason in refused.value.reasons)
    return refused.value.reasons


def test_every_obstacle_is_named_at_once():
    def change(graph: StateGraph[Any, Any, Any, Any]) -> None:
        graph.add_node("code", lambda state: state)
        graph.add_node("whole", agent_node("fast"), defer=True)
        graph.add_node("pages", agent_node("fast", reads="topic", writes="pages", delay=3))
        patient = agent_node("fast", reads="topic", writes="left")
        graph.add_node("patient", patient, retry_policy=RetryPolicy())
        for name in ("code", "whole", "pages", "patient"):
            graph.add_edge(START, name)
        graph.add_edge("again", "plan")
        graph.add_conditional_edges("code", lambda _state: END, [END])

    reasons = reasons_of(change)
    for text in (
        "successors of code are chosen by Python code",
        "lead back to themselves",
        "code is Python code of this process",
        "whole reads the whole state",
        "whole may write any key",
        "whole is deferred",
        "pages writes pages, which is joined by a reducer",
        "pages has options that no step has: delay",
        "patient has a retry or timeout policy",
    ):
        assert sum(text in reason for reason in reasons) == 1, (text, reasons)


def test_what_only_supersteps_decide_is_named():
    def change(graph: StateGraph[Any, Any, Any, Any]) -> None:
        graph.add_node("other", agent_node("fast", reads="topic", writes="plan"))
        graph.add_node("twice", agent_node("fast", reads="topic", writes="right"))
        graph.add_edge(START, "other")
        graph.add_edge("plan", "twice")
        graph.add_edge("late", "twice")

    reasons = reasons_of(change)
    for text in (
        "twice would run once for each edge",
        "left reads plan, and no edge says whether other writes it first",
        "several nodes write plan last",
    ):
        assert any(text in reason for reason in reasons), (text, reasons)
