"""Plan, Implement, Test: stories of a project worked on until their tests pass, within budgets.

    PlanAgent("quick", story="docs/stories/1.1.story.md").run()
    ImplementAgent().run("edits.json")
    TestAgent().run(["tests"])

    flow = to_workflow([{"id": "1.1", "story": "docs/stories/1.1.story.md"}], options)
    agents = agents_of(StoryShop(Path("my-project"), runner))

A name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard_integrations.caef.backups import restore
    from callboard_integrations.caef.flow import StoryOptions, to_workflow
    from callboard_integrations.caef.settings import CaefSettings, Profile, load_settings
    from callboard_integrations.caef.stage_agents import StoryShop, agents_of
    from callboard_integrations.caef.trio import ImplementAgent, PlanAgent, TestAgent

__all__ = [
    "CaefSettings",
    "ImplementAgent",
    "PlanAgent",
    "Profile",
    "StoryOptions",
    "StoryShop",
    "TestAgent",
    "agents_of",
    "load_settings",
    "restore",
    "to_workflow",
]

_PLACES = MappingProxyType(
    {
        "CaefSettings": "settings",
        "ImplementAgent": "trio",
        "PlanAgent": "trio",
        "Profile": "settings",
        "StoryOptions": "flow",
        "StoryShop": "stage_agents",
        "TestAgent": "trio",
        "agents_of": "stage_agents",
        "load_settings": "settings",
        "restore": "backups",
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
