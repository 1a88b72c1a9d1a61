"""What a graph that runs as an agent may declare of itself, as `@agent` has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

__all__ = ["AgentOptions"]


class AgentOptions(TypedDict, total=False):
    """Keywords of `graph_agent`. slots: attempts at once in a host. timeout: seconds.

    memory_mb, cpu (cores): declared needs. name, version, specialization, labels: what a task's
    `needs` are compared with.
    """

    slots: int | None
    timeout: float | None
    memory_mb: float | None
    cpu: float | None
    name: str | None
    version: str
    specialization: Sequence[str]
    labels: Mapping[str, str] | None
