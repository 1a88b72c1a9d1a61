"""The host's side of its child processes: prepared ahead of time, each for exactly one task."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from callboard_agents.sandbox.grant import CellPlan, Heard, TaskHeader
from callboard_broker.wire import Failure

__all__ = ["Child", "Nursery", "open_nursery"]


class Child:
    """One prepared process; good for one task."""

    layers: tuple[str, ...]

    def start(self, task: TaskHeader, payload: bytes, heard: Heard) -> None:
        """Give it its task; `heard.ended` comes exactly once."""
        raise NotImplementedError

    def answer(self, number: int, answer: bytes | Failure) -> None:
        """Answer what it asked as `number`; without effect once it is gone."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Ask it to stop."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it and all that it started, at once; `heard.ended` follows."""
        raise NotImplementedError


class Nursery:
    """Prepared children by capability. layers: those that its children really have."""

    layers: frozenset[str]

    def take(self, capability: str) -> Child | None:
        """Return a prepared child, which is then the caller's; None: none is ready."""
        raise NotImplementedError

    async def wait(self, capability: str) -> Child:
        """Return a prepared child as soon as there is one. First come, first served."""
        raise NotImplementedError


@asynccontextmanager
async def open_nursery(
    *, places: Sequence[str], plans: Sequence[CellPlan], require: frozenset[str] = frozenset()
) -> AsyncIterator[Nursery]:
    """Start the zygote, which loads `places`; children of `plans` are made ready at once.

    require: layers without which no child may run a task. Raises `BadInput` as `load` does.
    """
    raise NotImplementedError(places, plans, require)
    yield Nursery()
