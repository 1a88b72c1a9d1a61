"""Partial recovery: what of a workflow that ended without success runs again, and what stays.

What failed runs again, what was undone, and what depends on either; results of their siblings
stay. A failure that its dependents coped with runs again only if one of them does. From a given
step on, all results are dropped. Attempts are counted on, also those of dropped results, so that
no attempt is ever taken for an older one.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.graph import Node, downstream
from callboard_broker.wire import Command
from callboard_router.compensation import end_if_done
from callboard_router.elements import create, has_room, resume_step
from callboard_router.flow import INLINE, Flow, Result, StepState
from callboard_router.joining import Change, ended, judge, recount, spread
from callboard_router.state import State

__all__ = ["enter_next", "limit_flow", "own_keys", "rerun"]


def limit_flow(state: State, flow: Flow) -> None:
    """Bring the workflow's own limits into force: how many of its tasks may run at once."""
    if flow.at_once is not None and f"flow/{flow.id}" not in flow.keys:
        flow.keys = (*flow.keys, f"flow/{flow.id}")
    for key, most in own_keys(flow).items():
        state.accounts.bound(key, most)


def own_keys(flow: Flow) -> dict[str, int]:
    """The budgets that exist for this workflow alone."""
    found = {} if flow.at_once is None else {f"flow/{flow.id}": flow.at_once}
    for name, node in flow.graph.nodes.items():
        if node.step.at_once is not None and node.step.capability:
            found[f"flow/{flow.id}/{name}"] = node.step.at_once
    return found


def rerun(state: State, flow: Flow, command: Command, seq: int) -> None:
    """A workflow that ended without success begins a new generation; it is live from here on.

    Raises `BadInput` before anything has changed.
    """
    start = command.source
    if start is not None and start not in flow.graph.nodes:
        known = ", ".join(list(flow.graph.nodes)[:12])
        raise BadInput("from", f"there is no step {start!r}; the steps are {known}")
    edited = command.payload
    if isinstance(edited, msgspec.Raw):
        if not isinstance(msgspec.json.decode(edited), dict):
            raise BadInput("payload", "edited inputs are an object: they are merged over the old")
        short = len(edited) <= INLINE
        flow.inputs = [*flow.inputs, Result(seq, bytes(edited) if short else None)]
    _again(state, flow, start, edited=isinstance(edited, msgspec.Raw))


def _again(state: State, flow: Flow, start: str | None, *, edited: bool) -> None:
    whole, some = _chosen(flow, start)
    for name in whole:
        _reset(flow, name)
    for name, indexes in some.items():
        _reset_elements(state, flow, name, indexes)
    flow.generation += 1
    flow.failure = flow.ending = flow.undos = flow.undoing = None
    flow.reason = ""
    flow.paused = False
    flow.open = 0
    flow.expires_at = None if flow.timeout is None else state.at_ms + int(flow.timeout * 1000)
    state.flows[flow.id] = flow
    state.fresh.append(flow.id)
    limit_flow(state, flow)
    _catch_up(flow)
    recount(flow)
    for step in flow.steps.values():
        step.entered = 0
        step.held.clear()
    _wake(state, flow, edited=edited)
    work: list[Change] = []
    for node in flow.graph.nodes.values():
        _go_on(state, flow, node)
    for name in sorted(flow.graph.nodes, key=lambda found: not flow.graph.nodes[found].chooses):
        judge(state, flow, name, work)
    spread(state, flow, work)
    end_if_done(state, flow)


def _go_on(state: State, flow: Flow, node: Node) -> None:
    """A step that had begun gets back the elements that run again."""
    step, name = flow.steps[node.step.id], node.step.id
    if not step.begun or step.fate or step.released:
        return
    if node.follows is None and step.total is None:
        state.to_expand[(flow.id, name)] = None  # it was halted before its list was counted
        flow.open += 1
    else:
        resume_step(state, flow, node)


def _chosen(flow: Flow, start: str | None) -> tuple[set[str], dict[str, set[int]]]:
    """Steps of which nothing stays, and elements of others that run again."""
    graph, steps = flow.graph, flow.steps
    whole = downstream(graph, [start]) if start is not None else set[str]()
    some: dict[str, set[int]] = {}
    for name, node in graph.nodes.items():
        step = steps[name]
        again = set(step.undone)
        if not node.tolerated:
            again |= step.failures.keys()
            if step.fate == "failed":
                whole.add(name)
        if name in whole:
            _dirty(flow, name, whole)
        elif again:
            _redo(flow, name, again, some)
        if name in some:
            _dirty(flow, name, whole, item_by_item=False)
    while _add_tolerated(flow, whole, some):
        pass
    return whole, {name: indexes for name, indexes in some.items() if name not in whole}


def _add_tolerated(flow: Flow, whole: set[str], some: dict[str, set[int]]) -> bool:
    """What failed and was tolerated runs again if what comes after it does, which then begins as a
    whole: its join is to be judged anew. Returns whether anything was added."""
    steps, before = flow.steps, len(whole)
    added = False
    for name, node in reversed(flow.graph.nodes.items()):
        step = steps[name]
        absent = step.failures.keys() | step.skipped.keys()
        if name in whole or not (absent or step.fate or step.released):
            continue
        if node.feeds and not any(
            fed in whole or fed in some or not steps[fed].over for fed in node.feeds
        ):
            continue
        if step.fate:
            whole.add(name)
        elif not absent <= some.get(name, set()):
            _redo(flow, name, absent, some)
            added = True
        for fed in node.feeds:
            if fed in some and fed not in whole and name in flow.graph.nodes[fed].needs:
                whole |= downstream(flow.graph, [fed])
    return added or len(whole) > before


def _dirty(flow: Flow, name: str, whole: set[str], *, item_by_item: bool = True) -> None:
    """What was made of the old results runs again as a whole, if it has begun."""
    for fed in flow.graph.nodes[name].feeds:
        node, step = flow.graph.nodes[fed], flow.steps[fed]
        if (name in node.needs or item_by_item) and (step.begun or step.fate or step.ended):
            whole.add(fed)


def _redo(flow: Flow, name: str, indexes: Iterable[int], some: dict[str, set[int]]) -> None:
    """These elements, and the same ones of all that follow item by item."""
    left = [name]
    while left:
        found = left.pop()
        some.setdefault(found, set()).update(indexes)
        left += [
            fed for fed in flow.graph.nodes[found].feeds if flow.graph.nodes[fed].follows == found
        ]


def _reset(flow: Flow, name: str) -> None:
    old = flow.steps[name]
    attempts = dict(old.attempts)
    attempts.update({index: found.attempt for index, found in old.results.items()})
    attempts.update(old.failures)
    attempts.update(old.skipped)
    flow.steps[name] = StepState(
        attempts={index: last for index, last in attempts.items() if last},
        need=old.need,
        terms=old.terms,
    )
    gate = flow.graph.nodes[name].step.gate
    if gate is not None and gate.signal is not None:
        flow.signals.pop(gate.signal, None)


def _reset_elements(state: State, flow: Flow, name: str, indexes: set[int]) -> None:
    step = flow.steps[name]
    for index in indexes:
        found = step.results.pop(index, None)
        last = found.attempt if found is not None else 0
        last = last or step.failures.pop(index, 0) or step.skipped.pop(index, 0)
        step.failures.pop(index, None)
        step.skipped.pop(index, None)
        if last:
            step.attempts[index] = last
    step.undone = [index for index in step.undone if index not in indexes]
    step.released = False
    if step.begun:
        step.begun = state.seq


def _catch_up(flow: Flow) -> None:
    """An element whose predecessor stays absent is absent again, although it was cleared."""
    for name, node in flow.graph.nodes.items():
        step = flow.steps[name]
        if node.follows is None or step.fate:
            continue
        source = flow.steps[node.follows]
        step.total = source.total
        for absent, skipped in ((source.failures, False), (source.skipped, True)):
            for index in absent:
                if index not in step.failures and index not in step.skipped:
                    ended(flow, name, index, step.attempts.pop(index, 0), [], skipped=skipped)


def enter_next(state: State, flow: Flow, name: str) -> None:
    """An element with an inner workflow has ended: one that was held back may begin, or go on."""
    step, node = flow.steps[name], flow.graph.nodes[name]
    step.entered -= 1
    if has_room(step, node) and step.held and flow.ending is None and not step.released:
        index = step.held.popleft()
        if index in step.asleep:
            _go_on_inside(state, flow, step, index)
        else:
            create(state, flow, node, index)


def _wake(state: State, flow: Flow, *, edited: bool) -> None:
    """Inner workflows that failed go on where they were, no more of a step at once than it allows;
    with other inputs, they begin anew."""
    for name, node in flow.graph.nodes.items():
        step = flow.steps[name]
        for index in sorted(step.asleep):
            if index in step.failures or index in step.skipped:
                continue
            if edited:
                del step.asleep[index]  # its step's element has its attempts
            elif has_room(step, node):
                _go_on_inside(state, flow, step, index)


def _go_on_inside(state: State, flow: Flow, step: StepState, index: int) -> None:
    inner = step.asleep.pop(index)
    step.attempts.pop(index, None)
    step.entered += 1
    flow.nested[inner.id] = None
    flow.open += 1
    _again(state, inner, None, edited=False)
