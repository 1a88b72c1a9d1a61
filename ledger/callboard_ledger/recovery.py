"""What of a workflow that ended without success runs again when it is resumed.

What failed, what depends on it, and from a given step on everything. The ledger shows at once what
the router will do; where an element begins again that was not foreseen here, its first event says
so (`workflows.find_step`), and what was foreseen and never comes ends with its workflow.
"""

from __future__ import annotations

from callboard_ledger.book import Book, element_key
from callboard_ledger.flow_plan import downstream, expand, feeds
from callboard_ledger.rows import Flow, FlowStep, Task, remember
from callboard_ledger.undoing import to_undo, undos_of
from callboard_ledger.workflows import begin_anew, tally

__all__ = ["resume_flow"]


def resume_flow(book: Book, flow: Flow, source: str | None, *, edited_at: int | None) -> None:
    """The workflow lives again. source: the step from which all runs again. edited_at: the
    command that changed its inputs."""
    book.dead_flows.revive(flow)
    if edited_at is not None:
        flow.edits = [*(flow.edits or ()), edited_at]
    _again(book, flow, source, edited=edited_at is not None)


def _again(book: Book, flow: Flow, source: str | None, *, edited: bool) -> None:
    whole, some = _chosen(flow, source)
    remember(flow, flow.end_seq)
    flow.state = "running"
    flow.generation += 1
    flow.error = flow.end_seq = flow.ended_at = flow.cancel = None
    flow.paused = False
    book.flows[flow.id] = flow
    for key, row in flow.rows.items():
        if row.step not in whole and key not in some:
            continue
        if isinstance(row, Task) or row.step in whole or edited:
            begin_anew(book, row, flow.generation)
        elif row.dead:
            row.woken = True
            _again(book, row, None, edited=False)
    for name, step in flow.steps.items():
        if name in whole and step.plan.fans_out:
            _unfold(flow, step)
        step.running = step.succeeded = step.failed = step.cancelled = step.skipped = 0
    for row in flow.rows.values():
        counted = flow.steps.get(row.step or "")
        if counted is not None:
            tally(counted, row, 1)
    book.touch_flow(flow)


def _unfold(flow: Flow, step: FlowStep) -> None:
    """How many elements the step has is to be found out again."""
    followed = flow.steps.get(step.plan.follows or "")
    if followed is None:
        expand(flow, step, None)
    else:
        step.total = followed.total


def _chosen(flow: Flow, source: str | None) -> tuple[set[str], set[str]]:
    """Steps that run again as a whole, and elements of others."""
    whole = downstream(flow, source) if source in flow.steps else set[str]()
    absent: dict[str, list[int]] = {name: [] for name in flow.steps}
    for row in flow.rows.values():
        if row.dead and row.step in absent and row.idx is not None:
            absent[row.step].append(row.idx)
    some: set[str] = set()
    again: set[str] = set()
    undone = _undone(flow)
    for name, step in flow.steps.items():
        if name not in whole:
            failed = [] if step.plan.tolerated else absent[name]
            again |= _redo(flow, name, [*undone.get(name, ()), *failed], some)
            if step.failed and not absent[name] and not step.plan.tolerated:
                whole.add(name)  # it could not be expanded
        if name in whole or name in again:
            whole |= {fed.plan.id for fed in feeds(flow, name) if name in fed.plan.needs}
    while _add_tolerated(flow, absent, whole, again, some):
        pass
    return whole, some


def _add_tolerated(
    flow: Flow, absent: dict[str, list[int]], whole: set[str], again: set[str], some: set[str]
) -> bool:
    """What failed and was tolerated runs again if what comes after it does, which then begins as a
    whole. Returns whether anything was added."""
    before = (len(whole), len(again), len(some))
    for name in reversed(flow.steps):
        if name in whole or not absent[name]:
            continue
        fed = feeds(flow, name)
        if fed and not any(_runs(after, whole | again) for after in fed):
            continue
        again |= _redo(flow, name, absent[name], some)
        for after in fed:
            if after.plan.id in again and name in after.plan.needs:
                whole |= downstream(flow, after.plan.id)
    return (len(whole), len(again), len(some)) > before


def _runs(step: FlowStep, again: set[str]) -> bool:
    return step.plan.id in again or not step.complete


def _undone(flow: Flow) -> dict[str, list[int]]:
    """The elements that were undone: the last one to succeed was the first."""
    found: dict[str, list[int]] = {}
    # What was never undone is left over.
    for row, undo in zip(to_undo(flow), undos_of(flow), strict=False):
        if undo.state == "succeeded" and row.step is not None and row.idx is not None:
            found.setdefault(row.step, []).append(row.idx)
    return found


def _redo(flow: Flow, name: str, indexes: list[int], some: set[str]) -> set[str]:
    """These elements, and the same ones of all that follow item by item."""
    some.update(element_key(name, index) for index in indexes)
    found = {name} if indexes else set[str]()
    for step in flow.steps.values():
        if indexes and step.plan.follows == name:
            found |= _redo(flow, step.plan.id, indexes, some)
    return found
