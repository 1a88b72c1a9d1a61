"""One engine that leads, without a world around it: what it proposes is stored at once.

What is stored can be watched, by a checker; and another engine can take over, from a snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec

from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Beat,
    Dispatch,
    Event,
    Failure,
    Offer,
    Outcome,
    encode,
)
from callboard_router.desk import Policy
from callboard_router.engine import ROUTERS, Engine
from callboard_router.state import State

__all__ = ["Leader"]


class Leader:
    """An engine, its journal, and hosts that beat. now: its monotonic clock.

    watch: called with (seq, at_ms, subject, data) and a tag of whatever is stored.
    """

    def __init__(
        self, policy: Policy, *, name: str = "r", watch: Callable[..., None] | None = None
    ) -> None:
        self._numbers = count(1)
        self._policy = policy
        self._watch = watch
        self.engine = self._new_engine(name)
        self.journal: list[tuple[str, bytes]] = []
        self.now = 100.0
        self.dispatched: dict[str, Dispatch] = {}
        self._name = name
        self._offers: list[tuple[str, str, Offer]] = []

    def _new_engine(self, name: str) -> Engine:
        policy = self._policy
        return Engine(name, Subjects(), policy, secret=lambda: f"s{next(self._numbers)}")

    @property
    def at_ms(self) -> int:
        return int(self.now * 1000)

    def lead(self) -> Leader:
        """Claim the epoch and bring the limits into force."""
        self.beat()
        self.engine.tenure.start(self.now)
        self.turn()
        return self

    def succeed_by(self, name: str, state: State) -> None:
        """The leader falls silent; another router begins from `state` and takes over."""
        ready = set(self.engine.desk.ready)
        self._name = name
        self.engine = self._new_engine(name)
        self.engine.restore(state, self.now)
        self.engine.desk.ready |= ready
        self.now += 2 * self._policy.standby
        self.lead()

    def host(
        self, name: str, *capabilities: str, slots: int, pool: str = "shared", **declared: Any
    ) -> None:
        """A host whose queues are ready. declared: further fields of its offers."""
        for capability in capabilities:
            self._offers.append((name, pool, Offer(capability, slots, slots, **declared)))
            self.engine.queue_is_ready((pool, capability))
        self.beat()

    def beat(self, *, holds: dict[str, list[tuple[str, int]]] | None = None) -> None:
        """The router and every host beat."""
        self.engine.heard(Beat(self._name, self._name, ROUTERS), at=self.now)
        for name, pool in dict.fromkeys((name, pool) for name, pool, _ in self._offers):
            offers = [offer for host, _, offer in self._offers if host == name]
            held = (holds or {}).get(name, [])
            self.engine.heard(Beat(name, f"{name}-1", pool, offers, held), at=self.now)

    def store(self, subject: str, data: bytes, tag: object = None) -> str:
        """Something arrives in the journal. Returns its sequence."""
        self.journal.append((subject, data))
        seq = len(self.journal)
        if self._watch is not None:
            self._watch((seq, self.at_ms, subject, data), tag)
        self.engine.record(seq, self.at_ms, subject, data, now=self.now)
        return str(seq)

    def post(self, tenant: str = "acme", capability: str = "plan", **body: Any) -> str:
        return self.store(f"cb.task.{tenant}.{capability}", json.dumps(body).encode())

    def flow(self, *steps: dict[str, Any], **body: Any) -> str:
        found = [{"capability": "plan"} | step for step in steps]
        body = {"name": "led", "steps": found} | body
        return self.store("cb.flow.acme.run", json.dumps(body).encode())

    def command(self, verb: str, task: str, *, tenant: str = "acme", **body: Any) -> str:
        """What someone asks; `source` stands for `from`."""
        if "source" in body:
            body["from"] = body.pop("source")
        return self.store(f"cb.flow.{tenant}.{verb}", json.dumps({"id": task} | body).encode())

    def turn(self, *, timers: bool = True) -> list[Event]:
        """Decide until there is nothing left to decide; returns the events."""
        found: list[Event] = []
        while proposals := self.engine.decide(self.now, self.at_ms, timers=timers):
            for proposal in proposals:
                found.append(proposal.event)
                self.store(proposal.subject, proposal.data())
                if isinstance(proposal.event, Dispatch):
                    self.dispatched[proposal.event.task] = proposal.event
        return found

    def finish(
        self,
        task: str,
        result: Any = None,
        *,
        tenant: str = "acme",
        raw: bytes | None = None,
        error: Failure | None = None,
        used: dict[str, float] | None = None,
    ) -> None:
        """The host that runs the task reports."""
        dispatch = self.dispatched[task]
        data = json.dumps(result).encode() if raw is None else raw
        outcome = Outcome(
            task,
            dispatch.attempt,
            dispatch.secret,
            "h",
            0,
            0,
            msgspec.UNSET if error else msgspec.Raw(data),
            error=error,
            used=used or {},
        )
        self.store(f"cb.run.{tenant}.outcome.0", encode(outcome))

    def payload(self, task: str) -> Any:
        """What was dispatched."""
        payload = self.dispatched[task].payload
        return msgspec.json.decode(payload) if isinstance(payload, msgspec.Raw) else None
