"""The router's decisions about workflows: lists to go over, inner workflows to enter, ends.

Each is written as an event with the outcome of whatever was worked out, so that a fold need not
look at payloads. A value that is not at hand parks the question until it was fetched.
"""

from __future__ import annotations

from typing import Any

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.graph import UNDO
from callboard_broker.wire import Entered, Expanded, Failure, Settled, Skipped
from callboard_router.desk import Desk, propose
from callboard_router.filling import Missing, condition_of, count_items, fill_output, fill_payload
from callboard_router.flow import Flow
from callboard_router.proposals import Proposal
from callboard_router.state import Task
from callboard_router.stopping import flow_paused

__all__ = ["condition_holds", "end_flow", "entries", "expansions"]

_ATTACH_INPUTS = 512 * 1024
_ATTACH_RESULT = 32 * 1024
_DOES_NOT_HOLD = "its condition does not hold"


def expansions(desk: Desk, out: list[Proposal]) -> None:
    """Count the elements of the fan-outs whose lists are there."""
    state, agenda = desk.state, desk.agenda
    for flow_id, name in state.to_expand:
        key = f"expand/{flow_id}/{name}"
        flow = state.flows[flow_id]
        if key in desk.proposals or agenda.is_parked(key) or flow_paused(state, flow):
            continue
        items, skipped, error = 0, "", agenda.unfillable.pop(key, None)
        if error is None:
            try:
                node = flow.graph.nodes[name]
                if not node.each_of_item and not condition_of(flow, name, 0, agenda.values):
                    skipped = _DOES_NOT_HOLD
                else:
                    items = count_items(state, flow_id, name, agenda.values, desk.policy.max_items)
            except Missing as missing:
                agenda.park(key, flow_id, missing)
                continue
            except BadInput as bad:
                error = _failure(bad)
        event = Expanded(flow_id, name, state.epoch, items, error, skipped)
        propose(desk, out, key, (flow.tenant, "expanded", flow.shard), event)


def entries(desk: Desk, out: list[Proposal]) -> None:
    """Let the steps begin that are workflows; gates have only their conditions looked at."""
    names, desk.agenda.entering = desk.agenda.entering, {}
    for name in names:
        task = desk.state.tasks.get(name)
        if task is None or name in desk.proposals or not desk.agenda.may_start(task):
            continue
        try:
            _enter(desk, task, out)
        except Missing as missing:
            desk.agenda.park(name, task.flow or "", missing)
        except BadInput as bad:
            desk.agenda.give_up(name, _failure(bad))


def _enter(desk: Desk, task: Task, out: list[Proposal]) -> None:
    epoch = desk.state.epoch
    if not condition_holds(desk, task):
        skipped = Skipped(task.id, epoch, _DOES_NOT_HOLD)
        propose(desk, out, task.id, (task.tenant, "skipped", task.shard), skipped)
        return
    node = desk.state.flows[task.flow or ""].graph.nodes[task.step]
    if node.graph is None:
        return
    inputs = fill_payload(desk.state, task, desk.agenda.values)
    if inputs == b"null":
        inputs = b"{}"
    large = len(inputs) > _ATTACH_INPUTS
    event = Entered(task.id, epoch, msgspec.UNSET if large else msgspec.Raw(inputs))
    place = (task.tenant, "entered", task.shard)
    propose(desk, out, task.id, place, event, attach=inputs if large else None)


def condition_holds(desk: Desk, task: Task) -> bool:
    """Whether a step's task may begin. Raises `Missing`, or `BadInput` if nobody can say."""
    if task.step == UNDO:
        return True
    flow = desk.state.flows[task.flow or ""]
    node = flow.graph.nodes[task.step]
    if node.step.when is msgspec.UNSET:
        return True
    if node.is_many and node.follows is None and not node.each_of_item:
        return True  # it was asked before there were any elements
    return condition_of(flow, task.step, task.index, desk.agenda.values)


def end_flow(desk: Desk, flow: Flow, out: list[Proposal]) -> None:
    """Settle a workflow in which nothing is open."""
    epoch, place = desk.state.epoch, (flow.tenant, "settled", flow.shard)
    if flow.failing:
        ending = flow.ending or "failed"
        why = flow.failure or Failure(ending.capitalize(), flow.reason)
        propose(desk, out, flow.id, place, Settled(flow.id, epoch, ending, why))
        return
    failure, output = desk.agenda.unfillable.pop(flow.id, None), b""
    if failure is None:
        try:
            output = fill_output(desk.state, flow.id, desk.agenda.values)
        except Missing as missing:
            desk.agenda.park(flow.id, flow.id, missing)
            return
        except BadInput as bad:
            failure = Failure("BadInput", bad.reason, field="output", final=True)
    if failure is None:
        large = len(output) > _ATTACH_RESULT
        result: Any = msgspec.UNSET if large else msgspec.Raw(output)
        event = Settled(flow.id, epoch, "succeeded", result=result)
        propose(desk, out, flow.id, place, event, attach=output if large else None)
    elif any(node.step.compensate is not None for node in flow.graph.nodes.values()):
        key = f"expand/{flow.id}/"
        if key not in desk.proposals:  # first it has failed, then it undoes, then it ends
            undo = Expanded(flow.id, "", epoch, error=failure)
            propose(desk, out, key, (flow.tenant, "expanded", flow.shard), undo)
    else:
        propose(desk, out, flow.id, place, Settled(flow.id, epoch, "failed", failure))


def _failure(bad: BadInput) -> Failure:
    return Failure(type(bad).__name__, bad.reason, field=bad.field, final=True)
