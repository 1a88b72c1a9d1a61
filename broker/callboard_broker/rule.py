"""The rule by which an event changes one task: used by router, ledger and client alike.

The journal is totally ordered, so every reader that applies this rule comes to the same state.
An event that the rule refuses is void: it stands in the journal and means nothing. The rule never
looks at a clock.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from callboard_broker.wire import Checkpoint, Dispatch, Failure, Lost, Outcome, Retrying, Settled

__all__ = [
    "DEAD_WINDOW_MS",
    "MAX_CHECKPOINTS",
    "MAX_DEAD",
    "MAX_DEAD_FLOWS",
    "TERMINAL",
    "Life",
    "TaskState",
    "apply_checkpoint",
    "apply_dispatch",
    "apply_lost",
    "apply_outcome",
    "apply_retrying",
    "apply_settled",
    "begin_again",
]

TaskState = Literal["waiting", "running", "succeeded", "failed", "cancelled", "expired"]

TERMINAL: frozenset[TaskState] = frozenset({"succeeded", "failed", "cancelled", "expired"})

DEAD_WINDOW_MS = 7 * 24 * 3600 * 1000
"""How long what ended without success can be started again, after its end."""

MAX_DEAD = 100_000
"""How many such tasks are known; the oldest are forgotten."""

MAX_DEAD_FLOWS = 10_000
"""The same of workflows."""


MAX_CHECKPOINTS = 10_000
"""How many checkpoints of one attempt count."""


class Life(msgspec.Struct):
    """What the rule remembers of one task.

    attempt: the last one that was dispatched. lost: how many were declared void while a host held
    them; unstarted: how many that no host had begun. errors: how many were followed by a retry.
    generation: how often the task was started again after its end. checkpoints: the number of the
    last attempt's latest one.
    failure: the error of the last outcome, until the router has decided what follows from it.
    """

    state: TaskState = "waiting"
    attempt: int = 0
    secret: str = ""
    lost: int = 0
    unstarted: int = 0
    errors: int = 0
    generation: int = 0
    failure: Failure | None = None
    checkpoints: int = 0


def apply_dispatch(life: Life, event: Dispatch) -> bool:
    """Attempt n+1 may begin when attempt n has ended; its tokens are taken exactly here."""
    if life.state != "waiting" or life.failure is not None or event.attempt != life.attempt + 1:
        return False
    life.state = "running"
    life.attempt = event.attempt
    life.secret = event.secret
    life.checkpoints = 0
    return True


def apply_checkpoint(life: Life, event: Checkpoint) -> bool:
    """The current attempt may leave one; a repeat, or one that was overtaken, changes nothing."""
    if life.state != "running" or event.attempt != life.attempt or event.secret != life.secret:
        return False
    if not life.checkpoints < event.number <= MAX_CHECKPOINTS:
        return False
    life.checkpoints = event.number
    return True


def apply_outcome(life: Life, event: Outcome) -> bool:
    """The first outcome of the current attempt counts; its tokens are returned exactly here."""
    if life.state != "running" or event.attempt != life.attempt or event.secret != life.secret:
        return False
    life.secret = ""
    if event.error is None:
        life.state = "succeeded"
    else:
        life.state = "waiting"
        life.failure = event.error
    return True


def apply_lost(life: Life, event: Lost) -> bool:
    """The current attempt is void: its tokens are returned here, and its outcome comes too late."""
    if life.state != "running" or event.attempt != life.attempt:
        return False
    life.secret = ""
    life.state = "waiting"
    if event.started:
        life.lost += 1
    else:
        life.unstarted += 1
    return True


def apply_retrying(life: Life, event: Retrying) -> bool:
    """The error of the last attempt is not the end: the task waits for another one."""
    if life.state != "waiting" or life.failure is None or event.attempt != life.attempt:
        return False
    life.failure = None
    life.errors += 1
    return True


def begin_again(life: Life) -> None:
    """A new generation: attempts are counted on, so that none is ever taken for an older one."""
    life.state = "waiting"
    life.secret = ""
    life.lost = life.unstarted = life.errors = 0
    life.failure = None
    life.generation += 1


def apply_settled(life: Life, event: Settled) -> bool:
    """The terminal event where no success is; never while an attempt holds tokens."""
    if life.state != "waiting":
        return False
    life.state = event.state
    if event.error is not None:
        life.failure = event.error
    return True
