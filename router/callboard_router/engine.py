"""The router without its I/O: what it reads goes in, what it would write comes out.

`record` folds the journal and keeps the observations in step; `decide` asks the policy. The shell
owns sockets and clocks; the simulation in the tests drives this very class.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable

from callboard_broker.subjects import Subjects
from callboard_broker.wire import Beat, Dispatch, Epoch, Lost, Outcome
from callboard_router import decide as policy_of
from callboard_router.agenda import Agenda
from callboard_router.decide import Desk, Policy
from callboard_router.filling import Source
from callboard_router.fold import apply
from callboard_router.liveness import Answer, Claim, Liveness, Queue
from callboard_router.proposals import Proposal, Proposals
from callboard_router.state import FOLD_VERSION, State
from callboard_router.tenure import Role, Tenure

__all__ = ["ROUTERS", "Engine"]

ROUTERS = "router"
"""The pool under which routers beat."""

_ON_THE_WAY_S = 0.02


class Engine:
    """One router. Every `now` is its monotonic clock in seconds, `at_ms` the server's clock."""

    def __init__(
        self,
        name: str,
        subjects: Subjects,
        policy: Policy,
        *,
        secret: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        self.state = State()
        self.tenure = Tenure(name, standby=policy.standby, unresolved=policy.unresolved)
        self.desk = Desk(
            state=self.state,
            subjects=subjects,
            policy=policy,
            liveness=Liveness(policy.timing),
            agenda=Agenda(self.state, policy.lost_limit),
            proposals=Proposals(),
            secret=secret,
        )
        self._completed: Counter[Queue] = Counter()
        self._ticked_at = 0.0

    # -- what comes in

    def record(self, seq: int, at_ms: int, subject: str, data: bytes, *, now: float) -> None:
        """Fold the journal's message at `seq`."""
        desk, state = self.desk, self.state
        event, counted = apply(state, desk.subjects, seq, at_ms, (subject, data))
        if isinstance(event, Outcome):
            if counted:
                self._completed[desk.liveness.ended(event.task)] += 1
        elif isinstance(event, Dispatch):
            if counted:
                task = state.tasks[event.task]
                desk.liveness.dispatched(task.id, event.attempt, seq, task.queue, now=now)
            desk.proposals.resolve(event)
        elif isinstance(event, Epoch):
            self._epoch_began(event, now)
        elif event is not None:
            if counted and isinstance(event, Lost):
                desk.liveness.ended(event.task)
            desk.proposals.resolve(event)
        if self.tenure.role is Role.LEADER:
            desk.agenda.take_fresh()
        else:
            state.fresh.clear()  # whoever begins to lead looks at everything

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
            self.desk.proposals.clear()

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

    # -- what goes out

    def wanted(self) -> list[Source]:
        """Values to be fetched; each is named once."""
        found = list(self.desk.agenda.wanted)
        self.desk.agenda.wanted.clear()
        return found

    def missing_queues(self) -> list[Queue]:
        """Queues that hosts offer and whose durable is not known to exist."""
        return [queue for queue in self.desk.capacity if queue not in self.desk.ready]

    def decide(self, now: float, at_ms: int, *, timers: bool = False) -> list[Proposal]:
        """The events to write now. timers: call it so every 100 ms or so, and else after reads."""
        if timers:
            self._look_at_the_clock(now)
        claim = self.tenure.claim(now, self.state.epoch)
        if claim is not None:
            event = Epoch(claim, FOLD_VERSION)
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
            queue: int(count / elapsed * _ON_THE_WAY_S) for queue, count in self._completed.items()
        }
        self._completed.clear()

    def _epoch_began(self, event: Epoch, now: float) -> None:
        self.desk.proposals.clear()
        if self.tenure.began(event.router, now):
            if not self.tenure.renewed:
                self.desk.liveness.grant(now, hosts_are_known=False)
            self.desk.agenda.look_at_everything()
