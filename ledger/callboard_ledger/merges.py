"""A post that repeats another one: its row goes, and its id leads to the first one's.

Only what nobody has begun can be merged; it costs no work then, and nothing else names it.
"""

from __future__ import annotations

from callboard_broker.wire import Merged
from callboard_ledger.book import Book
from callboard_ledger.rows import Flow, Merge, Schedule, Task

__all__ = ["merge"]


def merge(book: Book, tenant: str, event: Merged) -> bool:
    """Take the row of `event.task` out of the book; whether the event counts."""
    task = book.tasks.get(event.task)
    flow = book.flows.get(event.task)
    schedule = book.schedules.get(event.task)
    command = book.commands.get(event.task)
    row = task or flow or schedule or command
    if row is None or row.tenant != tenant:
        return False
    if task is not None:
        if not _is_untouched(task):
            return False
        del book.tasks[task.id]
    elif flow is not None:
        if not _is_unbegun(flow):
            return False
        del book.flows[flow.id]
    elif schedule is not None:
        if not _has_not_fired(schedule):
            return False
        del book.schedules[schedule.id]
    elif command is not None:
        book.answered(command)
    # A store deletes its row after it wrote those that changed.
    book.merges.append(Merge(row.seq, tenant, event.same_as))
    return True


def _is_untouched(task: Task) -> bool:
    return task.step is None and task.state == "waiting" and task.attempt == 0


def _is_unbegun(flow: Flow) -> bool:
    return flow.flow is None and flow.state == "waiting" and not flow.rows and not flow.generation


def _has_not_fired(schedule: Schedule) -> bool:
    return not schedule.number and not schedule.ended
