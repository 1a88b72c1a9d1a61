"""Runs the pages graph in a process of its own, from the start or from its checkpoint."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from callboard import connect
from callboard_integrations.langgraph import JetStreamSaver, agent_node
from tests.langgraph_agents import ListNode, pages


async def main(url: str, thread: str, begin: str) -> None:
    async with connect(url) as board, JetStreamSaver.from_url(url) as saver:
        graph = pages(ListNode(agent_node("door", board=board))).compile(checkpointer=saver)
        config: Any = {"configurable": {"thread_id": thread}}
        out = await graph.ainvoke(json.loads(begin), config, durability="sync")
        print(json.dumps(out), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
