"""What the records of a journal do to the steps of workflows: they appear, are counted, and end.

Which step may begin, and when, is the router's to say: its events of the current epoch are taken at
their word, and only what no router could have written is void. So a step of a workflow that was
resumed goes on from whatever attempt the router names.
"""

from __future__ import annotations

from callboard_broker.graph import UNDO
from callboard_broker.record import Record
from callboard_broker.rule import TaskState, begin_again
from callboard_broker.wire import Dispatch, Expanded, Failure, Skipped
from callboard_ledger.book import Book, element_key
from callboard_ledger.flow_plan import expand
from callboard_ledger.rows import Flow, FlowStep, Task, remember
from callboard_ledger.undoing import next_undo

__all__ = [
    "SKIPPED",
    "begin_anew",
    "begin_step",
    "clear",
    "continue_attempts",
    "count",
    "end_unentered",
    "find_step",
    "number",
    "ready_at",
    "skip",
    "take_expansion",
    "tally",
]

SKIPPED = "Skipped"
"""The type of the error of an element whose condition did not hold: it is cancelled."""


def find_step(book: Book, task_id: str, tenant: str, seq: int, attempt: int = 0) -> Task | None:
    """The step with this id that the router may begin or end now; None if there is none.

    attempt: the one that is to begin, if one is.

    It is a new row, which nobody knows before `begin_step`, or one that ended in an earlier
    generation of its workflow and begins again.
    """
    flow_id, *rest = task_id.rsplit(".", 2)
    if len(rest) != 2:
        return None
    flow = book.flows.get(flow_id)
    name, idx = rest[0], number(rest[1])
    if flow is None or flow.tenant != tenant or flow.ended or idx is None:
        return None
    step = flow.steps.get(name)
    if step is None and (name != UNDO or not flow.steps):
        return None
    row = flow.rows.get(element_key(name, idx))
    if row is None:
        return Task(
            id=task_id,
            seq=seq,
            tenant=tenant,
            capability=next_undo(flow) if step is None else step.plan.capability,
            priority=5 if step is None else step.plan.priority,
            generation=flow.generation,
            flow=flow_id,
            step=name,
            idx=idx,
            draws=None if step is None else step.plan.draws,
        )
    if isinstance(row, Flow) or not row.ended or row.generation >= flow.generation:
        return None
    if 0 < attempt <= row.attempt:
        return None
    if step is not None:
        tally(step, row, -1)
    clear(book, row, flow.generation)
    return row


def begin_step(book: Book, task: Task) -> None:
    """The first event of a step counts: from here on it has a row."""
    flow = book.flows[task.flow or ""]
    flow.rows[element_key(task.step, task.idx)] = task
    if task.state == "running" and flow.state == "waiting":
        flow.state = "running"
    book.tasks[task.id] = task


def continue_attempts(task: Task, event: Dispatch) -> None:
    """In a workflow that began again, attempts are counted on from a number that the router knows.

    Some of them have left no row, because their results were dropped.
    """
    fresh = task.dispatched_at is None and task.step is not None and not task.scheduled
    if fresh and task.state == "waiting" and event.attempt > task.attempt:
        task.attempt = event.attempt - 1


def ready_at(book: Book, task: Task) -> int | None:
    """When a task could run that is dispatched for the first time (Unix milliseconds); None: a
    later attempt, or nobody knows."""
    if task.lost or task.unstarted or task.errors or task.generation:
        return None
    if task.step is None or task.scheduled:
        return task.not_before or task.posted_at
    flow = book.flows.get(task.flow or "")
    step = None if flow is None else flow.steps.get(task.step)
    if flow is None or step is None:
        return None
    times = [flow.posted_at, *(flow.steps[name].done_at for name in step.plan.needs)]
    if step.plan.follows is not None:
        upstream = flow.rows.get(element_key(step.plan.follows, task.idx))
        times.append(0 if upstream is None else upstream.ended_at or 0)
    return max(times)


def clear(book: Book, row: Task, generation: int) -> None:
    """The task begins again, and nothing of it has happened yet; what was, is remembered."""
    begin_again(row)
    row.generation = max(generation, row.generation)
    remember(row, row.dispatch_seq)
    remember(row, row.end_seq)
    row.dispatch_seq = row.end_seq = row.dispatched_at = row.ended_at = None
    row.not_before = row.cancel = row.host = None
    row.paused = False
    book.tasks[row.id] = row
    book.touch(row)


def count(book: Book, task: Task | Flow, before: TaskState) -> None:
    """An element went from `before` to its present state: its workflow's counts follow."""
    flow = book.flows.get(task.flow or "")
    if flow is None:
        return
    step = flow.steps.get(task.step or "")
    if step is not None:
        if before == "running":
            step.running -= 1
        tally(step, task, 1)
        if task.ended_at is not None:
            step.done_at = max(step.done_at, task.ended_at)
    book.touch_flow(flow)


def tally(step: FlowStep, row: Task | Flow, by: int) -> None:
    """Count the element where it stands, or no longer (`by` -1)."""
    state = row.state
    if state == "running":
        step.running += by
    elif state == "succeeded":
        step.succeeded += by
    elif state in ("failed", "expired"):
        step.failed += by
    elif state == "cancelled":
        failure = row.failure if isinstance(row, Task) else row.error
        if failure is not None and failure.type == SKIPPED:
            step.skipped += by
        else:
            step.cancelled += by


def skip(book: Book, record: Record, tenant: str, event: Skipped) -> bool:
    """The condition of a step's element does not hold."""
    failure = Failure(SKIPPED, event.reason)
    if end_unentered(book, event.task, tenant, record, ("cancelled", failure)):
        return True
    task = book.tasks.get(event.task)
    if task is None or task.ended:
        task = find_step(book, event.task, tenant, record.seq)
        if task is None:
            return False
        begin_step(book, task)
    elif task.tenant != tenant or task.state != "waiting" or task.step is None or task.scheduled:
        return False
    task.state = "cancelled"
    task.failure = failure
    task.end_seq = record.seq
    task.ended_at = record.at_ns // 1_000_000
    count(book, task, "waiting")
    book.touch(task)
    return True


def end_unentered(
    book: Book,
    task_id: str,
    tenant: str,
    record: Record,
    end: tuple[TaskState, Failure | None],
) -> bool:
    """In a workflow that began again, an element that was a workflow before ends without being
    entered once more. Returns whether it is one."""
    row = book.element(task_id)
    if not isinstance(row, Flow) or row.state != "waiting" or row.tenant != tenant:
        return False
    outer = book.flows.get(row.flow or "")
    if outer is None or outer.ended:
        return False
    row.state, row.error = end
    row.generation = outer.generation
    row.end_seq = record.seq
    row.ended_at = record.at_ns // 1_000_000
    count(book, row, "waiting")
    book.touch_flow(row)
    return True


def take_expansion(book: Book, flow: Flow, event: Expanded) -> bool:
    """A fan-out's list is known, or is not to be had."""
    if not event.step:
        return event.error is not None  # the output cannot be made: the workflow's end will say so
    step = flow.steps.get(event.step)
    if step is None or not step.plan.fans_out or step.plan.follows is not None:
        return False
    if step.total is not None:
        if not flow.generation:
            return False
        renew(book, flow, step.plan.id)
    if event.error is not None:
        step.total = step.failed = 1
    elif event.skipped:
        step.total = step.skipped = 1
    else:
        expand(flow, step, event.items)
        if flow.generation:
            _drop_beyond(book, flow)
    book.touch_flow(flow)
    return True


def renew(book: Book, flow: Flow, name: str) -> None:
    """All elements of a step run again, and of the fan-outs that follow it item by item."""
    for row in flow.rows.values():
        if row.step == name and row.ended:
            begin_anew(book, row, flow.generation)
    step = flow.steps[name]
    step.running = step.succeeded = step.failed = step.cancelled = step.skipped = 0
    for other in flow.steps.values():
        if other.plan.follows == name:
            renew(book, flow, other.plan.id)


def begin_anew(book: Book, row: Task | Flow, generation: int) -> None:
    """The element waits for its next begin; a workflow, until it is entered again."""
    if isinstance(row, Task):
        clear(book, row, generation)
        return
    remember(row, row.end_seq)
    row.state = "waiting"
    row.end_seq = row.ended_at = row.error = row.cancel = None
    book.flows.pop(row.id, None)
    book.touch_flow(row)


def _drop_beyond(book: Book, flow: Flow) -> None:
    """Elements of an earlier generation that wait, and that the list no longer has."""
    for key, row in list(flow.rows.items()):
        step = flow.steps.get(row.step or "")
        if step is None or step.total is None or row.idx is None or row.idx < step.total:
            continue
        if isinstance(row, Task) and row.state == "waiting":
            del flow.rows[key]
            book.drop(row)


def number(text: str) -> int | None:
    """`text` as a sequence or an index, if it is written the one way that we write it."""
    if not text.isdecimal() or not text.isascii() or len(text) > 18:
        return None
    return int(text) if text == "0" or text[0] != "0" else None
