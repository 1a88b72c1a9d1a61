"""Child processes that run one task each, behind as many layers as the host offers."""

from __future__ import annotations

from callboard_agents.sandbox.grant import CellPlan, Ending, Grant, Heard, TaskHeader, Usage
from callboard_agents.sandbox.layers import LAYERS, available
from callboard_agents.sandbox.nursery import Child, Nursery, open_nursery

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
