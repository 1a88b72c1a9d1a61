"""Schedules: a task that comes again and again. The times are the policy's, written as `fired`."""

from __future__ import annotations

import msgspec

from callboard_broker.rule import Life
from callboard_broker.wire import Fired
from callboard_router.state import Schedule, State

__all__ = ["fire"]


def fire(state: State, schedule: Schedule, event: Fired) -> bool:
    """The next time is known, and if the number has risen, a task is made.

    A time at which the task before had not ended keeps the number: it is passed over.
    """
    if event.number not in (schedule.number, schedule.number + 1):
        return False
    schedule.next_at = event.next_at
    if event.number > schedule.number:
        schedule.number = event.number
        schedule.last = f"{schedule.id}.cron.{event.number}"
        task = msgspec.structs.replace(
            schedule.template,
            id=schedule.last,
            order=state.seq,
            since=state.at_ms,
            not_before=0,
            life=Life(),
            root=schedule.last,
        )
        state.add(task)
    state.fresh.append(schedule.id)
    return True
