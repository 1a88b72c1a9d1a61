"""What people ask of tasks and workflows, as the ledger knows it.

A command changes nothing by itself: the router says whether it is carried out (`answered`). Only
then, or with the first event that could not be without it (`waking`), the ledger carries it out on
its rows.
A repeated command is never answered but merged into the first one, so it is carried out once.
"""

from __future__ import annotations

from msgspec import Raw

from callboard_broker.record import Record
from callboard_broker.subjects import SHARDS, Address
from callboard_broker.wire import Answered, Command, Failure
from callboard_ledger.book import Book
from callboard_ledger.recovery import resume_flow
from callboard_ledger.rows import CommandRow, Flow, Schedule, Task
from callboard_ledger.workflows import clear

__all__ = ["carry_out", "live_flow", "mark_cancelled", "take_answer", "take_command"]


def take_command(
    book: Book, record: Record, address: Address, said: Command | None, problem: Failure | None
) -> None:
    """Somebody asks something; the router has yet to answer."""
    row = CommandRow(
        seq=record.seq,
        tenant=address.tenant,
        verb=address.rest,
        posted_at=record.at_ns // 1_000_000,
        shard=record.seq % SHARDS,
        error=problem,
    )
    if said is not None:
        row.target, row.by, row.reason = said.id, said.by, said.reason
        row.source, row.edits = said.source, isinstance(said.payload, Raw)
        if said.shard is not None:
            row.shard = said.shard
    book.ask(row)
    book.touch_command(row)


def take_answer(book: Book, record: Record, tenant: str, event: Answered) -> bool:
    """The router has answered: from here on the command is carried out, or refused."""
    row = book.commands.get(event.task)
    if row is None or row.tenant != tenant:
        return False
    book.answered(row)
    row.state = "succeeded" if event.error is None else "failed"
    row.error = event.error
    row.end_seq = record.seq
    book.touch_command(row)
    if event.error is None:
        carry_out(book, row)
    return True


def live_flow(book: Book, flow_id: str, tenant: str) -> Flow | None:
    """The tenant's workflow of this id, if it lives."""
    flow = book.flows.get(flow_id)
    return None if flow is None or flow.ended or flow.tenant != tenant else flow


def carry_out(book: Book, row: CommandRow) -> None:
    """The rows show from here on what was asked; a second time changes nothing."""
    if row.done:
        return
    row.done = True
    book.touch_command(row)
    reason = row.reason or (f"cancelled by {row.by}" if row.by else "cancelled")
    found = book.tasks.get(row.target) or book.flows.get(row.target)
    target = found or book.schedules.get(row.target)
    if row.verb == "redrive":
        dead = book.dead.get(row.target)
        if dead is not None and dead.tenant == row.tenant:
            _redrive(book, dead, row)
    elif row.verb == "resume" and (flow := _dead_flow(book, row)) is not None:
        resume_flow(book, flow, row.source, edited_at=row.seq if row.edits else None)
    elif target is None or target.tenant != row.tenant or target.ended:
        return
    elif row.verb == "cancel":
        mark_cancelled(book, target, reason)
    elif row.verb in ("pause", "resume"):
        target.paused = row.verb == "pause"
        _touch(book, target)


def _dead_flow(book: Book, row: CommandRow) -> Flow | None:
    head = row.target.partition(".")[0]
    flow = book.dead_flows.get(row.target) or book.dead_flows.get(head)
    return flow if flow is not None and flow.tenant == row.tenant else None


def _redrive(book: Book, task: Task, row: CommandRow) -> None:
    book.dead.revive(task)
    clear(book, task, 0)
    if not task.scheduled:
        task.flow = None  # the workflow for which it was spawned went on without it
    if row.edits:
        task.payload_seq = row.seq
    book.touch(task)


def mark_cancelled(book: Book, target: Task | Flow | Schedule, reason: str) -> None:
    """Everything that lives in it, and what that has spawned, shall end."""
    left: list[Task | Flow | Schedule] = [target]
    while left:
        row = left.pop()
        if row.ended or row.cancel is not None:
            continue
        row.cancel = reason
        _touch(book, row)
        if isinstance(row, Flow):
            row.paused = False
            left.extend(row.rows.values())
        elif isinstance(row, Task):
            names = book.children.get(row.id, ())
            left.extend(book.tasks[name] for name in names if name in book.tasks)


def _touch(book: Book, row: Task | Flow | Schedule) -> None:
    if isinstance(row, Task):
        book.touch(row)
    elif isinstance(row, Flow):
        book.touch_flow(row)
    else:
        book.touch_schedule(row)
