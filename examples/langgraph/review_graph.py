"""A graph whose nodes are agents; run it where `callboard up --agents review_agents.py` runs.

It reviews files in parallel, asks, and goes on with the answer. Kill it at any moment and run it
again with the same thread: what was finished or runs is not done twice.
"""

from __future__ import annotations

import asyncio
import operator
import sys
from typing import Annotated, Any, TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from callboard import connect
from callboard.connecting import locate
from callboard_integrations.langgraph import JetStreamSaver, agent_node, durable


class Review(TypedDict, total=False):
    """The state of the graph."""

    files: list[str]
    results: Annotated[list[dict[str, Any]], operator.add]
    findings: list[str]
    approved: bool


async def main(thread: str) -> None:
    """Run the graph, answer its question, print what came of it."""
    place = locate()
    async with connect() as board, JetStreamSaver.from_url(place.url, prefix=place.prefix) as saver:
        review = agent_node("review.file", board=board)

        async def one(file: str) -> Review:
            return {"results": [await review.run(file)]}

        def gather(state: Review) -> Review:
            return {"findings": [text for each in state["results"] for text in each["findings"]]}

        graph = StateGraph(Review)
        graph.add_node("one", one)
        graph.add_node("gather", gather)
        graph.add_node("publish", agent_node("review.publish", board=board, reads=["findings"]))
        graph.add_conditional_edges(
            START, lambda state: [Send("one", file) for file in state["files"]], ["one"]
        )
        graph.add_edge("one", "gather")
        graph.add_edge("gather", "publish")
        run = durable(graph.compile(checkpointer=saver))

        config: Any = {"configurable": {"thread_id": thread}}
        out = await run.ainvoke({"files": ["a.py", "b.py", "c.py"]}, config)
        print("asked:", out["__interrupt__"][0].value)
        out = await run.ainvoke(Command(resume=True), config)
        print("approved:", out["approved"], out["findings"])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "review"))
