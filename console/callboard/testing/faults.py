"""Failures on order: the next attempt of a capability fails, before its handler or after it.

After it means what a crash between the effect and the report of it means: the handler has done its
work, and nobody will know. That is what idempotency keys are for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from callboard_agents.failures import failure_of
from callboard_broker.wire import Failure

__all__ = ["Fault", "Faults"]


@dataclass(frozen=True, slots=True)
class Fault:
    """failure: what becomes of the attempt. after: its handler runs to its end first."""

    failure: Failure
    after: bool


class Faults:
    """What was ordered and has not struck yet, by capability."""

    def __init__(self) -> None:
        self._ordered: dict[str, deque[Fault]] = {}

    def order(self, capability: str, error: BaseException, *, times: int, after: bool) -> None:
        """The next `times` attempts fail with `error`."""
        fault = Fault(failure_of(error), after)
        self._ordered.setdefault(capability, deque()).extend([fault] * times)

    def take(self, capability: str) -> Fault | None:
        """What strikes the attempt that starts now."""
        ordered = self._ordered.get(capability)
        return ordered.popleft() if ordered else None

    @property
    def left(self) -> dict[str, int]:
        """How many have not struck, by capability."""
        return {name: len(ordered) for name, ordered in self._ordered.items() if ordered}
