"""How a workflow as a whole begins inside of another one, and how it ends with all that is in it.

Which may begin or end, and when, is the router's to say; what still waits in a workflow that ends
was needed by nobody.
"""

from __future__ import annotations

from callboard_broker.record import Record
from callboard_broker.rule import TaskState
from callboard_broker.wire import Entered, Failure, Settled
from callboard_ledger.book import Book, element_key
from callboard_ledger.flow_plan import lay_out
from callboard_ledger.rows import Flow, Task, remember
from callboard_ledger.workflows import count, number, tally

__all__ = ["end_flow", "enter"]


def enter(book: Book, record: Record, tenant: str, event: Entered) -> bool:
    """The workflow inside a step begins: from here on it stands for the step's element."""
    flow_id, *rest = event.task.rsplit(".", 2)
    outer = book.flows.get(flow_id)
    idx = number(rest[1]) if len(rest) == 2 else None
    if outer is None or outer.tenant != tenant or outer.ended or idx is None:
        return False
    step = outer.steps.get(rest[0])
    if step is None or step.plan.flow is None:
        return False
    key = element_key(rest[0], idx)
    row = outer.rows.get(key)
    if isinstance(row, Task):
        if row.state == "running" or (row.ended and row.generation >= outer.generation):
            return False
        tally(step, row, -1)
        book.drop(row)
        row = None
    if row is None:
        row = Flow(
            id=event.task,
            seq=record.seq,
            tenant=tenant,
            name=f"{outer.name}.{rest[0]}"[:128],
            posted_at=record.at_ns // 1_000_000,
            shard=outer.shard,
            flow=flow_id,
            step=rest[0],
            idx=idx,
            steps={},
            rows={},
        )
        outer.rows[key] = row
    elif (row.state == "running" and (not row.woken or _runs(row))) or (
        row.ended and row.generation >= outer.generation
    ):
        return False
    else:
        tally(step, row, -1)
        row.edits = [record.seq]
    _begin_inner(row, outer)
    lay_out(row, step.plan.flow)
    book.flows[row.id] = row
    if outer.state == "waiting":
        outer.state = "running"
    tally(step, row, 1)
    book.touch_flow(outer)
    book.touch_flow(row)
    return True


def _begin_inner(row: Flow, outer: Flow) -> None:
    remember(row, row.end_seq)
    row.state = "running"
    row.generation = outer.generation
    row.end_seq = row.ended_at = row.error = None
    row.cancel, row.paused, row.woken = outer.cancel, False, False


def end_flow(book: Book, flow: Flow, record: Record, event: Settled) -> bool:
    """The terminal event of a workflow of which nothing runs any more."""
    if flow.ended or _runs(flow):
        return False
    before: TaskState = flow.state
    flow.state = event.state
    flow.error = event.error or (None if event.state == "succeeded" else flow.error)
    flow.end_seq = record.seq
    flow.ended_at = record.at_ns // 1_000_000
    for row in flow.rows.values():
        if not row.ended:
            _end_with(book, flow, row)
    book.touch_flow(flow)
    if flow.flow is not None:
        count(book, flow, before)
    elif flow.dead and not flow.refused:
        book.dead_flows.bury(flow, book.at_ms)
    return True


def _runs(flow: Flow) -> bool:
    """Whether a task of it runs."""
    return any(
        row.state == "running" if isinstance(row, Task) else _runs(row)
        for row in flow.rows.values()
    )


def _end_with(book: Book, flow: Flow, row: Task | Flow) -> None:
    """Nobody ended the element, so nobody needs it: it goes with its workflow."""
    step = flow.steps.get(row.step or "")
    if step is not None:
        tally(step, row, -1)
    row.state = "cancelled"
    row.end_seq, row.ended_at = flow.end_seq, flow.ended_at
    why = Failure("NotNeeded", "its workflow has ended without it")
    if isinstance(row, Task):
        row.failure = row.failure or why
        book.touch(row)
    else:
        row.error = row.error or why
        for inner in row.rows.values():
            if not inner.ended:
                _end_with(book, row, inner)
        book.touch_flow(row)
    if step is not None:
        tally(step, row, 1)
