"""How tasks, workflows and schedules leave the state, and what stays of those that did not succeed.

A dead letter is kept for a while, so that `redrive` and `resume` can start it again as a new
generation; its payload is then read from the journal. Its windows are those of the rule.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from callboard_broker.rule import (
    DEAD_WINDOW_MS,
    MAX_DEAD,
    MAX_DEAD_FLOWS,
    TERMINAL,
    begin_again,
)
from callboard_broker.wire import Settled
from callboard_router.flow import Flow, Result
from callboard_router.state import Schedule, State, Task
from callboard_router.workflow import child_ended, finish_step, flow_settled, step_failed

__all__ = ["finish", "revive", "settle_flow", "settle_schedule"]

_Dead = TypeVar("_Dead", Task, Flow)


def finish(state: State, task: Task, result: Result | None) -> None:
    """The task reached its terminal event: it leaves, and what depends on it goes on.

    The caller has taken it out of those that wait.
    """
    if task.life.state not in TERMINAL:
        raise AssertionError(task.life.state)
    del state.tasks[task.id]
    state.finished[task.life.state] += 1
    if task.parent is not None:
        parent = state.tasks.get(task.parent)
        if parent is not None:
            parent.children = [name for name in parent.children if name != task.id]
    if task.flow is not None and task.step:
        flow = state.flows[task.flow]
        if result is not None:
            finish_step(state, flow, task, result)
        else:
            step_failed(state, flow, task)
        return
    if task.flow is not None:
        child_ended(state, state.flows[task.flow])
    if result is None:
        _bury_task(state, task)


def _bury_task(state: State, task: Task) -> None:
    task.payload = None if task.payload_at else task.payload
    task.flow = task.parent = task.checkpoint = None
    task.children = []
    state.dead[task.id] = (state.at_ms, task)
    _forget(state.dead, state.at_ms, MAX_DEAD)


def _forget(dead: OrderedDict[str, tuple[int, _Dead]], now_ms: int, most: int) -> None:
    """Drop what is too old, or too much; the oldest stand first."""
    while dead:
        ended_at, _ = dead[next(iter(dead))]
        if ended_at + DEAD_WINDOW_MS > now_ms and len(dead) <= most:
            return
        dead.popitem(last=False)


def settle_flow(state: State, flow: Flow, seq: int, event: Settled) -> None:
    """The terminal event of a workflow in which nothing is open any more."""
    del state.flows[flow.id]
    state.finished[f"flow/{event.state}"] += 1
    state.fresh.append(flow.id)
    flow_settled(state, flow, seq, event)
    if event.state != "succeeded" and "." not in flow.id:
        state.dead_flows[flow.id] = (state.at_ms, flow)
        _forget(state.dead_flows, state.at_ms, MAX_DEAD_FLOWS)


def settle_schedule(state: State, schedule: Schedule, event: Settled) -> None:
    """Nothing is made by the schedule any more; what it made goes on."""
    del state.schedules[schedule.id]
    state.finished[event.state] += 1


def revive(state: State, task: Task) -> None:
    """A dead task begins a new generation."""
    del state.dead[task.id]
    begin_again(task.life)
    task.since = state.at_ms
    task.order = state.seq
    task.not_before = 0
    task.avoid = []
    task.cancel = None
    task.paused = False
    state.add(task)
