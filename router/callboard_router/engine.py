"""The router without its I/O: what it reads goes in, what it would write comes out.

`record` folds the journal and keeps the observations in step; `decide` asks the policy. The shell
owns sockets and clocks; the simulation in the tests drives this very class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from callboard_broker.beats import ROUTERS
from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Beat,
    Budget,
    Dispatch,
    Epoch,
    Event,
    Limit,
    Lost,
    Needs,
    Outcome,
    Snapshot,
)
from callboard_router import decide as policy_of
from callboard_router.agenda import Agenda, Limits
from callboard_router.backlog import QueueBacklog, backlog
from callboard_router.candidates import HostView, candidates
from callboard_router.desk import Desk, Policy, Wish
from callboard_router.explain import explain
from callboard_router.filling import Source
from callboard_router.fold import apply
from callboard_router.liveness import Answer, Claim, Liveness, Queue
from callboard_router.proposals import Proposal, Proposals
from callboard_router.queueing import Waiting
from callboard_router.secrecy import Secrets
from callboard_router.state import FOLD_VERSION, State
from callboard_router.tally import Tally
from callboard_router.tenure import Role, Tenure

__all__ = ["ROUTERS", "Engine"]

_ON_THE_WAY_S = 0.02
_STOP_EVERY_S = 1.0


class Engine:
    """One router. Every `now` is its monotonic clock in seconds, `at_ms` the server's clock.

    observer: told each event that the active router has folded, and whether it counted.
    on_the_way: seconds of a queue's work that may be dispatched beyond its slots.
    """

    def __init__(
        self,
        name: str,
        subjects: Subjects,
        policy: Policy,
        *,
        secret: Callable[[], str] | None = None,
        on_the_way: float = _ON_THE_WAY_S,
    ) -> None:
        self._on_the_way = on_the_way
        self.tenure = Tenure(name, standby=policy.standby, unresolved=policy.unresolved)
        self._secret = secret or Secrets().draw
        self._completed: Tally[Queue] = Tally()
        self._ticked_at = 0.0
        self._stopped_at = 0.0
        self._snapshot: Snapshot | None = None
        self.observer: Callable[[Event, bool], None] | None = None
        self._begin(State(), subjects, policy)

    def _begin(self, state: State, subjects: Subjects, policy: Policy) -> None:
        limits = Limits(lost=policy.lost_limit, unstarted=policy.unstarted_limit)
        waiting = Waiting(state.accounts, ageing=policy.ageing, pools=policy.pools)
        self.state = state
        self.desk = Desk(
            state=state,
            subjects=subjects,
            policy=policy,
            liveness=Liveness(policy.timing),
            agenda=Agenda(state, limits, waiting),
            proposals=Proposals(),
            secret=self._secret,
        )

    def restore(self, state: State, now: float) -> None:
        """Begin from a snapshot instead of from nothing, before anything else was read."""
        self._begin(state, self.desk.subjects, self.desk.policy)
        for task in state.tasks.values():
            if task.life.state == "running":
                self.desk.liveness.dispatched(
                    task.id,
                    task.life.attempt,
                    state.seq,
                    task.queue,
                    now=now,
                    start_s=self.desk.policy.timing.start,
                    host=task.host,
                )

    # -- what comes in

    def record(self, seq: int, at_ms: int, subject: str, data: bytes, *, now: float) -> None:
        """Fold the journal's message at `seq`."""
        desk, state = self.desk, self.state
        event, counted = apply(state, desk.subjects, seq, at_ms, (subject, data))
        if event is not None:
            if isinstance(event, Outcome):
                if counted:
                    self._ended(event)
            elif isinstance(event, Dispatch):
                if counted:
                    self._dispatched(event, seq, now)
                desk.proposals.resolve(event)
            elif isinstance(event, Epoch):
                self._epoch_began(event, now)
            else:
                if isinstance(event, Budget):
                    self._budget_changed(event)
                elif counted and isinstance(event, Lost):
                    desk.liveness.ended(event.task)
                desk.proposals.resolve(event)
            if self.observer is not None and self.tenure.leads_on:
                self.observer(event, counted)
        if state.fresh:
            self._take_fresh()

    def _take_fresh(self) -> None:
        if self.tenure.leads_on:
            self.desk.agenda.take_fresh()
        else:
            self.state.fresh.clear()  # whoever begins to lead looks at everything
            self.state.accounts.freed.clear()

    def _ended(self, event: Outcome) -> None:
        queue = self.desk.liveness.ended(event.task)
        self._completed[queue] += 1
        run_ms, ok = event.ended_at - event.started_at, event.error is None
        self.desk.performance.note(event.host, queue, run_ms, ok, at_ms=self.state.at_ms)

    def _dispatched(self, event: Dispatch, seq: int, now: float) -> None:
        desk, state = self.desk, self.state
        task = state.tasks[event.task]
        start_s = max(desk.policy.timing.start, (event.start_by - state.at_ms) / 1000)
        desk.liveness.dispatched(
            task.id,
            event.attempt,
            seq,
            task.queue,
            now=now,
            start_s=start_s,
            host=event.host,
            why=event.why,
        )
        if task.terms is not None or task.cancel is not None:
            state.fresh.append(task.id)  # it may have a deadline, or shall be stopped

    def _budget_changed(self, event: Budget) -> None:
        wishes = self.desk.wishes
        if wishes and event.base is None and wishes[0].changed == event.changed:
            wishes.pop(0).done(True)
        self.desk.agenda.waiting.freed()

    def heard(self, beat: Beat, *, at: float) -> None:
        """A beat of a host or a router, sent at `at`."""
        if beat.pool == ROUTERS:
            self.tenure.heard(beat.host, self.state.router, at)
        else:
            self.desk.liveness.heard(beat, at)

    def fetched(self, source: Source, value: object) -> None:
        """A value that was wanted has come; a `Failure` says that it is not to be had."""
        self.desk.agenda.fetched(source, value)

    def queue_is_ready(self, queue: Queue) -> None:
        """The durable of this queue exists."""
        self.desk.ready.add(queue)

    def refused(self, proposal: Proposal, now: float) -> None:
        """The server refused a guarded write: the epoch that it names is over."""
        if isinstance(proposal.event, Epoch):
            stepped = self.tenure.claim_refused(proposal.event.router, now)
        else:
            stepped = proposal.guard == self.state.epoch and self.tenure.step_down(now)
        if stepped:
            self._follow()

    def _follow(self) -> None:
        self.desk.proposals.clear()
        wishes, self.desk.wishes = self.desk.wishes, []
        for wish in wishes:
            wish.done(False)

    def unresolved(self, now: float) -> None:
        """A write was lost sight of. Nothing is repeated: a new epoch voids what is under way."""
        self.tenure.renew(now)

    def reconnected(self, now: float) -> None:
        """The router was cut off from the server for a while."""
        self.desk.liveness.grant(now, hosts_are_known=self.tenure.role is not Role.FOLLOWER)
        self.tenure.renew(now)

    def confirm(self, claim: Claim, secret: str, connected_seq: int, now: float) -> Answer | None:
        """Answer a host's question; None if this router is not the active one."""
        if not self.tenure.may_write(now):
            return None
        task = self.state.tasks.get(claim.task)
        if task is None or task.life.state != "running" or task.life.secret != secret:
            return Answer(go=False, wait=False, why="the attempt is not current")
        return self.desk.liveness.confirm(claim, connected_seq, now)

    def set_budgets(
        self, changed: Mapping[str, Limit | None], by: str, done: Callable[[bool], None]
    ) -> None:
        """Change budgets on the running board. done: told True when the change is in force, False
        if this router ceased to be the active one before."""
        self.desk.wishes.append(Wish(changed=dict(changed), by=by, done=done))

    def snapshot_taken(self, snapshot: Snapshot, now: float) -> None:
        """A snapshot is stored: it is named in a new epoch of this router's own."""
        self._snapshot = snapshot
        self.tenure.renew(now)

    # -- what goes out

    def wanted(self) -> list[Source]:
        """Values to be fetched; each is named once."""
        found = list(self.desk.agenda.wanted)
        self.desk.agenda.wanted.clear()
        return found

    def missing_queues(self) -> list[Queue]:
        """Queues that hosts offer and whose durable is not known to exist."""
        return [queue for queue in self.desk.capacity if queue not in self.desk.ready]

    def stops(self, now: float) -> list[tuple[str, list[tuple[str, int]], str]]:
        """Attempts whose hosts are asked to stop them, once a second: (pool, attempts, why)."""
        if not self.desk.agenda.to_stop or now - self._stopped_at < _STOP_EVERY_S:
            return []
        if not self.tenure.may_write(now):
            return []
        self._stopped_at = now
        found: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for name, why in list(self.desk.agenda.to_stop.items()):
            task = self.state.tasks.get(name)
            if task is None or task.life.state != "running":
                del self.desk.agenda.to_stop[name]
            else:
                attempt = (name, task.life.attempt)
                found.setdefault((task.queue[0], why), []).append(attempt)
        return [(pool, attempts, why) for (pool, why), attempts in found.items()]

    def explain(self, tenant: str, name: str, at_ms: int) -> dict[str, Any] | None:
        """Why a live task or workflow is where it is; None if it is not live, or another's."""
        return explain(self.desk, tenant, name, at_ms)

    def candidates(
        self, tenant: str, capability: str, needs: Needs | None
    ) -> tuple[list[HostView], list[HostView]]:
        """The hosts that could run such a task, the best first, and those that never can.

        Raises `BadInput` for needs that nothing can fit.
        """
        return candidates(self.desk, tenant, capability, needs)

    def budgets(self) -> dict[str, Any] | None:
        """The budgets in force, what of them was set on the running board, and what is in use;
        None as long as this router's settings are not in force."""
        accounts = self.state.accounts
        if accounts.base != self.desk.policy.limits:
            return None
        return {
            "limits": msgspec.to_builtins(accounts.limits),
            "changed": msgspec.to_builtins(accounts.changed),
            "in_use": {key: count for key, count in sorted(accounts.in_use.items()) if count},
            "waiting": dict(sorted(self.state.waiting.items())),
        }

    def backlog(self, at_ms: int) -> list[QueueBacklog]:
        """What waits, runs and could run in each queue."""
        return backlog(self.desk, at_ms)

    def next_ms(self) -> int | None:
        """When time alone lets something go on that waits, on the server's clock: a delay, a retry,
        a schedule, a timeout of a queue or workflow, a rate."""
        agenda = self.desk.agenda
        times = [at_ms for at_ms in (agenda.next_ms, agenda.waiting.next_ms) if at_ms is not None]
        return min(times, default=None)

    def decide(self, now: float, at_ms: int, *, timers: bool = False) -> list[Proposal]:
        """The events to write now. timers: call it so every 100 ms or so, and else after reads."""
        if timers:
            self._look_at_the_clock(now)
        claim = self.tenure.claim(now, self.state.epoch)
        if claim is not None:
            event = Epoch(claim, FOLD_VERSION, self._snapshot or self.state.snapshot)
            subject = self.desk.subjects.epoch
            return [Proposal(subject=subject, event=event, guard=self.state.epoch)]
        if not self.tenure.may_write(now):
            return []
        return policy_of.decide(self.desk, now, at_ms, timers=timers)

    def _look_at_the_clock(self, now: float) -> None:
        desk = self.desk
        desk.capacity = desk.liveness.capacity(now)
        desk.liveness.forget_silent(now)
        elapsed = max(now - self._ticked_at, 0.001)
        self._ticked_at = now
        desk.allowance = {
            queue: int(count / elapsed * self._on_the_way)
            for queue, count in self._completed.items()
        }
        self._completed.clear()

    def _epoch_began(self, event: Epoch, now: float) -> None:
        dropped = self.desk.proposals.clear()
        self._snapshot = None
        if self.tenure.began(event.router, now):
            if self.tenure.renewed:
                for name in dropped:  # the rest is known: this router has led all the time
                    self.desk.agenda.look_at(name)
            else:
                self.desk.liveness.grant(now, hosts_are_known=False)
                self.desk.agenda.look_at_everything()
        elif self.tenure.role is Role.FOLLOWER:
            self._follow()
