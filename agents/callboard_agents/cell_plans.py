"""Which children a host prepares: for each agent, what it declares, else what the settings say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from callboard_agents.agent import Agent
from callboard_agents.child_limits import ChildLimits
from callboard_agents.options import HostOptions
from callboard_agents.sandbox import CellPlan, Grant
from callboard_broker.errors import BadInput

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
    limits, said, policy, command = options.limits, agent.limits, options.policy, agent.command
    slots = child_slots(agent, options)
    processes = limits.processes if command is None else limits.command_processes
    stage = 0 if command is None else 1  # the process that starts the command
    most = (said.processes or processes) + stage
    return CellPlan(
        capability=agent.capability,
        grant=Grant(
            memory_mb=agent.memory_mb or limits.memory_mb,
            cpu=agent.cpu or limits.cpu,
            cpu_seconds=said.cpu_seconds or limits.cpu_seconds,
            disk_mb=said.disk_mb or limits.disk_mb,
            output_mb=said.output_mb or limits.output_mb,
            files=said.files or limits.files,
            processes=most,
        ),
        slots=slots,
        spares=min(limits.spares if often else 1, limits.spares, slots),
        read=(*policy.read, *said.read),
        network=policy.network if said.network is None else said.network,
        command=command,
        middleware=options.middleware,
        tasks_per_child=_tasks_per_child(agent, limits, processes=most),
    )


def _tasks_per_child(agent: Agent[..., Any], limits: ChildLimits, *, processes: int) -> int:
    said = agent.limits.tasks_per_child
    if processes == 1:
        return said or limits.tasks_per_child
    if (said or 1) > 1:
        raise BadInput(
            f"{agent.capability}.limits.tasks_per_child",
            f"the settings let this agent be {processes} processes, and what it has started is "
            "ended with each attempt: declare processes=1 beside it",
        )
    return 1
