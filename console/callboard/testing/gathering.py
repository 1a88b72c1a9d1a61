"""Which agents and middleware a test means: themselves, modules that hold some, or places."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from callboard_agents.agent import Agent
from callboard_agents.loading import load
from callboard_agents.middleware import Middleware, load_middleware
from callboard_broker.errors import BadInput
from callboard_broker.submission import SubmitMiddleware

__all__ = ["Agents", "AnyMiddleware", "gathered", "sorted_middleware"]

Agents = Agent[..., Any] | str | ModuleType
AnyMiddleware = Middleware | SubmitMiddleware | str


def gathered(agents: Agents | Sequence[Agents]) -> list[Agent[..., Any]]:
    """Return the agents, each once. Raises `BadInput` where two serve one capability, and for a
    command, which is nothing without its child process."""
    named = [agents] if isinstance(agents, Agent | str | ModuleType) else list(agents)
    found: dict[str, Agent[..., Any]] = {}
    for one in named:
        for agent in _agents_of(one):
            if agent.command is not None:
                raise BadInput(
                    agent.capability,
                    "is a command, which needs a child process and its layers: test it on a real "
                    "board (`callboard.testing.live_board`)",
                )
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
        for agent in agents.values():
            if one.__name__ not in agent.modules:
                agent.modules = (one.__name__, *agent.modules)
        if agents:
            return list(agents.values())
        raise BadInput("agents", f"the module {one.__name__} holds none")
    raise BadInput("agents", f"{one!r:.80} is no agent: decorate a function with @agent(...)")


def sorted_middleware(
    middleware: Sequence[AnyMiddleware],
) -> tuple[tuple[Middleware, ...], tuple[SubmitMiddleware, ...]]:
    """Return what is around attempts, and what is around posts. Raises `BadInput`."""
    attempts: list[Middleware] = []
    posts: list[SubmitMiddleware] = []
    for one in middleware:
        if isinstance(one, str):
            attempts += load_middleware([one])
        elif isinstance(one, Middleware):
            attempts.append(one)
        elif isinstance(one, SubmitMiddleware):
            posts.append(one)
        else:
            raise BadInput("middleware", f"{one!r:.80} is no object of a middleware class")
    return tuple(attempts), tuple(posts)
