"""`decide(desk, ...)`: the policy. It proposes router events and changes no state.

Everything it looks at lies on the desk: the state that the fold built, the observations, the
proposals under way. What it proposes becomes true when it is read back from the journal.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.subjects import ALL_TENANTS, SHARED_POOL, Subjects
from callboard_broker.wire import (
    Budget,
    Dispatch,
    Event,
    Expanded,
    Failure,
    Lost,
    Merged,
    Quarantined,
    Settled,
)
from callboard_router import budget
from callboard_router.agenda import Agenda
from callboard_router.filling import Missing, count_items, fill_output, fill_payload
from callboard_router.liveness import Liveness, Queue, Timing
from callboard_router.proposals import Proposal, Proposals
from callboard_router.state import Flow, State, Task

__all__ = ["Desk", "Policy", "decide"]

_ATTACH_PAYLOAD = 512 * 1024
_ATTACH_RESULT = 32 * 1024
_FAILURE_CHARACTERS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the settings say.

    limits: as in `wire.Budget`. pools: tenant -> pool. lost_limit: lost attempts that end a task.
    standby, unresolved: seconds (`tenure`). max_items: elements of a fan-out.
    """

    limits: dict[str, int]
    timing: Timing = field(default_factory=Timing)
    pools: dict[str, str] = field(default_factory=dict)
    lost_limit: int = 3
    max_items: int = 10_000
    standby: float = 2.0
    unresolved: float = 10.0


@dataclass(slots=True, kw_only=True)
class Desk:
    """All that a decision is made from.

    capacity: (slots, hosts) of each queue that live hosts serve. allowance: what a queue may hold
    beyond its slots, because it completes that much while a dispatch is on its way.
    ready: queues whose durable exists.
    """

    state: State
    subjects: Subjects
    policy: Policy
    liveness: Liveness
    agenda: Agenda
    proposals: Proposals
    secret: Callable[[], str]
    capacity: dict[Queue, tuple[int, int]] = field(default_factory=dict)
    allowance: dict[Queue, int] = field(default_factory=dict)
    ready: set[Queue] = field(default_factory=set)


def decide(desk: Desk, now: float, at_ms: int, *, timers: bool) -> list[Proposal]:
    """The events to write now. timers: also look for what the mere passing of time has changed."""
    out: list[Proposal] = []
    if desk.state.limits != desk.policy.limits:
        if "budget" not in desk.proposals:
            event = Budget(desk.state.epoch, desk.policy.limits)
            _propose(desk, out, "budget", (ALL_TENANTS, "budget", 0), event)
        return out  # nothing is dispatched until the limits in force are the ones to keep
    if timers:
        _losses(desk, now, out)
    if desk.state.unreadable or desk.state.merges:
        _refusals(desk, out)
    if desk.state.to_expand:
        _expansions(desk, out)
    if desk.agenda.waiting:
        _dispatches(desk, at_ms, out)
    if desk.agenda.undecided:
        _ends(desk, out)
    return out


def _propose(
    desk: Desk, out: list[Proposal], key: str, place: tuple[str, str, int], event: Event
) -> None:
    desk.proposals.open(key)
    subject = desk.subjects.run(*place)
    out.append(Proposal(subject=subject, event=event, guard=desk.state.epoch))


def _losses(desk: Desk, now: float, out: list[Proposal]) -> None:
    for loss in desk.liveness.losses(now):
        key = f"lost/{loss.task}"
        task = desk.state.tasks.get(loss.task)
        if task is not None and key not in desk.proposals:
            if loss.host is None:
                desk.ready.discard(task.queue)  # its durable may be gone: it is looked after again
            event = Lost(loss.task, loss.attempt, desk.state.epoch, loss.reason, loss.host)
            _propose(desk, out, key, (task.tenant, "lost", task.shard), event)


def _refusals(desk: Desk, out: list[Proposal]) -> None:
    for seq, reason in desk.state.unreadable.items():
        key = f"unreadable/{seq}"
        if key not in desk.proposals:
            event = Quarantined(seq, desk.state.epoch, reason)
            _propose(desk, out, key, (ALL_TENANTS, "quarantined", 0), event)
    for task, (same_as, tenant, shard) in desk.state.merges.items():
        key = f"merged/{task}"
        if key not in desk.proposals:
            merged = Merged(task, same_as, desk.state.epoch)
            _propose(desk, out, key, (tenant, "merged", shard), merged)


def _expansions(desk: Desk, out: list[Proposal]) -> None:
    for flow_id, step in desk.state.to_expand:
        key = f"expand/{flow_id}/{step}"
        if key in desk.proposals or desk.agenda.is_parked(key):
            continue
        items, error = 0, desk.agenda.unfillable.pop(key, None)
        if error is None:
            try:
                items = count_items(
                    desk.state, flow_id, step, desk.agenda.values, desk.policy.max_items
                )
            except Missing as missing:
                desk.agenda.park(key, flow_id, missing)
                continue
            except BadInput as bad:
                error = Failure(type(bad).__name__, bad.reason, field=bad.field)
        flow = desk.state.flows[flow_id]
        event = Expanded(flow_id, step, desk.state.epoch, items, error)
        _propose(desk, out, key, (flow.tenant, "expanded", flow.shard), event)


# -- dispatches


def _dispatches(desk: Desk, at_ms: int, out: list[Proposal]) -> None:
    """Hand out what budgets and queues allow, the tenant with the least in flight first."""
    state, reserved = desk.state, desk.proposals.reserved
    room = budget.room(state, reserved, budget.GLOBAL)
    if room <= 0:
        return
    order = []
    for tenant in desk.agenda.waiting.tenants():
        key = budget.keys(tenant)[1]
        order.append((state.in_use[key] + reserved[key], tenant))
    heapq.heapify(order)
    space: dict[str, dict[str, int]] = {}
    while order and room > 0:
        in_flight, tenant = heapq.heappop(order)
        if budget.room(state, reserved, budget.keys(tenant)[1]) <= 0:
            continue
        pool = desk.policy.pools.get(tenant, SHARED_POOL)
        if pool not in space:
            space[pool] = _space(desk, pool)
        task = _next(desk, tenant, space[pool])
        if task is None:
            continue
        proposal = _dispatch(desk, task, (pool, task.capability), at_ms)
        if proposal is not None:
            out.append(proposal)
            room -= 1
            in_flight += 1
            space[pool][task.capability] -= 1
            if not space[pool][task.capability]:
                del space[pool][task.capability]
        heapq.heappush(order, (in_flight, tenant))


def _space(desk: Desk, pool: str) -> dict[str, int]:
    """How many more dispatches each queue of the pool may hold."""
    found = {}
    for queue, (slots, _hosts) in desk.capacity.items():
        if queue[0] == pool and queue in desk.ready:
            most = slots + desk.allowance.get(queue, 0)
            free = most - desk.state.running[queue] - desk.proposals.under_way[queue]
            if free > 0:
                found[queue[1]] = free
    return found


def _next(desk: Desk, tenant: str, space: dict[str, int]) -> Task | None:
    """Take the tenant's next task off the queue, passing over what has gone meanwhile."""
    while True:
        head = desk.agenda.waiting.best(tenant, space)
        if head is None:
            return None
        capability, name = head
        desk.agenda.waiting.pop(tenant, capability)
        task = desk.state.tasks.get(name)
        if task is None or task.id in desk.proposals or desk.agenda.is_parked(name):
            continue
        if task.life.state == "waiting" and task.life.failure is None:
            return task


def _dispatch(desk: Desk, task: Task, queue: Queue, at_ms: int) -> Proposal | None:
    payload, post, attach = task.payload, None, None
    if task.flow is not None:
        payload = _filled(desk, task)
        if payload is None:
            return None
        if len(payload) > _ATTACH_PAYLOAD:
            payload, attach = None, payload
    elif payload is None and task.blob is None:
        post = task.order
    slots, hosts = desk.capacity[queue]
    timing = desk.policy.timing
    event = Dispatch(
        task=task.id,
        attempt=task.life.attempt + 1,
        secret=desk.secret(),
        epoch=desk.state.epoch,
        shard=task.shard,
        start_by=at_ms + int(timing.start * 1000),
        lease=timing.lease,
        payload=msgspec.UNSET if payload is None else msgspec.Raw(payload),
        blob=task.blob,
        post=post,
        timeout=task.timeout,
        why={"hosts": hosts, "slots": slots, "running": desk.state.running[queue]},
    )
    subject = desk.subjects.dispatch(task.tenant, *queue)
    desk.proposals.open_dispatch(task.id, task.tenant, queue)
    return Proposal(
        subject=subject,
        event=event,
        guard=desk.state.epoch,
        attach=attach,
    )


def _filled(desk: Desk, task: Task) -> bytes | None:
    try:
        return fill_payload(desk.state, task, desk.agenda.values)
    except Missing as missing:
        desk.agenda.park(task.id, task.flow or "", missing)
    except BadInput as bad:
        desk.agenda.give_up(task.id, Failure("BadInput", bad.reason, field=bad.field))
    return None


# -- ends


def _ends(desk: Desk, out: list[Proposal]) -> None:
    names, desk.agenda.undecided = desk.agenda.undecided, {}
    for name in names:
        if name in desk.proposals or desk.agenda.is_parked(name):
            continue
        task = desk.state.tasks.get(name)
        flow = desk.state.flows.get(name)
        if task is not None and task.life.state == "waiting":
            event = Settled(name, desk.state.epoch, "failed", _why(desk, task))
            _propose(desk, out, name, (task.tenant, "settled", task.shard), event)
        elif flow is not None and not flow.open:
            _end_flow(desk, flow, out)


def _why(desk: Desk, task: Task) -> Failure:
    """Why the task fails, cut to a length that any event can carry."""
    why = (
        desk.agenda.unfillable.pop(task.id, None)
        or task.life.failure
        or Failure(
            "Lost",
            f"{task.life.lost} attempts were lost with the hosts that ran them; "
            "look in the hosts' logs for what ended them",
        )
    )
    field, trace = why.field, why.trace
    return Failure(
        why.type[:256],
        why.message[:_FAILURE_CHARACTERS],
        field=field if field is None else field[:256],
        trace=trace if trace is None else trace[:_FAILURE_CHARACTERS],
    )


def _end_flow(desk: Desk, flow: Flow, out: list[Proposal]) -> None:
    failure = flow.failure or desk.agenda.unfillable.pop(flow.id, None)
    place = (flow.tenant, "settled", flow.shard)
    output = b""
    if failure is None:
        try:
            output = fill_output(desk.state, flow.id, desk.agenda.values)
        except Missing as missing:
            desk.agenda.park(flow.id, flow.id, missing)
            return
        except BadInput as bad:
            failure = Failure("BadInput", bad.reason, field="output")
    epoch = desk.state.epoch
    if failure is not None:
        _propose(desk, out, flow.id, place, Settled(flow.id, epoch, "failed", failure))
        return
    large = len(output) > _ATTACH_RESULT
    result: Any = msgspec.UNSET if large else msgspec.Raw(output)
    event = Settled(flow.id, epoch, "succeeded", result=result)
    desk.proposals.open(flow.id)
    out.append(
        Proposal(
            subject=desk.subjects.run(*place),
            event=event,
            guard=epoch,
            attach=output if large else None,
        )
    )
