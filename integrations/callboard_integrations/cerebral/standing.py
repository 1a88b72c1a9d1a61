"""What a task, a step or a workflow is to the tracker, which knows five statuses, four priorities.

It has no `failed`: what failed, expired or waits for a person is `blocked`, and the metadata says
why.
"""

from __future__ import annotations

from dataclasses import dataclass

from callboard_broker.wire import Failure
from callboard_ledger.rows import Flow, Task
from callboard_ledger.views import FlowView, StepView

__all__ = ["Standing", "importance", "of_flow", "of_step", "of_task", "priority"]

_FAILED = ("failed", "expired")
_PRIORITIES = ((8, "critical"), (6, "high"), (3, "medium"), (0, "low"))
_BACK = {"low": 1, "medium": 5, "high": 7, "critical": 9}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """status: of the tracker. state: of the board. waits: for what, while it is blocked. terminal:
    a word that stands against what a person has set."""

    status: str
    state: str
    waits: str | None = None
    error: Failure | None = None
    terminal: bool = False


def of_task(task: Task) -> Standing:
    """A task that was posted, spawned, or made by a schedule."""
    if task.state in _FAILED or task.state in ("succeeded", "cancelled"):
        return _ended(task.state, task.failure)
    if task.paused and task.state == "waiting":
        return Standing(status="blocked", state=task.state, waits="resume")
    status = "in_progress" if task.state == "running" else "pending"
    return Standing(status=status, state=task.state, error=task.failure)


def of_step(flow: Flow, step: StepView, error: Failure | None) -> Standing:
    """A step, all of its elements together. error: of the first element that failed."""
    if step.state in _FAILED or step.state in ("succeeded", "cancelled"):
        if step.running and not flow.ended:
            return Standing(status="in_progress", state="running", error=error)
        return _ended(step.state, error)
    if flow.ended:
        return _left(flow, step.state)
    if step.waits is not None and not step.waits.startswith("steps "):
        return Standing(status="blocked", state=step.state, waits=step.waits)
    if flow.paused and step.state == "waiting":
        return Standing(status="blocked", state=step.state, waits="resume")
    return Standing(
        status="in_progress" if step.state == "running" else "pending", state=step.state
    )


def of_flow(flow: Flow, shown: FlowView) -> Standing:
    """A workflow. It is blocked while all that it waits for is a person."""
    if flow.ended:
        return _ended(flow.state, flow.error)
    if flow.paused:
        return Standing(status="blocked", state=flow.state, waits="resume")
    if shown.waits and not any(step.running for step in shown.steps):
        waits = "; ".join(sorted(set(shown.waits.values()))[:10])
        return Standing(status="blocked", state=flow.state, waits=waits)
    return Standing(
        status="in_progress" if flow.state == "running" else "pending", state=flow.state
    )


def priority(number: int) -> str:
    """0 to 9, in the tracker's words."""
    return next(word for least, word in _PRIORITIES if number >= least)


def importance(word: str | None) -> int:
    """The way back."""
    return _BACK.get(word or "", 5)


def _ended(state: str, error: Failure | None) -> Standing:
    status = {"succeeded": "completed", "cancelled": "cancelled"}.get(state, "blocked")
    return Standing(
        status=status,
        state=state,
        error=None if state == "succeeded" else error,
        terminal=True,
    )


def _left(flow: Flow, state: str) -> Standing:
    """What never began, or never ended, of a workflow that has."""
    if flow.state in _FAILED:
        waits = f"nothing: the workflow has {flow.state}"
        return Standing(status="blocked", state=state, waits=waits, terminal=True)
    return Standing(status="cancelled", state="cancelled", terminal=True)
