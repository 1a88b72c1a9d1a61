"""What follows when a task can go no further: another attempt, or its terminal event.

Also where workflows and schedules come to their end, or to their next time.
"""

from __future__ import annotations

import hashlib

import msgspec

from callboard_broker.cron import next_time
from callboard_broker.errors import BadInput
from callboard_broker.wire import (
    Failure,
    Fired,
    Halted,
    Retry,
    Retrying,
    Settled,
    Skipped,
    TerminalState,
)
from callboard_router.agenda import expires_at, total_deadline
from callboard_router.desk import Desk, propose
from callboard_router.filling import Missing
from callboard_router.hosts import MOST_CHARACTERS
from callboard_router.proposals import Proposal
from callboard_router.state import Schedule, Task
from callboard_router.unfolding import condition_holds, end_flow

__all__ = ["backoff", "ends"]

_FAILURE_CHARACTERS = 8192
_LONGEST_DELAY_S = 30 * 86_400
"""A host says what it likes; later than that, nothing is tried again."""


def ends(desk: Desk, at_ms: int, out: list[Proposal]) -> None:
    """Write down what follows for everything that is undecided."""
    names, desk.agenda.undecided = desk.agenda.undecided, {}
    state = desk.state
    for name in names:
        if name in desk.proposals or desk.agenda.is_parked(name):
            continue
        task = state.tasks.get(name)
        if task is not None:
            if task.life.state == "waiting":
                _end_task(desk, task, at_ms, out)
            continue
        flow = state.flows.get(name)
        if flow is not None:
            if not flow.open:
                end_flow(desk, flow, out)
            elif flow.ending is None and f"halt/{name}" not in desk.proposals:
                why = "the timeout of the workflow has passed"
                halted = Halted(name, state.epoch, "expired", why)
                propose(desk, out, f"halt/{name}", (flow.tenant, "halted", flow.shard), halted)
            continue
        schedule = state.schedules.get(name)
        if schedule is not None:
            _next_time(desk, schedule, at_ms, out)


# -- tasks


def _end_task(desk: Desk, task: Task, at_ms: int, out: list[Proposal]) -> None:
    failure = desk.agenda.unfillable.pop(task.id, None) or task.life.failure
    ending: TerminalState = "failed"
    deadline = expires_at(task)
    if task.cancel is not None:
        ending, failure = "cancelled", Failure("Cancelled", task.cancel)
    elif deadline is not None and deadline <= at_ms:
        ending, failure = "expired", _expired(desk, task, at_ms)
    elif failure is not None:
        retry = _retry(desk, task, failure)
        if retry is not None:
            at = at_ms + int(1000 * backoff(retry, task.id, task.life.attempt, task.life.errors))
            if failure.retry_after is not None:
                wanted = min(max(failure.retry_after, 0.0), _LONGEST_DELAY_S)
                at = max(at, at_ms + int(1000 * wanted))
            avoid = task.avoid
            known = 0 < len(task.ran_on) <= MOST_CHARACTERS  # else it is no host's name
            if retry.elsewhere and known and task.ran_on not in avoid:
                avoid = [*avoid[-31:], task.ran_on]
            event = Retrying(task.id, task.life.attempt, desk.state.epoch, at, avoid)
            propose(desk, out, task.id, (task.tenant, "retrying", task.shard), event)
            return
    elif task.decided is not None:
        _pass_gate(desk, task, out)
        return
    else:
        failure = _lost(task)
    settled = Settled(task.id, desk.state.epoch, ending, _cut(failure))
    propose(desk, out, task.id, (task.tenant, "settled", task.shard), settled)


def _retry(desk: Desk, task: Task, failure: Failure) -> Retry | None:
    """The policy under which the task is tried again; None if it is not."""
    own = None if task.terms is None else task.terms.retry
    retry = desk.policy.retry if own is None else own
    hopeless = failure.final or failure.type == "BadInput" or failure.type in retry.not_on
    if hopeless or task.life.attempt == 0 or task.life.errors + 1 >= retry.attempts:
        return None
    return retry


def backoff(retry: Retry, task: str, attempt: int, errors: int) -> float:
    """Seconds before the next attempt: full jitter, by a hash, so that it can be worked out again.

    See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    growth = min(errors, 1000)
    try:
        most = min(retry.delay * retry.factor**growth, retry.max_delay)
    except OverflowError:
        most = retry.max_delay
    drawn = hashlib.blake2b(f"{task}/{attempt}".encode(), digest_size=8).digest()
    return most * (int.from_bytes(drawn) / 2**64)


def _expired(desk: Desk, task: Task, at_ms: int) -> Failure:
    """What it waited for stands in the reason: a task that nobody could serve says so."""
    total = total_deadline(task)
    which = "total" if total is not None and total <= at_ms else "queue"
    queue = desk.policy.pools.get(task.tenant, "shared"), task.capability
    nobody = task.capability and queue not in desk.capacity
    hint = f"; no agent serves {task.capability} in pool {queue[0]}" if nobody else ""
    return Failure("Expired", f"its {which} timeout has passed{hint}")


def _pass_gate(desk: Desk, task: Task, out: list[Proposal]) -> None:
    decided = task.decided
    if decided is None or decided.value is None:
        raise AssertionError(task.id)
    try:
        holds = condition_holds(desk, task)
    except Missing as missing:
        desk.agenda.park(task.id, task.flow or "", missing)
        return
    except BadInput as bad:
        desk.agenda.give_up(task.id, Failure("BadInput", bad.reason, field=bad.field, final=True))
        return
    if not holds:
        skipped = Skipped(task.id, desk.state.epoch, "its condition does not hold")
        propose(desk, out, task.id, (task.tenant, "skipped", task.shard), skipped)
        return
    event = Settled(task.id, desk.state.epoch, "succeeded", result=msgspec.Raw(decided.value))
    propose(desk, out, task.id, (task.tenant, "settled", task.shard), event)


def _lost(task: Task) -> Failure:
    life = task.life
    if life.lost:
        return Failure(
            "Lost",
            f"{life.lost} attempts were lost with the hosts that ran them; "
            "look in the hosts' logs for what ended them",
        )
    return Failure("Lost", f"{life.unstarted} attempts were dispatched and no host began them")


def _cut(why: Failure | None) -> Failure | None:
    """Why a task fails, cut to a length that any event can carry."""
    if why is None:
        return None
    field, trace = why.field, why.trace
    return msgspec.structs.replace(
        why,
        type=why.type[:256],
        message=why.message[:_FAILURE_CHARACTERS],
        field=field if field is None else field[:256],
        trace=trace if trace is None else trace[:_FAILURE_CHARACTERS],
    )


# -- schedules


def _next_time(desk: Desk, schedule: Schedule, at_ms: int, out: list[Proposal]) -> None:
    epoch = desk.state.epoch
    place = (schedule.tenant, "settled", schedule.shard)
    if schedule.cancel is not None:
        settled = Settled(
            schedule.id, epoch, "cancelled", Failure("Cancelled", schedule.cancel[:1024])
        )
        propose(desk, out, schedule.id, place, settled)
        return
    key = f"fire/{schedule.id}"
    if key in desk.proposals:
        return
    try:
        following = next_time(schedule.cron, max(at_ms, schedule.next_at or 0))
    except BadInput as bad:
        why = Failure("BadInput", bad.reason[:1024], field=bad.field, final=True)
        propose(desk, out, schedule.id, place, Settled(schedule.id, epoch, "failed", why))
        return
    due = schedule.next_at is not None and schedule.next_at <= at_ms
    busy = schedule.last in desk.state.tasks and not schedule.cron.overlap
    number = schedule.number + (1 if due and not busy else 0)
    event = Fired(schedule.id, epoch, number, following)
    propose(desk, out, key, (schedule.tenant, "fired", schedule.shard), event)
