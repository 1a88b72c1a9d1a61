"""Which children a host prepares: for each agent, what it declares, else what the settings say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from callboard_agents.agent import Agent
from callboard_agents.options import HostOptions
from callboard_agents.sandbox import CellPlan, Grant

__all__ = ["cell_plans", "child_slots", "runs_in_children"]


def runs_in_children(agent: Agent[..., Any], options: HostOptions) -> bool:
    """Whether this agent's tasks run in children as a rule."""
    return agent.isolation == "process" or options.policy.every.process


def cell_plans(agents: Sequence[Agent[..., Any]], options: HostOptions) -> list[CellPlan]:
    """Return a plan for each agent whose tasks, or some tenants' tasks, run in children."""
    demanded = options.policy.demands_children
    return [
        _plan(agent, options, often=runs_in_children(agent, options))
        for agent in agents
        if demanded or agent.isolation == "process"
    ]


def child_slots(agent: Agent[..., Any], options: HostOptions) -> int:
    """Return how many children of this agent one host runs at once."""
    return agent.slots or options.limits.slots


def _plan(agent: Agent[..., Any], options: HostOptions, *, often: bool) -> CellPlan:
    """often: its tasks run in children as a rule; else one is kept ready for the exception."""
    limits, policy = options.limits, options.policy
    slots = child_slots(agent, options)
    command = _declared(agent, "command")
    processes = limits.processes if command is None else limits.command_processes
    network = _declared(agent, "network")
    return CellPlan(
        capability=agent.capability,
        grant=Grant(
            memory_mb=agent.memory_mb or limits.memory_mb,
            cpu=agent.cpu or limits.cpu,
            cpu_seconds=_declared(agent, "cpu_seconds") or limits.cpu_seconds,
            disk_mb=_declared(agent, "disk_mb") or limits.disk_mb,
            output_mb=_declared(agent, "output_mb") or limits.output_mb,
            files=_declared(agent, "files") or limits.files,
            processes=_declared(agent, "processes") or processes,
        ),
        slots=slots,
        spares=min(limits.spares if often else 1, limits.spares, slots),
        read=(*policy.read, *(_declared(agent, "read") or ())),
        network=policy.network if network is None else network,
        command=command,
    )


def _declared(agent: Agent[..., Any], limit: str) -> Any:
    """What the agent says of a limit that not every declaration has."""
    return getattr(agent, limit, None)
