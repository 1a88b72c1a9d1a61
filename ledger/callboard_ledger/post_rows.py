"""What a post makes: a task, or a schedule of tasks.

Every post counts, also one that cannot be read, or whose parent is not the current attempt any
more: its task then has its failure and waits for the router to end it.
"""

from __future__ import annotations

from callboard_broker.record import Record
from callboard_broker.subjects import SHARDS
from callboard_broker.wire import Failure, Parent, Post
from callboard_ledger.book import Book
from callboard_ledger.budgets import draws_of
from callboard_ledger.reading import Reading
from callboard_ledger.rows import Task
from callboard_ledger.schedules import begin_schedule

__all__ = ["take_post"]


def take_post(book: Book, record: Record, reading: Reading) -> None:
    """A task or a schedule was posted."""
    task = Task(
        id=reading.resource,
        seq=record.seq,
        tenant=reading.address.tenant,
        capability=reading.address.rest,
        shard=record.seq % SHARDS,
        posted_at=record.at_ns // 1_000_000,
        failure=reading.problem,
        dirty=True,
    )
    event = reading.event
    if isinstance(event, Post):
        task.priority = event.priority
        task.draws = draws_of(event)
        if event.shard is not None:
            task.shard = event.shard
        if event.delay is not None:
            task.not_before = book.pass_time(record) + int(event.delay * 1000)
        if event.parent is not None:
            _spawn(book, task, event.parent)
        if event.cron is not None and task.failure is None:
            book.touch_schedule(begin_schedule(book, task, event.cron))
            return
    book.tasks[task.id] = task
    book.dirty.append(task)


def _spawn(book: Book, task: Task, named: Parent) -> None:
    """Only the current attempt of a task may spawn others."""
    parent = book.tasks.get(named.task)
    if (
        parent is None
        or parent.tenant != task.tenant
        or parent.state != "running"
        or (parent.attempt, parent.secret) != (named.attempt, named.secret)
    ):
        why = f"attempt {named.attempt} of {named.task} is not the current one"
        task.failure = Failure("Fenced", why, final=True)
        return
    if parent.cancel is not None:
        task.failure = Failure("Cancelled", f"{parent.id} is to be cancelled", final=True)
        return
    task.parent = parent.id
    if not parent.scheduled:
        task.flow = parent.flow
    book.adopt(task)
