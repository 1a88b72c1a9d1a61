"""The agent SDK, the agent host process, heartbeats, drain, the local pool."""

from __future__ import annotations

from callboard_agents.agent import Agent, agent
from callboard_agents.attempts import Attempts
from callboard_agents.context import Context
from callboard_agents.failures import GiveUp
from callboard_agents.host import Host
from callboard_agents.host_process import run_host
from callboard_agents.loading import load
from callboard_agents.options import HostOptions
from callboard_agents.pool import LocalPool
from callboard_agents.spawning import Child

__all__ = [
    "Agent",
    "Attempts",
    "Child",
    "Context",
    "GiveUp",
    "Host",
    "HostOptions",
    "LocalPool",
    "agent",
    "load",
    "run_host",
]
