"""Agents for the graph in `review_graph.py`: `callboard up --agents review_agents.py`."""

from __future__ import annotations

from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import interrupt

from callboard import Context, agent
from callboard_integrations.langgraph import graph_agent


@agent("review.file", slots=50)
async def review(file: str, ctx: Context) -> dict[str, object]:
    """Review one file; up to 50 at once in one host."""
    ctx.progress({"reviewing": file})
    return {"file": file, "findings": [f"{file} has no docstring"] if "b" in file else []}


class Release(TypedDict, total=False):
    """What the publishing graph knows."""

    findings: list[str]
    approved: bool


def ask(state: Release) -> Release:
    """Ask a person; the task ends with the question, and another goes on with the answer."""
    return {"approved": interrupt({"publish": state["findings"]})}


publishing = StateGraph(Release)
publishing.add_node("ask", ask)
publishing.add_edge(START, "ask")

publish = graph_agent(publishing, capability="review.publish")
