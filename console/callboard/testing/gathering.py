"""Which agents a test means: the agents themselves, modules that hold some, or places."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from callboard_agents.agent import Agent
from callboard_agents.loading import load
from callboard_broker.errors import BadInput

__all__ = ["Agents", "gathered"]

Agents = Agent[..., Any] | str | ModuleType


def gathered(agents: Agents | Sequence[Agents]) -> list[Agent[..., Any]]:
    """Return the agents, each once. Raises `BadInput` where two serve one capability."""
    named = [agents] if isinstance(agents, Agent | str | ModuleType) else list(agents)
    found: dict[str, Agent[..., Any]] = {}
    for one in named:
        for agent in _agents_of(one):
            before = found.setdefault(agent.capability, agent)
            if before is not agent:
                raise BadInput("agents", f"two agents of one host offer {agent.capability}")
    return list(found.values())


def _agents_of(one: Agents) -> list[Agent[..., Any]]:
    if isinstance(one, Agent):
        return [one]
    if isinstance(one, str):
        return load([one])
    if isinstance(one, ModuleType):
        agents = {id(value): value for value in vars(one).values() if isinstance(value, Agent)}
        if agents:
            return list(agents.values())
        raise BadInput("agents", f"the module {one.__name__} holds none")
    raise BadInput("agents", f"{one!r:.80} is no agent: decorate a function with @agent(...)")
