"""The router goes on with what had ended before it says that it carries out the command for that.

A redrive or resume that is not answered yet is therefore carried out with the first event that
counts only because of it. Whether it would is tried on a copy: an event that is void either way
changes nothing.
"""

from __future__ import annotations

import copy

from callboard_broker.wire import Dispatch, Entered, Expanded, Halted, Settled, Skipped
from callboard_ledger.book import Book
from callboard_ledger.rows import CommandRow

__all__ = ["WAKING", "apart", "unanswered"]

WAKING = (Dispatch, Entered, Expanded, Halted, Settled, Skipped)
"""What a router may write of something that lives again; all else follows one of these."""


def unanswered(book: Book, row_id: str, tenant: str) -> CommandRow | None:
    """The first command by which `row_id`, or the workflow around it, would live again."""
    head = row_id.partition(".")[0]
    if book.dead.get(row_id) is not None:
        name, verb = row_id, "redrive"
    elif book.dead_flows.get(head) is not None:
        name, verb = head, "resume"
    else:
        return None
    for row in book.asked.get(name, ()):
        if row.verb == verb and row.tenant == tenant and not row.done:
            return row
    return None


def apart(book: Book, row_id: str) -> Book:
    """A book of a copy of what has ended under this id, or around it, and of nothing else."""
    found = Book()
    found.at_ms = book.at_ms
    task, flow = book.dead.get(row_id), book.dead_flows.get(row_id.partition(".")[0])
    if task is not None:
        found.dead.bury(copy.deepcopy(task), book.at_ms)
    elif flow is not None:
        found.dead_flows.bury(copy.deepcopy(flow), book.at_ms)
    return found
