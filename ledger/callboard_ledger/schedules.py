"""What the records of a journal do to schedules; the times are the router's, written as `fired`."""

from __future__ import annotations

from callboard_broker.record import Record
from callboard_broker.wire import Cron, Fired, Settled
from callboard_ledger.book import Book
from callboard_ledger.rows import Schedule, Task

__all__ = ["begin_schedule", "end_schedule", "fire"]


def begin_schedule(book: Book, post: Task, cron: Cron) -> Schedule:
    """The post is no task but a schedule."""
    schedule = Schedule(
        seq=post.seq,
        tenant=post.tenant,
        capability=post.capability,
        cron=cron,
        priority=post.priority,
        posted_at=post.posted_at or 0,
        shard=post.shard,
        draws=post.draws,
    )
    book.schedules[schedule.id] = schedule
    return schedule


def fire(book: Book, record: Record, tenant: str, event: Fired) -> bool:
    """The next time is known, and if the number has risen, there is a new task."""
    schedule = book.schedules.get(event.task)
    if schedule is None or schedule.ended or schedule.tenant != tenant:
        return False
    if event.number not in (schedule.number, schedule.number + 1):
        return False
    schedule.next_at = event.next_at
    book.touch_schedule(schedule)
    if event.number > schedule.number:
        schedule.number = event.number
        task = Task(
            id=f"{schedule.id}.cron.{event.number}",
            seq=record.seq,
            tenant=schedule.tenant,
            capability=schedule.capability,
            priority=schedule.priority,
            shard=schedule.shard,
            posted_at=record.at_ns // 1_000_000,
            flow=schedule.id,
            step="cron",
            idx=event.number,
            draws=schedule.draws,
        )
        book.tasks[task.id] = task
        book.touch(task)
    return True


def end_schedule(book: Book, schedule: Schedule, record: Record, event: Settled) -> bool:
    """Nothing is made by the schedule any more; what it made goes on."""
    if schedule.ended:
        return False
    schedule.state = event.state
    schedule.error = event.error
    schedule.end_seq = record.seq
    schedule.ended_at = record.at_ns // 1_000_000
    book.touch_schedule(schedule)
    return True
