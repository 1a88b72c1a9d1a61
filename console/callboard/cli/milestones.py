"""What happened to tasks, as marks between the lines that their handlers logged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import msgspec

from callboard.cli.asking import ask_history, ask_list
from callboard.cli.screen import clock_time, reason_of
from callboard_broker.client import Board
from callboard_broker.errors import UnknownTask
from callboard_broker.handle import Update
from callboard_broker.rule import TERMINAL
from callboard_ledger.views import AttemptView, FlowView, HistoryView, TaskView

__all__ = ["MOST_TASKS", "Mark", "mark_of", "marks_of", "tasks_below"]

MOST_TASKS = 500
"""Tasks whose history is asked for; each is some reading in the journal."""

_AT_ONCE = 16
_ROWS = 1000


class Mark(msgspec.Struct, frozen=True, tag_field="kind", tag="mark", omit_defaults=True):
    """Something happened to a task at a time (Unix milliseconds). state: its state since then."""

    at: int
    task: str
    state: str
    text: str
    attempt: int | None = None


async def tasks_below(board: Board, task: str, tenant: str) -> list[str]:
    """The steps of a workflow and what they spawned, also in workflows inside; the oldest first."""
    found: list[str] = []
    flows = [task]
    while flows and len(found) <= MOST_TASKS:
        listed = await ask_list(board, {"flow": flows.pop(0), "limit": _ROWS}, tenant)
        for item in reversed(listed.items):
            if isinstance(item, FlowView):
                flows.append(item.id)
            elif isinstance(item, TaskView):
                found.append(item.id)
    return found


async def marks_of(board: Board, tasks: Iterable[str], tenant: str) -> list[Mark]:
    """What happened to these tasks, in the order of time."""
    turns = asyncio.Semaphore(_AT_ONCE)
    found: list[Mark] = []

    async def look(task: str) -> None:
        async with turns:
            try:
                found.extend(_marks(await ask_history(board, task, tenant)))
            except UnknownTask:
                return  # a step of which nothing has happened yet

    async with asyncio.TaskGroup() as group:
        for task in tasks:
            group.create_task(look(task))
    return sorted(found, key=lambda mark: mark.at)


def mark_of(update: Update, at_ms: int) -> Mark | None:
    """What a handle heard just now; None for what is no milestone."""
    if update.skipped is not None:
        return Mark(at_ms, update.task, "skipped", f"skipped: {update.skipped}")
    if update.state is None:
        return None
    why = reason_of(update.error)
    if update.state == "running":
        where = f" on {update.host}" if update.host else ""
        return Mark(at_ms, update.task, "running", f"running{where}")
    if update.state == "waiting":
        if not why:
            return None
        again = "" if update.retry_at is None else f", from {clock_time(update.retry_at)}"
        return Mark(at_ms, update.task, "waiting", f"{why}; it is tried again{again}")
    return Mark(at_ms, update.task, update.state, f"{update.state} {why}".strip())


def _marks(history: HistoryView) -> Iterator[Mark]:
    for attempt in history.attempts:
        yield from _of_attempt(history.id, attempt)
    for end in history.ends:
        why = end.reason or reason_of(end.error)
        yield Mark(end.at, history.id, end.state, f"{end.state} {why}".strip())


def _of_attempt(task: str, attempt: AttemptView) -> Iterator[Mark]:
    number = attempt.attempt
    if attempt.dispatched_at is not None:
        where = f" to {attempt.host}" if attempt.host else ""
        begun = attempt.dispatched_at
        if attempt.started_at is not None:  # by the host's clock, which may be a little behind
            begun = min(begun, attempt.started_at)
        yield Mark(begun, task, "running", f"attempt {number} dispatched{where}", number)
    ended = attempt.void_at if attempt.void_at is not None else attempt.ended_at
    if ended is None:
        return
    why = attempt.reason or reason_of(attempt.error)
    text = f"attempt {number} {attempt.state}" + (f": {why}" if why else "")
    if attempt.retry_at is not None:
        text += f"; tried again from {clock_time(attempt.retry_at)}"
    state = attempt.state if attempt.state in TERMINAL else "waiting"
    yield Mark(ended, task, state, text, number)
