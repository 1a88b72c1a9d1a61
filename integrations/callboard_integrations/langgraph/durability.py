"""Remote work needs `durability="sync"`: what a node was about to do is stored before it does it.

With the default a superstep may be under way before its checkpoint is stored. After a crash the
graph then starts from an older one, its tasks have other ids, and what was posted runs twice.
"""

from __future__ import annotations

from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig

from callboard_integrations.langgraph.errors import DurabilityRefused

__all__ = ["check_durability", "durable"]

_KEY = "__pregel_durability"  # where LangGraph itself hands it to subgraphs

G = TypeVar("G", bound=Any)


def durable(graph: G) -> G:
    """The same graph, with `durability="sync"` unless a call says otherwise."""
    run: G = graph.with_config({"configurable": {_KEY: "sync"}})
    return run


def check_durability(config: RunnableConfig, node: str) -> None:
    """Raise `DurabilityRefused` where checkpoints are kept, and may be late."""
    asked = config.get("configurable", {})
    if asked.get("__pregel_checkpointer") is None and not asked.get("thread_id"):
        return  # nothing is kept, so nothing is resumed
    found = asked.get(_KEY, "async")
    if found != "sync":
        raise DurabilityRefused(node, found)
