"""What is dispatched next: the queue's order, as far as budgets and places allow.

Whatever holds a task up is found by trying it, once for everything that the same thing holds up.
"""

from __future__ import annotations

from collections.abc import Iterator

from callboard_broker.wire import Failure
from callboard_router.budget import GLOBAL, blocked, is_impossible, ready_at
from callboard_router.desk import Desk
from callboard_router.placement import Blocked, Placement, place
from callboard_router.state import Task

__all__ = ["dispatches"]


def dispatches(desk: Desk, at_ms: int) -> Iterator[tuple[Task, Placement]]:
    """Yield each task that may be dispatched now, and where to.

    Each is off the queue when it is yielded. Whoever takes it reserves what it needs
    (`Proposals.open_dispatch`) before asking for the next; a task that is not dispatched after all
    must be pushed again when whatever was missing has come.
    """
    state, proposals = desk.state, desk.proposals
    agenda, accounts, reserved = desk.agenda, state.accounts, proposals.reserved
    proposed = proposals.keys
    waiting = agenda.waiting
    if waiting.room(GLOBAL) <= 0:
        return  # whatever is given back is seen by whoever asks next
    waiting.look(reserved, (desk.capacity, len(desk.ready)), at_ms)
    room = waiting.room(GLOBAL)
    while room > 0 and (lane := waiting.head()) is not None:
        name = lane.tasks[0][2]
        task = state.tasks.get(name)
        if task is None or name in proposed or not agenda.may_start(task):
            waiting.take(lane, served=False)
            continue
        reason = blocked(accounts, reserved, task.need, at_ms)
        if reason is None:
            found = place(desk, task)
            if isinstance(found, Blocked):
                if found.wrong is not None:
                    waiting.take(lane, served=False)
                    field, wrong = found.wrong
                    agenda.give_up(task.id, Failure("BadInput", wrong, field=field, final=True))
                    continue
                waiting.park(lane, found.on, None)
                continue
            waiting.take(lane, served=True)
            yield task, found
            room -= 1
            if not room:  # or is there some left? Not every task that is yielded is dispatched
                room = waiting.room(GLOBAL)
        elif is_impossible(accounts, reason, task.need):
            waiting.set_aside(lane)
        else:
            due = ready_at(accounts, reason, at_ms, need=task.need, reserved=reserved)
            waiting.park(lane, reason, due)
