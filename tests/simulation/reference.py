"""The real fold, once more from the beginning: it must agree with the checker at every message.

What a resumed workflow runs again is taken from the fold, and checked for what must hold of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from callboard_broker.subjects import Subjects
from callboard_router.flow import Flow, StepState
from callboard_router.fold import apply
from callboard_router.snapshot import digest
from callboard_router.state import State
from tests.simulation.server import Stored
from tests.simulation.tables import CheckedTask, Tables
from tests.simulation.views import FlowView
from tests.simulation.world import Violation

__all__ = ["DIGEST_EVERY", "Reference"]

DIGEST_EVERY = 8

_Life = tuple[Any, ...]


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
        self._state.accounts.freed.clear()
        if record.seq % DIGEST_EVERY == 0:
            found = digest(self._state)
            if self._digests.setdefault(record.seq, found) != found:
                raise Violation("I4", f"a router has another state at {record.seq}")

    def compare(self, tables: Tables, epoch: int) -> None:
        """Raise `Violation` where the checker comes to another result."""
        state = self._state
        for task in tables.fresh:
            known = state.tasks.get(task.id)
            if known is not None and task.id in tables.tasks:
                if known.life.attempt < tables.attempts.get(task.id, 0):
                    raise Violation("I3b", f"attempts of {task.id} are counted from 0 again")
                task.attempt = known.life.attempt if task.state == "waiting" else task.attempt
        tables.fresh.clear()
        theirs: dict[str, _Life] = {
            name: (
                task.life.state,
                task.life.attempt,
                task.life.lost,
                task.life.unstarted,
                task.life.errors,
                task.life.failure is not None,
                task.cancel is not None,
                task.paused,
                None if task.checkpoint is None else task.checkpoint.seq,
            )
            for name, task in state.tasks.items()
        }
        mine = {name: _life(task) for name, task in tables.tasks.items()}
        if mine != theirs:
            self._tell(tables, mine, theirs)
        if +tables.purse.in_use != state.accounts.in_use:
            found = f"{+tables.purse.in_use}, the fold {state.accounts.in_use}"
            raise Violation("I2", f"after {state.seq} in use are {found}")
        names: list[tuple[Iterable[Any], Iterable[Any]]] = [
            (tables.flows, state.flows),
            (tables.schedules, state.schedules),
            (tables.merges, state.merges),
            (tables.answers, state.answers),
            (tables.unreadable, state.unreadable),
        ]
        for expected, there in names:
            if set(expected) != set(there):
                odd = set(expected) ^ set(there)
                raise Violation("I4", f"after {state.seq} the fold differs in {odd}")
        if epoch != state.epoch:
            raise Violation("I4", f"after {state.seq} it is epoch {epoch}, not {state.epoch}")

    def _tell(self, tables: Tables, mine: dict[str, _Life], theirs: dict[str, _Life]) -> None:
        """A life that differs is one thing; a step that exists too early or too late another."""
        odd = [name for name in mine | theirs if mine.get(name) != theirs.get(name)]
        both = all(name in mine and name in theirs for name in odd)
        shown = [(name, mine.get(name), theirs.get(name)) for name in odd[:5]]
        rule = "I5" if not both and "." in odd[0] and odd[0] not in tables.ends else "I3"
        seq = self._state.seq
        raise Violation(rule, f"after {seq} the fold differs (task, checker, fold): {shown}")

    # -- a workflow that was resumed

    def adopt(self, tables: Tables, view: FlowView, start: str | None) -> None:
        """Take over what the fold has kept, and what it will run again."""
        flow = self._state.flows.get(view.id)
        if flow is None:
            raise Violation("I4", f"{view.id} was resumed, but the fold does not have it")
        tables.start(view)
        _check_again(view, flow, start)
        _take_over(view, flow)
        again = {name for name, _ in view.existing()}
        early = [name for name in again if not view.may_begin(name)]
        if early:
            raise Violation("again", f"{view.id} begins {early} before their needs are met")
        sleeping = {f"{view.id}.{n}.{i}" for n, step in flow.steps.items() for i in step.asleep}
        for inner in [inner for inner in tables.asleep.values() if inner.outer is view]:
            if inner.id in self._state.flows:
                tables.wake(inner.id)
            elif inner.id not in sleeping:
                del tables.asleep[inner.id]  # it begins anew
        live = {(task.flow, task.step) for task in self._state.tasks.values()}
        tables.grow(view, {name for name in view.released if (view.id, name) in live})


def _life(task: CheckedTask) -> _Life:
    return (
        task.state,
        task.attempt,
        task.lost,
        task.unstarted,
        task.errors,
        task.failure is not None,
        task.cancel,
        task.paused,
        None if task.saved is None else task.saved[0],
    )


def _check_again(view: FlowView, flow: Flow, start: str | None) -> None:
    """Nothing is invented; what failed or was undone is dropped, what it does not concern stays."""
    begin = set[str]() if start is None else {start}
    touched = begin | {name for name, _ in view.undo_done}
    touched |= {name for name in view.spec.steps if view.failures[name] or name in view.fate}
    touched |= {name for name in view.spec.steps if view.skipped[name] or name in view.released}
    dropped = _downstream(view, begin)
    touched = _downstream(view, touched)
    for name in view.spec.steps:
        before = {index: seq for index, (_, seq) in view.results[name].items()}
        kept = {index: found.seq for index, found in flow.steps[name].results.items()}
        undone = {index for step, index in view.undo_done if step == name}
        if not kept.items() <= before.items():
            raise Violation("again", f"{view.id}.{name} has {kept}, which was {before}")
        if name not in touched and kept != before:
            raise Violation("again", f"{view.id}.{name} runs again without need")
        if (name in dropped and kept) or undone & kept.keys():
            raise Violation("again", f"{view.id}.{name} does not run again")
        if not view.spec.tolerated(name) and flow.steps[name].fate == "failed":
            barred = any(flow.steps[need].failures for need in view.spec.needs(name))
            if not barred:
                raise Violation("again", f"{view.id}.{name} has failed before it ran again")


def _downstream(view: FlowView, names: set[str]) -> set[str]:
    found = set(names)
    for name in view.spec.steps:  # each stands after what it needs
        if found & (view.spec.needs(name) | {view.spec.follows(name)} - {None}):
            found.add(name)
    return found


def _take_over(view: FlowView, flow: Flow) -> None:
    view.ending, view.spoilt, view.paused = None, False, False
    view.undos, view.undoing, view.undo_done = None, None, []
    view.undone = flow.undone
    view.signals = {name: view.signals[name] for name in flow.signals}
    for table in (view.fate, view.begun, view.total):
        table.clear()
    view.released.clear()
    for name, step in flow.steps.items():
        _take_step(view, name, step)


def _take_step(view: FlowView, name: str, step: StepState) -> None:
    kept = step.results.keys() | set()
    view.results[name] = {n: view.results[name][n] for n in kept}
    view.failures[name], view.skipped[name] = set(step.failures), set(step.skipped)
    if step.fate:
        view.fate[name] = step.fate
    if step.begun:
        view.begun[name] = step.begun
    if step.total is not None:
        view.total[name] = step.total
    if step.released:
        view.released.add(name)
