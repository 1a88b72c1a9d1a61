"""The steps of a workflow as the ledger counts them: laid out at the post, known by `expanded`."""

from __future__ import annotations

from callboard_broker.errors import BadInput
from callboard_broker.graph import chart
from callboard_broker.wire import Failure, FlowRun
from callboard_ledger.rows import Flow, FlowStep

__all__ = ["expand", "plan"]


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
    for name, node in graph.nodes.items():
        total = 1 if node.step.each is None and node.follows is None else None
        flow.steps[name] = FlowStep(
            name, node.step.capability, total, priority=node.step.priority, follows=node.follows
        )


def expand(flow: Flow, step: FlowStep, items: int) -> None:
    """A fan-out has `items` elements, and so has every step that follows it item by item."""
    step.total = items
    for other in flow.steps.values():
        if other.follows == step.id:
            expand(flow, other, items)
