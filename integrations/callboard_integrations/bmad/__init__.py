"""Personas and workflows of agile AI teams: found, checked, planned, and run on a board.

    roster = discover("my-project")
    plan = make_plan(roster, roster.workflow("greenfield-service"))
    flow = to_workflow(plan, RunOptions(run="first", at_once=3))
    agents = agents_of(Workshop(Path("my-project"), EndpointRunner(url, model)), roster.personas)

A name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard_integrations.bmad.choosing import RunnerChoice, chosen_runner
    from callboard_integrations.bmad.command_runner import CommandRunner
    from callboard_integrations.bmad.diagnostics import Diagnostic
    from callboard_integrations.bmad.discovery import discover
    from callboard_integrations.bmad.drawing import to_mermaid, to_svg
    from callboard_integrations.bmad.endpoint_runner import EndpointRunner
    from callboard_integrations.bmad.flow import RunOptions, to_workflow
    from callboard_integrations.bmad.langchain_runner import ChatModelRunner, GraphRunner
    from callboard_integrations.bmad.persona import Persona
    from callboard_integrations.bmad.persona_agents import Workshop, agents_of, by_name
    from callboard_integrations.bmad.plan import Plan, make_plan
    from callboard_integrations.bmad.roster import Roster
    from callboard_integrations.bmad.runner import Answer, Request, Runner, RunnerFailed

__all__ = [
    "Answer",
    "ChatModelRunner",
    "CommandRunner",
    "Diagnostic",
    "EndpointRunner",
    "GraphRunner",
    "Persona",
    "Plan",
    "Request",
    "Roster",
    "RunOptions",
    "Runner",
    "RunnerChoice",
    "RunnerFailed",
    "Workshop",
    "agents_of",
    "by_name",
    "chosen_runner",
    "discover",
    "make_plan",
    "to_mermaid",
    "to_svg",
    "to_workflow",
]

_PLACES = MappingProxyType(
    {
        "Answer": "runner",
        "ChatModelRunner": "langchain_runner",
        "CommandRunner": "command_runner",
        "Diagnostic": "diagnostics",
        "EndpointRunner": "endpoint_runner",
        "GraphRunner": "langchain_runner",
        "Persona": "persona",
        "Plan": "plan",
        "Request": "runner",
        "Roster": "roster",
        "RunOptions": "flow",
        "Runner": "runner",
        "RunnerChoice": "choosing",
        "RunnerFailed": "runner",
        "Workshop": "persona_agents",
        "agents_of": "persona_agents",
        "by_name": "persona_agents",
        "chosen_runner": "choosing",
        "discover": "discovery",
        "make_plan": "plan",
        "to_mermaid": "drawing",
        "to_svg": "drawing",
        "to_workflow": "flow",
    }
)
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
