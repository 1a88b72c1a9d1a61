"""What a workflow does before it ends without success: it undoes, one after the other, what it did.

Once nothing of it is open, each element that has succeeded and has something to undo it is undone,
the last one to finish first. An undo that fails is noted in the workflow's error, and the next one
goes on.
"""

from __future__ import annotations

import msgspec

from callboard_broker.graph import UNDO
from callboard_broker.rule import Life
from callboard_broker.wire import Failure
from callboard_router.budget import need_of
from callboard_router.flow import Flow
from callboard_router.state import State, Task

__all__ = ["end_if_done", "undone"]

_NOTE_CHARACTERS = 500
_ERROR_CHARACTERS = 8000


def end_if_done(state: State, flow: Flow) -> None:
    """Nothing runs and nothing can start any more: undo, or let the router settle the workflow."""
    if flow.open:
        return
    if flow.failing:
        if flow.undos is None:
            flow.undos = _to_undo(flow)
        if flow.undos:
            _undo(state, flow, flow.undos.pop())
            return
    state.fresh.append(flow.id)


def undone(state: State, flow: Flow, task: Task, *, succeeded: bool) -> None:
    """An undo has ended."""
    flow.open -= 1
    flow.last_attempt = max(flow.last_attempt, task.life.attempt)
    if flow.undoing is not None:
        name, index = flow.undoing
        flow.undoing = None
        if succeeded:
            flow.steps[name].undone.append(index)
        else:
            _note(flow, f"{name}.{index}", task.life.failure)
    end_if_done(state, flow)


def _to_undo(flow: Flow) -> list[tuple[str, int]]:
    """The next one last; elements of one event in their order."""
    found = [
        (result.seq, place, index, name)
        for place, (name, node) in enumerate(flow.graph.nodes.items())
        if node.step.compensate is not None
        for index, result in flow.steps[name].results.items()
    ]
    return [(name, index) for _, _, index, name in sorted(found)]


def _undo(state: State, flow: Flow, undo: tuple[str, int]) -> None:
    what = flow.graph.nodes[undo[0]].step.compensate
    if what is None:
        raise AssertionError(undo)
    flow.undoing = undo
    flow.undone += 1
    flow.open += 1
    state.add(
        Task(
            id=f"{flow.id}.{UNDO}.{flow.undone}",
            tenant=flow.tenant,
            capability=what.capability,
            shard=flow.shard,
            order=state.seq,
            since=state.at_ms,
            life=Life(attempt=flow.base),
            need=need_of(flow.tenant, what.capability, None),
            flow=flow.id,
            step=UNDO,
            index=flow.undone,
            trace=flow.trace,
        )
    )


def _note(flow: Flow, element: str, why: Failure | None) -> None:
    before = flow.failure or Failure((flow.ending or "failed").capitalize(), flow.reason)
    said = "it ended without success" if why is None else f"{why.type}: {why.message}"
    text = f"{before.message}; {element} could not be undone: {said[:_NOTE_CHARACTERS]}"
    flow.failure = msgspec.structs.replace(before, message=text[:_ERROR_CHARACTERS])
