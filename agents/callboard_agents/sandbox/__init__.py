"""Child processes that run one task each, behind as many layers as the host offers."""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard_agents.sandbox.grant import CellPlan, Ending, Grant, Heard, TaskHeader, Usage
    from callboard_agents.sandbox.layers import LAYERS, available
    from callboard_agents.sandbox.nursery import Nursery
    from callboard_agents.sandbox.opening import open_nursery
    from callboard_agents.sandbox.prepared import Child

__all__ = [
    "LAYERS",
    "CellPlan",
    "Child",
    "Ending",
    "Grant",
    "Heard",
    "Nursery",
    "TaskHeader",
    "Usage",
    "available",
    "open_nursery",
]

_PLACES = MappingProxyType(
    {
        "LAYERS": "layers",
        "available": "layers",
        "Nursery": "nursery",
        "open_nursery": "opening",
        "Child": "prepared",
    }
)
"""Where a name lives that is not in `grant`. It is loaded when it is first used: a zygote needs
nothing of the host's side, and each of its children would pay for it."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = f"{__name__}.{_PLACES.get(name, 'grant')}"
    value = getattr(importlib.import_module(place), name)
    globals()[name] = value
    return value
