"""The real fold, once more from the beginning: it must agree with the checker at every message."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from callboard_broker.subjects import Subjects
from callboard_router.fold import apply
from callboard_router.state import State
from tests.simulation.server import Stored
from tests.simulation.world import Violation

__all__ = ["Reference", "View"]

_DIGEST_EVERY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The checker's result. tasks: (state, attempt, lost, failed) of each live one.

    rest: the epoch, the limits, and what is open of workflows, merges and quarantines.
    """

    tasks: dict[str, tuple[str, int, int, bool]]
    in_use: Counter[str]
    rest: tuple[Any, ...]
    ended: Counter[str]


class Reference:
    """A fresh fold. digests: what all routers of the world must agree on, by sequence."""

    def __init__(self, digests: dict[int, str]) -> None:
        self._state = State()
        self._subjects = Subjects()
        self._digests = digests

    def fold(self, record: Stored) -> None:
        """Take in the next message."""
        message = (record.subject, record.data)
        apply(self._state, self._subjects, record.seq, record.at_ms, message)
        self._state.fresh.clear()
        if record.seq % _DIGEST_EVERY == 0:
            self._digests[record.seq] = self._state.digest()

    def compare(self, view: View, seq: int) -> None:
        """Raise `Violation` where the checker comes to another result."""
        state = self._state
        theirs: dict[str, tuple[str, int, int, bool]] = {
            name: (
                task.life.state,
                task.life.attempt,
                task.life.lost,
                task.life.failure is not None,
            )
            for name, task in state.tasks.items()
        }
        if view.tasks != theirs:
            self._tell(view, theirs, seq)
        if +view.in_use != +state.in_use:
            found = f"{+view.in_use}, the fold {+state.in_use}"
            raise Violation("I2", f"after {seq} in use are {found}")
        flows, merges, unreadable = set(state.flows), set(state.merges), set(state.unreadable)
        rest = (state.epoch, state.limits, flows, merges, unreadable)
        if view.rest != rest:
            raise Violation("I4", f"after {seq} the fold differs: {view.rest}, the fold {rest}")

    @staticmethod
    def _tell(view: View, theirs: dict[str, tuple[str, int, int, bool]], seq: int) -> None:
        """A life that differs is one thing; a step that exists too early or too late another."""
        mine = view.tasks
        odd = [name for name in mine | theirs if mine.get(name) != theirs.get(name)]
        both = all(name in mine and name in theirs for name in odd)
        shown = [(name, mine.get(name), theirs.get(name)) for name in odd[:5]]
        rule = "I5" if not both and "." in odd[0] and odd[0] not in view.ended else "I3"
        raise Violation(rule, f"after {seq} the fold differs (task, checker, fold): {shown}")
