"""`decide(desk, ...)`: the policy. It proposes router events and changes no state.

Everything it looks at lies on the desk: the state that the fold built, the observations, the
proposals under way. What it proposes becomes true when it is read back from the journal.
"""

from __future__ import annotations

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.subjects import ALL_TENANTS
from callboard_broker.wire import (
    Answered,
    Budget,
    Dispatch,
    Failure,
    Lost,
    Merged,
    Quarantined,
    Skipped,
)
from callboard_router.agenda import total_deadline
from callboard_router.desk import Desk, propose
from callboard_router.dispatching import dispatches
from callboard_router.ends import ends
from callboard_router.filling import Missing, fill_payload
from callboard_router.flow import Result
from callboard_router.placement import Placement
from callboard_router.proposals import Proposal
from callboard_router.state import Task
from callboard_router.unfolding import condition_holds, entries, expansions

__all__ = ["decide"]

_ATTACH_PAYLOAD = 512 * 1024


def decide(desk: Desk, now: float, at_ms: int, *, timers: bool) -> list[Proposal]:
    """The events to write now. timers: also look for what the mere passing of time has changed."""
    out: list[Proposal] = []
    if not _budgets_are_right(desk, out):
        return out  # nothing is dispatched until the limits in force are the ones to keep
    agenda = desk.agenda
    if timers:
        _losses(desk, now, out)
        agenda.take_due(at_ms)
    elif at_ms > agenda.now_ms:
        agenda.now_ms = at_ms
    if agenda.to_answer:
        _answers(desk, out)
    if desk.state.to_expand:
        expansions(desk, out)
    if agenda.entering:
        entries(desk, out)
    if agenda.waiting:
        for task, placement in dispatches(desk, at_ms):
            proposal = _dispatch(desk, task, placement, at_ms, out)
            if proposal is not None:
                out.append(proposal)
    if agenda.undecided:
        ends(desk, at_ms, out)
    return out


def _budgets_are_right(desk: Desk, out: list[Proposal]) -> bool:
    """The settings come first; then what was asked for, one change after the other."""
    place = (ALL_TENANTS, "budget", 0)
    if desk.state.accounts.base != desk.policy.limits:
        if "budget" not in desk.proposals:
            propose(desk, out, "budget", place, Budget(desk.state.epoch, base=desk.policy.limits))
        return False
    if desk.wishes:
        if "budget" not in desk.proposals:
            wish = desk.wishes[0]
            event = Budget(desk.state.epoch, changed=wish.changed, by=wish.by)
            propose(desk, out, "budget", place, event)
        return False
    return True


def _losses(desk: Desk, now: float, out: list[Proposal]) -> None:
    for loss in desk.liveness.losses(now):
        key = f"lost/{loss.task}"
        task = desk.state.tasks.get(loss.task)
        if task is not None and key not in desk.proposals:
            if loss.host is None:
                desk.ready.discard(task.queue)  # its durable may be gone: it is looked after again
            event = Lost(
                loss.task, loss.attempt, desk.state.epoch, loss.reason, loss.host, loss.started
            )
            propose(desk, out, key, (task.tenant, "lost", task.shard), event)


def _answers(desk: Desk, out: list[Proposal]) -> None:
    state, epoch = desk.state, desk.state.epoch
    names, desk.agenda.to_answer = desk.agenda.to_answer, {}
    for name in names:
        if name.startswith("!"):
            seq = int(name[1:])
            if seq in state.unreadable and (key := f"unreadable/{seq}") not in desk.proposals:
                quarantined = Quarantined(seq, epoch, state.unreadable[seq])
                propose(desk, out, key, (ALL_TENANTS, "quarantined", 0), quarantined)
            continue
        key = f"answer/{name}"
        if key in desk.proposals:
            continue
        if name in state.merges:
            same_as, tenant, shard = state.merges[name]
            merged = Merged(name, same_as, epoch)
            propose(desk, out, key, (tenant, "merged", shard), merged)
        elif name in state.answers:
            answer = state.answers[name]
            event = Answered(name, epoch, answer.error)
            propose(desk, out, key, (answer.tenant, "answered", answer.shard), event)


# -- dispatches


def _dispatch(
    desk: Desk, task: Task, placement: Placement, at_ms: int, out: list[Proposal]
) -> Proposal | None:
    payload, post, attach = task.payload, None, None
    if task.flow is not None and task.step:
        payload = _filled(desk, task, out)
        if payload is None:
            return None
        if len(payload) > _ATTACH_PAYLOAD:
            payload, attach = None, payload
    elif payload is None and task.blob is None:
        post = task.payload_at
    timing, state = desk.policy.timing, desk.state
    queue, host = placement.queue, placement.host
    timeouts = None if task.terms is None else task.terms.timeouts
    start = timing.start if timeouts is None or timeouts.start is None else timeouts.start
    pool, capability = queue
    event = Dispatch(  # by position: by name, it would take seven times as long, for every task
        task.id,
        task.life.attempt + 1,
        desk.secret(),
        state.epoch,
        task.shard,
        at_ms + int(start * 1000),
        timing.lease,
        msgspec.UNSET if payload is None else msgspec.Raw(payload),
        task.blob,
        post,
        task.timeout if timeouts is None else _run_time(task, at_ms),
        None if timeouts is None else timeouts.heartbeat,
        host,
        "" if host is None else pool,
        capability if host is not None or capability != task.capability else "",
        placement.why,
        task.root,
        task.trace,
    )
    if task.checkpoint is not None:
        event = _restoring(event, task.checkpoint)
    if host is None:
        subject = desk.subjects.dispatch(task.tenant, pool, capability)
    else:
        subject = desk.subjects.mailbox(task.tenant, host)
    desk.proposals.open_dispatch(task.id, task.need, queue, host)
    return Proposal(subject=subject, event=event, guard=state.epoch, attach=attach)


def _restoring(event: Dispatch, found: Result) -> Dispatch:
    """With what an earlier attempt has left for this one."""
    if found.value is None:
        return msgspec.structs.replace(event, restored_at=found.seq)
    return msgspec.structs.replace(event, restored=msgspec.Raw(found.value))


def _run_time(task: Task, at_ms: int) -> float | None:
    """Seconds that the attempt may run: never beyond the task's total timeout."""
    total = total_deadline(task)
    if total is None:
        return task.timeout
    left = max((total - at_ms) / 1000, 0.001)
    return left if task.timeout is None else min(task.timeout, left)


def _filled(desk: Desk, task: Task, out: list[Proposal]) -> bytes | None:
    """The payload of a step; None if it is not to be had now, or the step is skipped."""
    try:
        if not condition_holds(desk, task):
            event = Skipped(task.id, desk.state.epoch, "its condition does not hold")
            propose(desk, out, task.id, (task.tenant, "skipped", task.shard), event)
            return None
        return fill_payload(desk.state, task, desk.agenda.values)
    except Missing as missing:
        desk.agenda.park(task.id, task.flow or "", missing)
    except BadInput as bad:
        failure = Failure(type(bad).__name__, bad.reason, field=bad.field, final=True)
        desk.agenda.give_up(task.id, failure)
    return None
