"""The agent SDK, the agent host process, heartbeats, drain, the local pool."""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from callboard_agents.agent import Agent, agent  # a module has the same name: bound here for good

if TYPE_CHECKING:
    from callboard_agents.attempts import Attempts
    from callboard_agents.command_agents import command_agent
    from callboard_agents.context import Context
    from callboard_agents.failures import GiveUp
    from callboard_agents.host import Host
    from callboard_agents.host_process import run_host
    from callboard_agents.lifespans import StartFailed, lifespan
    from callboard_agents.limits import Limits
    from callboard_agents.loading import load
    from callboard_agents.middleware import Call, Middleware, Next
    from callboard_agents.options import HostOptions
    from callboard_agents.pool import LocalPool
    from callboard_agents.spawning import Child

__all__ = [
    "Agent",
    "Attempts",
    "Call",
    "Child",
    "Context",
    "GiveUp",
    "Host",
    "HostOptions",
    "Limits",
    "LocalPool",
    "Middleware",
    "Next",
    "StartFailed",
    "agent",
    "command_agent",
    "lifespan",
    "load",
    "run_host",
]

_PLACES = MappingProxyType(
    {
        "Attempts": "callboard_agents.attempts",
        "Call": "callboard_agents.middleware",
        "Child": "callboard_agents.spawning",
        "Context": "callboard_agents.context",
        "GiveUp": "callboard_agents.failures",
        "Host": "callboard_agents.host",
        "HostOptions": "callboard_agents.options",
        "Limits": "callboard_agents.limits",
        "LocalPool": "callboard_agents.pool",
        "Middleware": "callboard_agents.middleware",
        "Next": "callboard_agents.middleware",
        "StartFailed": "callboard_agents.lifespans",
        "command_agent": "callboard_agents.command_agents",
        "lifespan": "callboard_agents.lifespans",
        "load": "callboard_agents.loading",
        "run_host": "callboard_agents.host_process",
    }
)
"""Where a name lives. It is loaded when it is first used: children are small, and start fast."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
