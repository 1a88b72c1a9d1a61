"""The checker's own tables: every live task, workflow and schedule, as the journal has it so far.

What changes a workflow goes through `Tables.grow`, which lets its view look at itself and makes
tasks of what has begun. The rules here are written anew and share nothing with the router's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.purse import Draw, Purse
from tests.simulation.specs import FlowSpec
from tests.simulation.views import FlowView

__all__ = ["UNDECIDED", "CheckedSchedule", "CheckedTask", "Tables"]

UNDECIDED = object()


@dataclass(slots=True, kw_only=True, eq=False)
class CheckedTask:
    """A live task. kind: `task`, `gate`, `signal`, `flow` or `undo`. since: ms, when it was ready.

    refused: the type of error (and the field) with which a post is refused. runnable: there is a
    payload with which it could be run. view, place: the workflow and its element. failure: of the
    last outcome, at failed_at. void: secrets of lost attempts. stopped_at: the command that
    cancelled or paused it. checkpoints: number of the last one of this attempt. saved: the last
    one of all attempts, with its sequence.
    """

    id: str
    tenant: str
    capability: str
    kind: str = "task"
    payload: Any = None
    terms: dict[str, Any] = field(default_factory=dict)
    draw: Draw
    since: int
    not_before: int = 0
    refused: tuple[str, ...] = ()
    runnable: bool = True
    view: FlowView | None = None
    place: tuple[str, int] = ("", 0)
    parent: str | None = None
    children: list[str] = field(default_factory=list)
    state: str = "waiting"
    attempt: int = 0
    secret: str = ""
    lost: int = 0
    unstarted: int = 0
    errors: int = 0
    failure: dict[str, Any] | None = None
    failed_at: int = 0
    cancel: bool = False
    paused: bool = False
    decided: Any = UNDECIDED
    void: dict[int, str] = field(default_factory=dict)
    stopped_at: int = 0
    checkpoints: int = 0
    saved: tuple[int, Any] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class CheckedSchedule:
    """A schedule. next_at: ms; None until the first `fired`. last: its latest task."""

    id: str
    tenant: str
    template: CheckedTask
    overlap: bool
    number: int = 0
    next_at: int | None = None
    last: str = ""
    cancel: bool = False
    paused: bool = False


class Tables:
    """What is live, what is dead, what is owed an answer. ends: terminal events by name.

    lives: how often each was started again. attempts: the last one of each task, ever. fresh: new
    tasks, whose attempts may be counted on from an earlier life. adopt: how a workflow is taken
    over that runs again.
    """

    def __init__(self, adopt: Callable[[Tables, FlowView, None], None]) -> None:
        self.tasks: dict[str, CheckedTask] = {}
        self.flows: dict[str, FlowView] = {}
        self.schedules: dict[str, CheckedSchedule] = {}
        self.dead: dict[str, CheckedTask] = {}
        self.dead_flows: dict[str, FlowView] = {}
        self.asleep: dict[str, FlowView] = {}
        self.adopt = adopt
        self.merges: dict[str, str] = {}
        self.answers: dict[str, str | None] = {}
        self.unreadable: set[int] = set()
        self.ends: Counter[str] = Counter()
        self.lives: Counter[str] = Counter()
        self.attempts: dict[str, int] = {}
        self.fresh: list[CheckedTask] = []
        self.purse = Purse()
        self.at_ms = 0
        self.seq = 0

    def draw_of(self, task: CheckedTask) -> Draw:
        """What an attempt of the task takes of which budgets."""
        tenant, capability = task.tenant, task.capability
        keys = ["global", f"tenant/{tenant}", f"capability/{capability}"]
        keys += [f"tenant/{tenant}/{capability}"]
        keys += [f"key/{name}" for name in task.terms.get("budgets", ())]
        view = task.view if task.kind == "task" and task.place[0] else None
        if view is not None and view.spec.steps[task.place[0]].at_once is not None:
            keys.append(f"flow/{view.id}/{task.place[0]}")
        while view is not None:
            if view.spec.at_once is not None:
                keys.append(f"flow/{view.id}")
            view = view.outer
        return Draw(keys, task.terms.get("units", {}))

    def could_run(self, task: CheckedTask, now_ms: int) -> bool:
        """Whether nothing but the lack of a place can hold it up. A bucket takes its time."""
        if task.kind not in ("task", "undo") or task.state != "waiting" or task.failure is not None:
            return False
        if task.cancel or task.paused or (task.view is not None and task.view.is_paused):
            return False
        for key in task.draw.keys:
            limit = self.purse.limit(key)
            most = limit.get("concurrency")
            if "rate" in limit or (most is not None and self.purse.in_use[key] >= most):
                return False
        return task.not_before <= now_ms and not task.draw.units

    def waiting(self, tenant: str) -> int:
        """How many of the tenant's tasks wait."""
        tasks = (task for task in self.tasks.values() if task.tenant == tenant)
        return sum(task.state == "waiting" for task in tasks)

    # -- tasks

    def add(self, task: CheckedTask) -> None:
        task.draw = self.draw_of(task)
        self.tasks[task.id] = task
        self.fresh.append(task)

    def cancel(self, task: CheckedTask) -> None:
        """It shall end, and all that it spawned."""
        if not task.cancel:
            task.cancel = True
            for name in task.children:
                if name in self.tasks:
                    self.cancel(self.tasks[name])

    def end(self, task: CheckedTask, state: str, result: Any = None) -> None:
        """The task has reached a terminal event."""
        task.state = state
        del self.tasks[task.id]
        self.ends[task.id] += 1
        parent = self.tasks.get(task.parent or "")
        if parent is not None:
            parent.children.remove(task.id)
        view = task.view
        if view is None or not task.place[0]:
            if state != "succeeded":
                self.bury(task)
        elif task.kind != "undo":
            self._end_element(view, task.place, state, result)
        elif state == "succeeded" and view.undoing is not None:
            view.undo_done.append(view.undoing)
        if view is not None:
            self.grow(view)

    def bury(self, task: CheckedTask) -> None:
        task.view = task.parent = task.saved = None
        task.children = []
        self.dead[task.id] = task

    def _end_element(self, view: FlowView, place: tuple[str, int], state: str, result: Any) -> None:
        name, index = place
        if state == "succeeded":
            view.results[name][index] = (result, self.seq)
        elif state == "skipped" or name in view.released:
            view.skipped[name].add(index)
        else:
            view.failures[name].add(index)
            if not view.spec.tolerated(name) and view.ending is None:
                view.spoilt = True

    # -- workflows

    def begin(
        self,
        name: str,
        tenant: str,
        spec: FlowSpec,
        inputs: Any,
        outer: FlowView | None = None,
        place: tuple[str, int] = ("", 0),
    ) -> FlowView:
        """A workflow, or the one inside a step, begins."""
        view = FlowView(spec=spec, id=name, tenant=tenant, inputs=inputs, outer=outer, place=place)
        self.start(view)
        self.grow(view)
        return view

    def start(self, view: FlowView) -> None:
        """It is live, with its own budgets and its deadline."""
        spec = view.spec
        self.flows[view.id] = view
        if spec.timeout is not None:
            view.expires_at = self.at_ms + int(spec.timeout * 1000)
        if spec.at_once is not None:
            self.purse.own[f"flow/{view.id}"] = spec.at_once
        for name, step in spec.steps.items():
            if step.at_once is not None and step.kind == "task":
                self.purse.own[f"flow/{view.id}/{name}"] = step.at_once

    def grow(self, view: FlowView, stopped: Iterable[str] = ()) -> None:
        """Something of the workflow has changed: make what has begun, stop what is not needed.

        stopped: further steps that are begun and stopped at once.
        """
        unneeded = [*view.advance(self.seq), *stopped]
        for step, index in sorted(view.existing()):
            name = f"{view.id}.{step}.{index}"
            kept = step not in view.released or step in unneeded
            if view.ending is None and kept and name not in self.tasks and name not in self.flows:
                if view.spec.steps[step].kind != "flow":
                    self.add(self._element(view, name, step, index))
                elif (step, index) not in view.held:
                    view.held.append((step, index))
        self._let_in(view, unneeded)
        for step in unneeded:
            for task in self.own(view):
                if task.place[0] == step and task.kind != "undo":
                    self.cancel(task)
            for inner in self.inner(view):
                if inner.place[0] == step:
                    self.halt(inner, "cancelled")
        self._undo(view)

    def _let_in(self, view: FlowView, unneeded: list[str]) -> None:
        """Inner workflows, no more of a step than it allows at once, in the order of their turn."""
        turn, view.held = view.held, []
        for step, index in turn:
            places = [found.place for found in self.own(view)]
            places += [found.place for found in self.inner(view)]
            busy = sum(place[0] == step for place in places)
            most = view.spec.steps[step].at_once
            if view.ending is not None or (step in view.released and step not in unneeded):
                continue
            name = f"{view.id}.{step}.{index}"
            if most is not None and busy >= most:
                view.held.append((step, index))
            elif name in self.asleep:
                self.wake(name)
            else:
                self.add(self._element(view, name, step, index))

    def _element(self, view: FlowView, name: str, step: str, index: int) -> CheckedTask:
        spec = view.spec.steps[step]
        return CheckedTask(
            id=name,
            tenant=view.tenant,
            capability=spec.capability if spec.kind == "task" else "",
            kind=spec.kind,
            terms=spec.terms,
            draw=Draw((), {}),
            since=self.at_ms,
            view=view,
            place=(step, index),
            decided=self._signalled(view, spec.signal) if spec.kind == "signal" else UNDECIDED,
        )

    @staticmethod
    def _signalled(view: FlowView | None, name: str) -> Any:
        while view is not None:
            if name in view.signals:
                return view.signals[name]
            view = view.outer
        return UNDECIDED

    def own(self, view: FlowView) -> list[CheckedTask]:
        """Its live tasks, and what they spawned."""
        return [task for task in self.tasks.values() if task.view is view]

    def inner(self, view: FlowView) -> list[FlowView]:
        return [flow for flow in self.flows.values() if flow.outer is view]

    def is_open(self, view: FlowView) -> bool:
        """Whether anything of it can still happen."""
        return bool(self.own(view) or self.inner(view) or view.unexpanded())

    def _undo(self, view: FlowView) -> None:
        if view.id not in self.flows or not view.failing or self.is_open(view):
            return
        if view.undos is None:
            view.undos = view.to_undo()
        if view.undos:
            view.undoing = step, _ = view.undos.pop()
            view.undone += 1
            capability, payload = view.spec.steps[step].undo or ("", {})
            self.add(
                CheckedTask(
                    id=f"{view.id}.undo.{view.undone}",
                    tenant=view.tenant,
                    capability=capability,
                    kind="undo",
                    payload=payload,
                    draw=Draw((), {}),
                    since=self.at_ms,
                    view=view,
                    place=("undo", view.undone),
                )
            )

    def wake(self, name: str) -> None:
        """A workflow inside a step, which had failed, goes on where it was."""
        self.lives[name] += 1
        self.adopt(self, self.asleep.pop(name), None)

    def halt(self, view: FlowView, ending: str) -> None:
        """Nothing of it begins any more, and what is live shall end."""
        if view.ending is not None or view.undos is not None:
            return
        view.ending = ending
        view.paused = False
        for task in self.own(view):
            self.cancel(task)
        for flow in self.inner(view):
            self.halt(flow, ending)
        self._undo(view)

    def end_flow(self, view: FlowView, state: str, result: Any) -> None:
        """The workflow has reached its terminal event."""
        del self.flows[view.id]
        self.ends[view.id] += 1
        for key in [key for key in self.purse.own if key.split("/")[1] == view.id]:
            del self.purse.own[key]
        if view.outer is None:
            if state != "succeeded":
                self.dead_flows[view.id] = view
            return
        if state != "succeeded":
            self.asleep[view.id] = view
        self._end_element(view.outer, view.place, state, result)
        self.grow(view.outer)
