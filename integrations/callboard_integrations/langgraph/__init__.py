"""LangGraph on Callboard: graphs whose nodes are agents, and whose state is in JetStream.

    from callboard_integrations.langgraph import JetStreamSaver, agent_node

A name is loaded when it is first used: a graph that only saves needs nothing else of it.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard_integrations.langgraph.durability import durable
    from callboard_integrations.langgraph.errors import (
        DurabilityRefused,
        LeaseHeld,
        LeaseLost,
        NotMappable,
    )
    from callboard_integrations.langgraph.graph_handler import graph_agent
    from callboard_integrations.langgraph.leases import Lease
    from callboard_integrations.langgraph.mapping import workflow_from_graph
    from callboard_integrations.langgraph.node import (
        AgentNode,
        NodeOptions,
        agent_node,
        agent_task,
        is_retryable,
    )
    from callboard_integrations.langgraph.saver import JetStreamSaver
    from callboard_integrations.langgraph.store import JetStreamStore

__all__ = [
    "AgentNode",
    "DurabilityRefused",
    "JetStreamSaver",
    "JetStreamStore",
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "NodeOptions",
    "NotMappable",
    "agent_node",
    "agent_task",
    "durable",
    "graph_agent",
    "is_retryable",
    "workflow_from_graph",
]

_HERE = MappingProxyType(
    {
        "AgentNode": "node",
        "DurabilityRefused": "errors",
        "JetStreamSaver": "saver",
        "JetStreamStore": "store",
        "Lease": "leases",
        "LeaseHeld": "errors",
        "LeaseLost": "errors",
        "NodeOptions": "node",
        "NotMappable": "errors",
        "agent_node": "node",
        "agent_task": "node",
        "durable": "durability",
        "graph_agent": "graph_handler",
        "is_retryable": "node",
        "workflow_from_graph": "mapping",
    }
)
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _HERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
