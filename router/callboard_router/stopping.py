"""How live work of a workflow is stopped: as a whole, or what nobody needs any more.

A task is never taken away: it is marked, and ends by the router's event, because a dispatch of it
may be on its way. What has not become a task yet never will.
"""

from __future__ import annotations

from collections.abc import Iterator

from callboard_broker.graph import UNDO
from callboard_broker.wire import TerminalState
from callboard_router.compensation import end_if_done
from callboard_router.flow import Flow
from callboard_router.state import State, Task

__all__ = ["cancel_task", "flow_paused", "halt", "live_tasks", "open_gates", "stop_step"]


def halt(state: State, flow: Flow, ending: TerminalState, reason: str) -> None:
    """End the workflow as `ending`, `cancelled` or `expired`: nothing new of it begins.

    One that is being halted already, or is undoing what it did, goes on with that.
    """
    if flow.ending is not None or flow.undos is not None:
        return
    flow.ending = ending
    flow.reason = reason
    if flow.paused:
        flow.paused = False
        state.fresh.extend([task.id for task in live_tasks(state, flow)])
    for name in flow.graph.nodes:
        if (flow.id, name) in state.to_expand:
            del state.to_expand[(flow.id, name)]
            flow.open -= 1
    for task in _own_tasks(state, flow):
        cancel_task(state, task, reason)
    for name in list(flow.nested):
        halt(state, state.flows[name], ending, reason)
    end_if_done(state, flow)


def stop_step(state: State, flow: Flow, name: str, reason: str) -> None:
    """Cancel what is live of one step."""
    for task in _step_tasks(state, flow, name):
        cancel_task(state, task, reason)
    for inner in [state.flows[found] for found in flow.nested]:
        if inner.step == name:
            halt(state, inner, "cancelled", reason)


def cancel_task(state: State, task: Task, reason: str) -> None:
    """The task and all that it spawned shall end as soon as they can."""
    left = [task]
    while left:
        found = left.pop()
        if found.cancel is None:
            found.cancel = reason
            state.fresh.append(found.id)
            left.extend(state.tasks[name] for name in found.children if name in state.tasks)


def live_tasks(state: State, flow: Flow) -> Iterator[Task]:
    """The live tasks of the workflow, of those inside it, and what any of them spawned."""
    yield from _own_tasks(state, flow)
    for name in flow.nested:
        yield from live_tasks(state, state.flows[name])


def open_gates(state: State, flow: Flow, kind: str) -> list[Task]:
    """The gates of this kind that wait to be decided, also inside the workflow's workflows."""
    found = [
        task
        for name, node in flow.graph.nodes.items()
        if node.step.gate is not None and node.step.gate.kind == kind
        for task in _step_tasks(state, flow, name)
        if task.decided is None and task.life.failure is None
    ]
    for name in flow.nested:
        found += open_gates(state, state.flows[name], kind)
    return found


def flow_paused(state: State, flow: Flow) -> bool:
    """Whether the workflow, or one that it is inside of, is paused."""
    found: Flow | None = flow
    while found is not None:
        if found.paused:
            return True
        found = state.flows.get(found.parent) if found.parent else None
    return False


def _own_tasks(state: State, flow: Flow) -> Iterator[Task]:
    count = len(flow.nested)
    for name in flow.graph.nodes:
        if (flow.id, name) in state.to_expand:
            count += 1
        for task in _step_tasks(state, flow, name):
            count += 1
            yield task
    undo = state.tasks.get(f"{flow.id}.{UNDO}.{flow.undone}")
    if undo is not None:
        count += 1
        yield undo
    if count < flow.open:  # tasks that were spawned: rare, so they are looked for
        for task in list(state.tasks.values()):
            if task.flow == flow.id and not task.step:
                yield task


def _step_tasks(state: State, flow: Flow, name: str) -> list[Task]:
    step = flow.steps[name]
    if not step.begun or step.over:
        return []
    tasks = (state.tasks.get(f"{flow.id}.{name}.{index}") for index in range(step.total or 0))
    return [task for task in tasks if task is not None]
