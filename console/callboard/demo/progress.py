"""How far the demo's workflow is, from the updates of its handle."""

from __future__ import annotations

from dataclasses import dataclass, field

from callboard.demo.reviewing import JOIN, PLAN
from callboard.demo.specialists import SPECIALISTS
from callboard_broker.handle import Update

__all__ = ["Progress", "StepProgress"]


@dataclass(slots=True)
class StepProgress:
    """One step. total: None until its list is known. running: item -> host."""

    total: int | None
    done: int = 0
    running: dict[str, str] = field(default_factory=dict)


class Progress:
    """Every step of the review, in the order of the work."""

    def __init__(self) -> None:
        self.steps = {
            PLAN: StepProgress(1),
            **{name: StepProgress(None) for name in SPECIALISTS},
            JOIN: StepProgress(1),
        }
        self.lost = 0
        self._done: set[str] = set()

    @property
    def done(self) -> int:
        """Tasks that have succeeded."""
        return sum(step.done for step in self.steps.values())

    @property
    def total(self) -> int | None:
        """Tasks in all, as soon as every list is known."""
        totals = [step.total for step in self.steps.values()]
        return None if None in totals else sum(total or 0 for total in totals)

    @property
    def running(self) -> int:
        """Handlers at work, as far as this process has heard."""
        return sum(len(step.running) for step in self.steps.values())

    def hosts(self) -> dict[str, int]:
        """Host -> how many handlers it is running."""
        counts: dict[str, int] = {}
        for step in self.steps.values():
            for host in step.running.values():
                counts[host] = counts.get(host, 0) + 1
        return counts

    def hear(self, update: Update) -> None:
        """Take in one update of the handle."""
        parts = update.task.split(".")
        step = self.steps.get(parts[1]) if len(parts) > 1 else None
        if step is None:
            return
        if update.items is not None:
            step.total = update.items
        elif update.state == "running":
            if update.task not in self._done:  # news may come after the outcome
                step.running[update.task] = update.host or ""
        elif update.state is not None:
            step.running.pop(update.task, None)
            if update.state == "succeeded":
                self._done.add(update.task)
                step.done += 1
            elif update.error is not None and update.error.type == "Lost":
                self.lost += 1
