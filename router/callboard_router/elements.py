"""How the elements of a step become tasks, as far as they may.

An element is created once a generation. What it draws on is worked out once a step. Elements with
an inner workflow begin a few at a time, so that a long list of them does not fill the memory.
"""

from __future__ import annotations

from callboard_broker.graph import Node
from callboard_broker.rule import Life
from callboard_router.budget import Need, need_of
from callboard_router.flow import Flow, Result, StepState
from callboard_router.state import State, Task

__all__ = ["create", "has_room", "resume_step"]

_ENTERED_AT_ONCE = 256
"""Inner workflows of one fan-out that live at the same time, if its step does not say."""


def resume_step(state: State, flow: Flow, node: Node) -> None:
    """Create the elements of a step that has begun, as far as they are not there yet."""
    step = flow.steps[node.step.id]
    if node.follows is None:
        for index in range(step.total or 0):
            create(state, flow, node, index)
        return
    source = flow.steps[node.follows]
    for index in sorted(source.results):
        create(state, flow, node, index)


def create(state: State, flow: Flow, node: Node, index: int) -> None:
    """An element becomes a task, unless it is one or was."""
    name = node.step.id
    step, task_id = flow.steps[name], f"{flow.id}.{name}.{index}"
    if (
        index in step.results
        or index in step.failures
        or index in step.skipped
        or step.released
        or task_id in state.tasks
        or task_id in flow.nested
    ):
        return
    if node.graph is not None:
        if not has_room(step, node):
            step.held.append(index)
            return
        step.entered += 1
    flow.open += 1
    state.add(
        Task(
            id=task_id,
            tenant=flow.tenant,
            capability=node.step.capability,
            shard=flow.shard,
            order=state.seq,
            since=state.at_ms,
            life=Life(attempt=step.attempts.pop(index, flow.base), generation=flow.generation),
            need=step.need or _need(flow, node),
            priority=node.step.priority,
            timeout=node.step.timeout,
            terms=step.terms,
            flow=flow.id,
            step=name,
            index=index,
            decided=_signalled(state, flow, node),
            trace=flow.trace,
        )
    )


def has_room(step: StepState, node: Node) -> bool:
    """Whether one more of the step's inner workflows may live."""
    return step.entered < (node.step.at_once or _ENTERED_AT_ONCE)


def _need(flow: Flow, node: Node) -> Need:
    """What a task of the step draws on; worked out once a step."""
    step, said = flow.steps[node.step.id], node.step
    step.terms = said.plain_terms()
    keys = flow.keys
    if said.at_once is not None and said.capability:
        keys = (*keys, f"flow/{flow.id}/{said.id}")
    need = step.need = need_of(flow.tenant, said.capability, step.terms, flow_keys=keys)
    return need


def _signalled(state: State, flow: Flow, node: Node) -> Result | None:
    """A signal that came before its gate was reached; also to a workflow around this one."""
    gate = node.step.gate
    if gate is None or gate.signal is None:
        return None
    found: Flow | None = flow
    while found is not None:
        if gate.signal in found.signals:
            return found.signals[gate.signal]
        found = state.flows.get(found.parent) if found.parent else None
    return None
