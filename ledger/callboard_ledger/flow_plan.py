"""The steps of a workflow as the ledger counts them: laid out at the post, known by `expanded`."""

from __future__ import annotations

from callboard_broker.errors import BadInput
from callboard_broker.graph import Graph, chart
from callboard_broker.wire import Failure, FlowRun
from callboard_ledger.budgets import draws_of
from callboard_ledger.rows import Flow, FlowStep, StepPlan

__all__ = ["downstream", "expand", "feeds", "lay_out", "plan"]


def plan(flow: Flow, run: FlowRun) -> None:
    """Lay out the steps of a posted workflow; one that can never run has its error instead."""
    flow.name = run.name
    if run.shard is not None:
        flow.shard = run.shard
    try:
        graph = chart(run)
    except BadInput as error:
        flow.error = Failure("BadInput", error.reason, field=error.field)
        return
    lay_out(flow, _plans(graph))


def lay_out(flow: Flow, plans: tuple[StepPlan, ...]) -> None:
    """Nothing of the workflow has begun."""
    for step in plans:
        flow.steps[step.id] = FlowStep(step, None if step.fans_out else 1)


def expand(flow: Flow, step: FlowStep, items: int | None) -> None:
    """A fan-out has `items` elements, and so has every step that follows it item by item.

    None: nobody knows any more.
    """
    step.total = items
    for other in flow.steps.values():
        if other.plan.follows == step.plan.id:
            expand(flow, other, items)


def downstream(flow: Flow, name: str) -> set[str]:
    """The step `name` and every one that depends on it, however far."""
    found = {name}
    for step in flow.steps.values():  # each stands after those that it depends on
        plan = step.plan
        if plan.follows in found or not found.isdisjoint(plan.needs):
            found.add(plan.id)
    return found


def feeds(flow: Flow, name: str) -> list[FlowStep]:
    """The steps that name this one."""
    return [
        step for step in flow.steps.values() if name in step.plan.needs or step.plan.follows == name
    ]


def _plans(graph: Graph) -> tuple[StepPlan, ...]:
    return tuple(
        StepPlan(
            name,
            node.step.capability,
            node.step.priority,
            node.step.each is not None,
            node.follows,
            tuple(sorted(node.needs)),
            node.tolerated,
            node.step.join,
            node.step.gate,
            None if node.graph is None else _plans(node.graph),
            "" if node.step.compensate is None else node.step.compensate.capability,
            draws_of(node.step),
        )
        for name, node in graph.nodes.items()
    )
