"""One engine that leads, without a world around it: what it proposes is stored at once."""

from __future__ import annotations

import json
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
from callboard_router.decide import Policy
from callboard_router.engine import ROUTERS, Engine

__all__ = ["Leader"]


class Leader:
    """An engine, its journal, and hosts that beat. now: its monotonic clock."""

    def __init__(self, policy: Policy, *, name: str = "r") -> None:
        numbers = count(1)
        self.engine = Engine(name, Subjects(), policy, secret=lambda: f"s{next(numbers)}")
        self.journal: list[tuple[str, bytes]] = []
        self.now = 100.0
        self.dispatched: dict[str, Dispatch] = {}
        self._name = name
        self._offers: list[tuple[str, str, str, int]] = []

    @property
    def at_ms(self) -> int:
        return int(self.now * 1000)

    def lead(self) -> Leader:
        """Claim the epoch and bring the limits into force."""
        self.beat()
        self.engine.tenure.start(self.now)
        self.turn()
        return self

    def host(self, name: str, *capabilities: str, slots: int, pool: str = "shared") -> None:
        """A host whose queues are ready."""
        for capability in capabilities:
            self._offers.append((name, pool, capability, slots))
            self.engine.queue_is_ready((pool, capability))
        self.beat()

    def beat(self, *, holds: dict[str, list[tuple[str, int]]] | None = None) -> None:
        """The router and every host beat."""
        self.engine.heard(Beat(self._name, self._name, ROUTERS), at=self.now)
        for name, pool in dict.fromkeys((name, pool) for name, pool, _, _ in self._offers):
            offers = [
                Offer(capability, slots, slots)
                for host, _, capability, slots in self._offers
                if host == name
            ]
            held = (holds or {}).get(name, [])
            self.engine.heard(Beat(name, f"{name}-1", pool, offers, held), at=self.now)

    def store(self, subject: str, data: bytes) -> str:
        """Something arrives in the journal. Returns its sequence."""
        self.journal.append((subject, data))
        seq = len(self.journal)
        self.engine.record(seq, self.at_ms, subject, data, now=self.now)
        return str(seq)

    def post(self, tenant: str = "acme", capability: str = "plan", **body: Any) -> str:
        return self.store(f"cb.task.{tenant}.{capability}", json.dumps(body).encode())

    def flow(self, *steps: dict[str, Any], **body: Any) -> str:
        found = [{"capability": "plan"} | step for step in steps]
        body = {"name": "led", "steps": found} | body
        return self.store("cb.flow.acme.run", json.dumps(body).encode())

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
        )
        self.store(f"cb.run.{tenant}.outcome.0", encode(outcome))

    def payload(self, task: str) -> Any:
        """What was dispatched."""
        payload = self.dispatched[task].payload
        return msgspec.json.decode(payload) if isinstance(payload, msgspec.Raw) else None
