"""A router's desk with hosts and tasks on it, for tests that look at one decision."""

from __future__ import annotations

from itertools import count
from typing import Any

from callboard_broker.rule import Life
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Beat, Budget, Limit, Needs, Offer, Terms
from callboard_router.agenda import Agenda, Limits
from callboard_router.budget import need_of
from callboard_router.desk import Desk, Policy
from callboard_router.liveness import Liveness, Timing
from callboard_router.proposals import Proposals
from callboard_router.queueing import Waiting
from callboard_router.routing import Routing
from callboard_router.state import State, Task

__all__ = ["Bench", "offer"]


def offer(
    capability: str = "review", slots: int = 4, free: int | None = None, **said: Any
) -> Offer:
    """An offer of `slots`, all free unless `free` says otherwise."""
    return Offer(capability, slots, slots if free is None else free, **said)


class Bench:
    """A desk at `now` seconds of the router's clock, `at_ms` of the server's."""

    def __init__(
        self, *, routing: Routing | None = None, pools: dict[str, str] | None = None
    ) -> None:
        state = State()
        self.desk = Desk(
            state=state,
            subjects=Subjects(),
            policy=Policy(limits={}, routing=routing or Routing(), pools=pools or {}),
            liveness=Liveness(Timing()),
            agenda=Agenda(state, Limits(lost=3, unstarted=20), Waiting(state.accounts)),
            proposals=Proposals(),
            secret=str,
        )
        self.now = 100.0
        self.at_ms = 1_000_000
        self._numbers = count(1)

    def beat(self, host: str, *offers: Offer, pool: str = "shared", **said: Any) -> None:
        """A host is heard, and the router counts what is there."""
        beat = Beat(host, said.pop("incarnation", f"{host}-1"), pool, list(offers), **said)
        self.desk.liveness.heard(beat, self.now)
        self.count()

    def count(self) -> None:
        """A tick: what is offered is counted, and each queue has its durable."""
        self.desk.capacity = self.desk.liveness.capacity(self.now)
        self.desk.ready.update(self.desk.capacity)

    def wait(self, seconds: float) -> None:
        """Time passes, and a tick comes."""
        self.now += seconds
        self.at_ms += int(seconds * 1000)
        self.count()

    def limit(self, **fields: Limit) -> None:
        """Budgets, by key; `tenant__acme` for `tenant/acme`."""
        base = {key.replace("__", "/"): limit for key, limit in fields.items()}
        self.desk.state.accounts.change(Budget(0, base=base), self.at_ms)

    def task(
        self,
        capability: str = "review",
        tenant: str = "acme",
        *,
        terms: Terms | None = None,
        **fields: Any,
    ) -> Task:
        """A task that waits; `needs` as its requirements."""
        needs = fields.pop("needs", None)
        if needs is not None:
            terms = Terms(needs=Needs(**needs))
        number = next(self._numbers)
        task = Task(
            id=fields.pop("id", str(number)),
            tenant=tenant,
            capability=capability,
            shard=0,
            order=number,
            since=self.at_ms,
            life=Life(),
            need=need_of(tenant, capability, terms),
            terms=terms,
            **fields,
        )
        self.desk.state.add(task)
        return task

    def run(self, task: Task, queue: tuple[str, str], host: str | None = None, **said: Any) -> None:
        """The dispatch of the task's next attempt was read back."""
        task.life.state = "running"
        task.life.attempt += 1
        task.queue, task.host = queue, host
        self.desk.state.accounts.take(task.need, self.at_ms)
        self.desk.state.running[queue] += 1
        self.desk.liveness.dispatched(
            task.id, task.life.attempt, 50, queue, now=self.now, host=host, **said
        )

    def end(self, task: Task) -> None:
        """Its outcome was read."""
        task.life.state = "waiting"
        self.desk.state.accounts.give_back(task.need, {}, self.at_ms)
        self.desk.state.running[self.desk.liveness.ended(task.id)] -= 1
