"""How a live workflow goes on: part of the fold, called for each event that concerns one.

A workflow inside a step takes the place of the step's task: from `entered` on there is a workflow
of that id and no task, and its end is the end of the step's element. A failed step keeps what
needs it from starting; everything else goes on, and only then the workflow ends.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from callboard_broker.errors import BadInput
from callboard_broker.graph import UNDO, Graph, chart
from callboard_broker.wire import Entered, Expanded, Failure, FlowRun, Settled
from callboard_router.compensation import end_if_done, undone
from callboard_router.elements import resume_step
from callboard_router.flow import INLINE, Flow, Result, StepState
from callboard_router.joining import (
    Change,
    at_step,
    ended,
    expanded,
    judge,
    recount,
    set_fate,
    spread,
)
from callboard_router.recovery import enter_next, limit_flow, own_keys, rerun
from callboard_router.state import State, Task
from callboard_router.stopping import flow_paused, halt, live_tasks, open_gates

__all__ = [
    "begin",
    "child_ended",
    "enter",
    "expand",
    "finish_step",
    "flow_paused",
    "flow_settled",
    "halt",
    "live_tasks",
    "open_gates",
    "rerun",
    "signal",
    "skip",
    "step_failed",
]


def begin(state: State, tenant: str, seq: int, shard: int, run: FlowRun) -> None:
    """Create the workflow and what can start at once. Raises `BadInput` if it can never run."""
    graph = chart(run)
    inputs = bytes(run.inputs) if len(run.inputs) <= INLINE else None
    flow = Flow(
        id=str(seq),
        tenant=tenant,
        shard=shard,
        seq=seq,
        name=run.name,
        graph=graph,
        output=None if run.output is UNSET else bytes(run.output),
        inputs=[Result(seq, inputs)],
        steps={name: StepState() for name in graph.nodes},
        timeout=run.timeout,
        at_once=run.at_once,
        trace=run.trace or "",
    )
    _start(state, flow)


def enter(state: State, task: Task, seq: int, event: Entered) -> bool:
    """The workflow inside a step begins, and takes the place of the step's task."""
    outer = state.flows.get(task.flow or "")
    node = None if outer is None else outer.graph.nodes.get(task.step)
    if outer is None or node is None or node.graph is None or node.step.flow is None:
        return False
    inside = node.step.flow
    given = bytes(event.inputs) if isinstance(event.inputs, msgspec.Raw) else b"null"
    short = event.blob is None and len(given) <= INLINE
    state.remove(task)
    outer.nested[task.id] = None
    flow = Flow(
        id=task.id,
        tenant=task.tenant,
        shard=task.shard,
        seq=seq,
        name=f"{outer.name}.{task.step}"[:128],
        graph=node.graph,
        output=None if inside.output is UNSET else bytes(inside.output),
        inputs=[Result(seq, given if short else None, event.blob)],
        steps={name: StepState() for name in node.graph.nodes},
        timeout=node.step.timeout,
        at_once=inside.at_once,
        parent=outer.id,
        step=task.step,
        index=task.index,
        generation=task.life.generation,
        base=task.life.attempt,
        last_attempt=task.life.attempt,
        paused=task.paused,
        keys=outer.keys,
        trace=outer.trace,
    )
    _start(state, flow)
    if task.cancel is not None:
        halt(state, flow, outer.ending or "cancelled", task.cancel)
    return True


def _start(state: State, flow: Flow) -> None:
    flow.began_at = state.at_ms
    if flow.timeout is not None:
        flow.expires_at = state.at_ms + int(flow.timeout * 1000)
    state.flows[flow.id] = flow
    state.fresh.append(flow.id)
    limit_flow(state, flow)
    recount(flow)
    work: list[Change] = []
    for name in flow.graph.nodes:
        judge(state, flow, name, work)
    spread(state, flow, work)
    end_if_done(state, flow)


def expand(state: State, flow: Flow, event: Expanded) -> bool:
    """A fan-out's list is known: its tasks exist from here on, or the step is failed or skipped.

    Without a step, it is the workflow's output that cannot be made.
    """
    if not event.step and event.error is not None and not flow.open and not flow.failing:
        flow.failure = event.error
        end_if_done(state, flow)
        return True
    if (flow.id, event.step) not in state.to_expand:
        return False
    del state.to_expand[(flow.id, event.step)]
    flow.open -= 1
    work: list[Change] = []
    if event.error is not None:
        set_fate(flow, event.step, "failed", event.error, work)
    elif event.skipped:
        set_fate(flow, event.step, "skipped", Failure("Skipped", event.skipped), work)
    else:
        expanded(flow, event.step, event.items, work)
        resume_step(state, flow, flow.graph.nodes[event.step])
    spread(state, flow, work)
    end_if_done(state, flow)
    return True


def finish_step(state: State, flow: Flow, task: Task, result: Result) -> None:
    """A task of the workflow has succeeded."""
    if task.step == UNDO:
        undone(state, flow, task, succeeded=True)
        return
    if not result.attempt and task.life.attempt:
        result = msgspec.structs.replace(result, attempt=task.life.attempt)
    _ended(state, flow, task.step, task.index, result)


def step_failed(state: State, flow: Flow, task: Task) -> None:
    """A task of the workflow has failed for good, or was cancelled, or has expired."""
    if task.step == UNDO:
        undone(state, flow, task, succeeded=False)
        return
    why = task.life.failure or Failure(task.life.state, f"the task ended as {task.life.state}")
    _failed(state, flow, task.step, task.index, task.life.attempt, why)


def skip(state: State, flow: Flow, task: Task, _reason: str) -> None:
    """The condition of a task of the workflow does not hold."""
    _ended(state, flow, task.step, task.index, task.life.attempt, skipped=True)


def flow_settled(state: State, flow: Flow, seq: int, event: Settled) -> None:
    """The workflow has ended and left the state: if it was inside a step, its element has ended."""
    for key in own_keys(flow):
        state.accounts.unbound(key)
    outer = state.flows.get(flow.parent or "")
    if outer is None:
        return
    del outer.nested[flow.id]
    step = outer.steps[flow.step]
    if event.state == "succeeded":
        value = bytes(event.result) if isinstance(event.result, msgspec.Raw) else b"null"
        short = event.blob is None and len(value) <= INLINE
        result = Result(seq, value if short else None, event.blob, flow.last_attempt)
        _ended(state, outer, flow.step, flow.index, result)
        return
    if not step.released:
        step.asleep[flow.index] = flow
    why = event.error or flow.failure or Failure(event.state, f"it ended as {event.state}")
    _failed(state, outer, flow.step, flow.index, flow.last_attempt, why)


def child_ended(state: State, flow: Flow) -> None:
    """A task that one of the workflow's tasks had spawned has ended, in whatever way."""
    flow.open -= 1
    end_if_done(state, flow)


def signal(state: State, flow: Flow, name: str, result: Result) -> None:
    """A signal has come: it opens the gates that wait for it, and is kept for those that will.

    Raises `BadInput` if no gate of the workflow has this name.
    """
    known = sorted(_signal_names(flow.graph))
    if name not in known:
        which = ", ".join(known[:12]) or "none"
        raise BadInput("name", f"no gate waits for a signal {name!r}; signals are: {which}")
    flow.signals[name] = result
    for gate in open_gates(state, flow, "signal"):
        said = state.flows[gate.flow or ""].graph.nodes[gate.step].step.gate
        if said is not None and said.signal == name:
            gate.decided = result
            state.fresh.append(gate.id)


def _signal_names(graph: Graph) -> set[str]:
    found: set[str] = set()
    for node in graph.nodes.values():
        if node.step.gate is not None and node.step.gate.signal is not None:
            found.add(node.step.gate.signal)
        if node.graph is not None:
            found |= _signal_names(node.graph)
    return found


def _failed(state: State, flow: Flow, name: str, index: int, attempt: int, why: Failure) -> None:
    released = flow.steps[name].released
    if not released and not flow.graph.nodes[name].tolerated and flow.ending is None:
        flow.failure = flow.failure or at_step(name, why)
    _ended(state, flow, name, index, attempt, skipped=released)


def _ended(
    state: State, flow: Flow, name: str, index: int, found: Result | int, *, skipped: bool = False
) -> None:
    flow.open -= 1
    attempt = found.attempt if isinstance(found, Result) else found
    flow.last_attempt = max(flow.last_attempt, attempt)
    work: list[Change] = []
    ended(flow, name, index, found, work, skipped=skipped)
    if flow.graph.nodes[name].graph is not None:
        enter_next(state, flow, name)
    spread(state, flow, work)
    end_if_done(state, flow)
