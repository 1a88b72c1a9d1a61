"""How a live workflow goes on: part of the fold, without a barrier between levels.

`_advance` is the one place that starts anything. It may be called whenever something about a step
has changed, as often as one likes: it creates what has become ready and is not there yet. A failed
step keeps its dependents from starting; everything that does not depend on it goes on.
"""

from __future__ import annotations

from msgspec import UNSET

from callboard_broker.graph import Node, chart
from callboard_broker.rule import Life
from callboard_broker.wire import Expanded, Failure, FlowRun
from callboard_router.state import INLINE, Flow, Result, State, StepState, Task

__all__ = ["begin", "expand", "finish_step", "step_failed"]


def begin(state: State, tenant: str, seq: int, shard: int, run: FlowRun) -> None:
    """Create the workflow and what can start at once. Raises `BadInput` if it can never run."""
    graph = chart(run)
    flow = Flow(
        id=str(seq),
        tenant=tenant,
        shard=shard,
        seq=seq,
        name=run.name,
        graph=graph,
        output=None if run.output is UNSET else bytes(run.output),
        inputs=bytes(run.inputs) if len(run.inputs) <= INLINE else None,
        steps={name: StepState() for name in graph.nodes},
    )
    state.flows[flow.id] = flow
    for name in graph.nodes:
        _advance(state, flow, name)


def expand(state: State, flow: Flow, event: Expanded) -> bool:
    """A fan-out's list is known: its tasks exist from here on, or the step has failed."""
    if state.to_expand.pop((flow.id, event.step), _ABSENT) is _ABSENT:
        return False
    flow.open -= 1
    step = flow.steps[event.step]
    if event.error is not None:
        step.unexpandable = True
        flow.failure = flow.failure or _at(event.step, event.error)
    else:
        step.total = event.items
        node = flow.graph.nodes[event.step]
        for index in range(event.items):
            _create(state, flow, node, index)
        _feed(state, flow, node)
    _end_if_done(state, flow)
    return True


def finish_step(state: State, flow: Flow, task: Task, result: Result) -> None:
    """A task of the workflow has succeeded."""
    flow.open -= 1
    step = flow.steps[task.step]
    step.results[task.index] = result
    node = flow.graph.nodes[task.step]
    if step.complete:
        _feed(state, flow, node)
    else:
        for name in node.feeds:
            if flow.graph.nodes[name].follows == task.step:
                _advance(state, flow, name, task.index)
    _end_if_done(state, flow)


def step_failed(state: State, flow: Flow, task: Task) -> None:
    """A task of the workflow has failed for good, or was cancelled, or has expired."""
    flow.open -= 1
    flow.steps[task.step].failures.add(task.index)
    why = task.life.failure or Failure(task.life.state, f"the task ended as {task.life.state}")
    flow.failure = flow.failure or _at(task.step, why)
    _end_if_done(state, flow)


def _feed(state: State, flow: Flow, node: Node) -> None:
    for name in node.feeds:
        _advance(state, flow, name)


def _advance(state: State, flow: Flow, name: str, index: int | None = None) -> None:
    """Start what has become ready of step `name`; `index` narrows the look to one element."""
    node, step = flow.graph.nodes[name], flow.steps[name]
    if not all(flow.steps[need].complete for need in node.needs):
        return
    if node.follows is not None:
        source = flow.steps[node.follows]
        if step.total is None and source.total is not None:
            step.total = source.total
            _feed(state, flow, node)
        for ready in (index,) if index is not None else sorted(source.results):
            _create(state, flow, node, ready)
    elif node.step.each is not None:
        expanding = step.unexpandable or (flow.id, name) in state.to_expand
        if step.total is None and not expanding:
            state.to_expand[(flow.id, name)] = None
            flow.open += 1
            state.fresh.append(flow.id)
    elif step.total is None:
        step.total = 1
        _create(state, flow, node, 0)


def _create(state: State, flow: Flow, node: Node, index: int) -> None:
    task_id = f"{flow.id}.{node.step.id}.{index}"
    step = flow.steps[node.step.id]
    if task_id in state.tasks or index in step.results or index in step.failures:
        return
    state.tasks[task_id] = Task(
        id=task_id,
        tenant=flow.tenant,
        capability=node.step.capability,
        shard=flow.shard,
        order=state.seq,
        priority=node.step.priority,
        timeout=node.step.timeout,
        life=Life(),
        flow=flow.id,
        step=node.step.id,
        index=index,
    )
    flow.open += 1
    state.fresh.append(task_id)


def _end_if_done(state: State, flow: Flow) -> None:
    """Nothing runs and nothing can start any more: the router settles the workflow."""
    if not flow.open:
        state.fresh.append(flow.id)


def _at(step: str, why: Failure) -> Failure:
    field = f"{step}.{why.field}" if why.field else None
    return Failure(why.type, f"step {step}: {why.message}", field=field)


_ABSENT = object()
