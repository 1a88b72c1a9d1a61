"""The processes that a nursery has at a moment, for who measures what they cost."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Living", "LivingCell"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LivingCell:
    """keeper, child: pids; child is 0 where there is none. children: that have lived here so far.
    tasks: that the child has behind it. busy: it has one. starts: and may have started other
    processes. command: those are programs, which share nothing with it."""

    keeper: int
    child: int
    children: int
    tasks: int
    busy: bool
    starts: bool
    command: bool


@dataclass(frozen=True, slots=True)
class Living:
    """zygote: its pid."""

    zygote: int
    cells: tuple[LivingCell, ...]
