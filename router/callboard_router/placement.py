"""Where a task goes: into the queue of its capability, or past it into one host's mailbox.

A capability is worked on by the agents of its own queue, or if nobody serves that, of the nearest
one above it (`review` for `review.python`); never below. The shared queue is the rule: free agents
pull. Only where requirements, or a routing rule, do not suit every live host of the queue alike are
the candidates scored, and the best one that has a free slot and enough CPU and memory is chosen.
The same observations always give the same choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import structs

from callboard_broker.errors import BadInput
from callboard_broker.subjects import SHARED_POOL
from callboard_broker.wire import Needs
from callboard_router.desk import Desk
from callboard_router.hosts import Queue
from callboard_router.matching import check_needs, is_too_small, misfits, shortage
from callboard_router.routing import Blocked, Placement, Rule, merged
from callboard_router.scoring import Candidate, score
from callboard_router.state import Task

__all__ = ["MOST_TOLD", "Blocked", "Placement", "place", "queue_for", "rank"]

MOST_TOLD = 8
"""Candidates that stand in a decision; a dispatch event must stay small."""

_SOON_MS = 200
"""A host that ends something that often may get one attempt ahead of a free slot: beats come once
a second, and by them a host that always finds work in the queue never has a slot free."""

_MOST_WAYS = 16_384
_NOTHING = Needs()


def place(desk: Desk, task: Task) -> Placement | Blocked:
    """Say where the task goes now, or what stands against it. Changes nothing.

    What is chosen has room, with all dispatches under way counted; reserving it is the caller's.
    """
    liveness = desk.liveness
    if liveness.ways_from is not desk.capacity:  # it was counted anew
        liveness.ways_from = desk.capacity
        liveness.ways = {}
    if task.avoid or (task.terms is not None and task.terms.needs is not None):
        return _choose(desk, task)
    key = (task.tenant, task.capability)
    way = liveness.ways.get(key)
    if way is None:
        if desk.policy.routing.rule(*key) is not None:
            return _choose(desk, task)
        queue = queue_for(desk, task)
        way = _unserved(desk, task) if queue is None else _shared(desk, queue)
        if len(liveness.ways) >= _MOST_WAYS:
            liveness.ways.clear()
        liveness.ways[key] = way
    if isinstance(way, Blocked):
        return way
    return _full(desk, way.queue) or way


def rank(desk: Desk, task: Task) -> tuple[list[Candidate], list[Candidate]]:
    """The hosts that could run the task, those with room first and each with its score, and those
    that never can. Raises `BadInput` for needs that nothing can fit. Changes nothing."""
    queue = queue_for(desk, task)
    if queue is None:
        return [], []
    needs, rule = _asked(desk, task, queue)
    check_needs(needs)
    prefer = {} if rule is None else rule.prefer
    choice = _Choice(desk=desk, task=task, queue=queue, needs=needs)
    choice.compare(prefer)
    routing = desk.policy.routing
    ranked = score(
        choice.fitting,
        needs,
        prefer,
        routing.weights if rule is None or rule.weights is None else rule.weights,
        performance=desk.performance,
        at_ms=desk.state.at_ms,
    )
    ranked.sort(key=lambda one: one.short is not None)
    return ranked, [one for one in choice.candidates if one.misfits]


def queue_for(desk: Desk, task: Task) -> Queue | None:
    """The one queue whose agents work on such a task: its own, or the nearest one above it."""
    pool = desk.policy.pools.get(task.tenant, SHARED_POOL)
    drained = None
    capability = task.capability
    while capability:
        queue = (pool, capability)
        served = desk.capacity.get(queue)
        if served is not None:
            if served[0] > 0:
                return queue
            drained = drained or queue
        capability = capability.rpartition(".")[0]
    return drained


# -- the shared queue


def _shared(desk: Desk, queue: Queue, reason: str = "shared queue") -> Placement:
    slots, hosts = desk.capacity[queue]
    return Placement(queue=queue, why={"reason": reason, "hosts": hosts, "slots": slots})


def _full(desk: Desk, queue: Queue, *, durable: bool = True) -> Blocked | None:
    """Whether more dispatches of the queue would only wait for their agents."""
    if durable and queue not in desk.ready:
        reason = "the queue is being made"
    else:
        most = desk.capacity[queue][0] + desk.allowance.get(queue, 0)
        running = desk.state.running.get(queue, 0)
        if running + desk.proposals.under_way.get(queue, 0) < most:
            return None
        reason = "every slot is taken"
    return Blocked(on=f"slots/{queue[0]}/{queue[1]}", why={"reason": reason})


def _unserved(desk: Desk, task: Task) -> Blocked:
    pool = desk.policy.pools.get(task.tenant, SHARED_POOL)
    return Blocked(
        on=f"agents/{pool}/{task.capability}",
        why={"reason": "no live agent offers it, or a capability above it"},
    )


# -- one host


def _choose(desk: Desk, task: Task) -> Placement | Blocked:
    queue = queue_for(desk, task)
    if queue is None:
        return _unserved(desk, task)
    needs, rule = _asked(desk, task, queue)
    full = _full(desk, queue, durable=False)
    if full is None and needs is _NOTHING and not task.avoid and (rule is None or not rule.prefer):
        return _full(desk, queue) or _shared(desk, queue)
    try:
        check_needs(needs)
    except BadInput as bad:
        why: dict[str, object] = {"reason": f"{bad.field}: {bad.reason}"}
        return Blocked(on=_fit(queue), why=why, wrong=(bad.field, bad.reason))
    choice = _Choice(desk=desk, task=task, queue=queue, needs=needs)
    choice.compare({} if rule is None else rule.prefer)
    if not choice.fitting:
        return Blocked(on=_fit(queue), why=choice.told("no live host fits", choice.candidates))
    if full is not None:
        return full
    if choice.all_alike:
        return _full(desk, queue) or _shared(desk, queue, "every host of the queue fits")
    free = [one for one in choice.fitting if one.short is None]
    if not free:
        return Blocked(
            on=_fit(queue), why=choice.told("every host that fits is full", choice.fitting)
        )
    routing = desk.policy.routing
    ranked = score(
        free,
        needs,
        {} if rule is None else rule.prefer,
        routing.weights if rule is None or rule.weights is None else rule.weights,
        performance=desk.performance,
        at_ms=desk.state.at_ms,
    )
    return Placement(
        queue=queue, host=ranked[0].name, why=choice.told(choice.reason, ranked, chosen=True)
    )


def _fit(queue: Queue) -> str:
    return f"fit/{queue[0]}/{queue[1]}"


def _asked(desk: Desk, task: Task, queue: Queue) -> tuple[Needs, Rule | None]:
    """What the task needs with what the rules add, and the rules. stay_with: a host's name."""
    own = None if task.terms is None else task.terms.needs
    rule = desk.policy.routing.rule(task.tenant, task.capability)
    needs = merged(own, None if rule is None else rule.needs) or _NOTHING
    if needs.stay_with is not None:
        host = _companion(desk, task, queue, needs.stay_with)
        needs = structs.replace(needs, stay_with=host)
    return needs, rule


def _companion(desk: Desk, task: Task, queue: Queue, name: str) -> str | None:
    """The host to stay with; None once it is gone: silent for a lease, or out of this queue.

    name: of a step of the task's workflow, whose element of the same number counts, else the first
    that has a result; or of a host.
    """
    flow = None if task.flow is None else desk.state.flows.get(task.flow)
    step = None if flow is None else flow.steps.get(name)
    if step is not None:
        found = step.results.get(task.index)
        if found is None and step.results:
            found = step.results[min(step.results)]
        if found is None or not found.host:
            return None
        name = found.host
    return name if desk.liveness.still_serves(queue, name) else None


def _is_hard(needs: Needs) -> bool:
    """Whether a host that is not known yet might not fit: it would pull from the queue all the
    same, before its first beat is read."""
    return bool(
        needs.specialization or needs.version or needs.labels or needs.stay_with or needs.avoid
    )


@dataclass(slots=True, kw_only=True)
class _Choice:
    """The candidates for one task, compared by what is known now.

    fitting: those against which nothing stands for good. all_alike: the shared queue will do.
    """

    desk: Desk
    task: Task
    queue: Queue
    needs: Needs
    candidates: list[Candidate] = field(default_factory=list)
    fitting: list[Candidate] = field(default_factory=list)
    all_alike: bool = False
    reason: str = "best score of those that fit"

    def compare(self, prefer: Mapping[str, str]) -> None:
        """Look at each live host of the queue. prefer: labels."""
        capability, avoid = self.queue[1], self.task.avoid
        for host in self.desk.liveness.serving.get(self.queue, ()):
            offer = host.offers.get(capability)
            if offer is None or not offer.slots:  # by its latest beat, or it is being drained
                continue
            one = Candidate(host=host, offer=offer, misfits=misfits(self.needs, host.beat, offer))
            one.failed_before = host.beat.host in avoid
            one.matched = sum(offer.labels.get(name) == value for name, value in prefer.items())
            self.candidates.append(one)
        self.fitting = [one for one in self.candidates if not one.misfits]
        fresh = [one for one in self.fitting if not one.failed_before]
        if len(fresh) < len(self.fitting) and all(self._is_too_small(one) for one in fresh):
            fresh = []  # to wait for one of them would be to wait for ever
        alike = len(fresh) == len(self.candidates) and not _is_hard(self.needs)
        if fresh:
            self.fitting = fresh
        elif self.fitting:
            self.reason = "it failed before on every host that fits"
        best = max((one.matched for one in self.fitting), default=0)
        alike = alike and all(one.matched == best for one in self.fitting)
        for one in self.fitting:
            self._measure(one)
        measured = self.needs.cpu is not None or self.needs.memory_mb is not None
        self.all_alike = alike and not (
            measured and any(self._short(one) is not None for one in self.fitting)
        )
        if best and not self.all_alike:
            self._prefer(best)

    def _prefer(self, best: int) -> None:
        """Those with most of the preferred labels come first, as long as one has room."""
        first = [one for one in self.fitting if one.matched == best and one.short is None]
        if first:
            self.fitting = [one for one in self.fitting if one.matched == best]
            self.reason = "best score of those with the preferred labels"

    def _measure(self, one: Candidate) -> None:
        capability = self.queue[1]
        under_way = self.desk.proposals.boxes.get((self.queue[0], one.name), 0)
        one.on_the_way = one.host.on_the_way[capability] + under_way
        one.free = one.host.free(capability) - under_way
        if one.name.isdigit():
            one.short = "its name is a number, so it has no mailbox"
        elif one.free <= 0 and not (one.on_the_way == 0 and self._ends_soon(one)):
            one.short = f"no slot of {one.offer.slots} is free"
        else:
            one.short = self._short(one)

    def _short(self, one: Candidate) -> str | None:
        return shortage(self.needs, one.host.beat, one.offer, at_once=one.on_the_way + 1)

    def _is_too_small(self, one: Candidate) -> bool:
        return is_too_small(self.needs, one.host.beat, one.offer)

    def _ends_soon(self, one: Candidate) -> bool:
        record = self.desk.performance.known(one.name, self.queue)
        slots = one.offer.slots
        return record is not None and slots > 0 and record.run_ms / slots <= _SOON_MS

    def told(
        self, reason: str, candidates: list[Candidate], *, chosen: bool = False
    ) -> dict[str, object]:
        """What a person is told of the choice; the chosen one, then others, then the misfits."""
        listed = candidates[:MOST_TOLD]
        if len(listed) < MOST_TOLD:
            rest = [one for one in self.candidates if one not in listed]
            listed = [*listed, *rest[: MOST_TOLD - len(listed)]]
        found: dict[str, object] = {"reason": reason, "of": len(self.candidates)}
        if chosen:
            found["host"] = candidates[0].name
        found["candidates"] = [one.told() for one in listed]
        return found
