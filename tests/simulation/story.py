"""A journal told by hand, for tests of the fold: each method stores one message and folds it."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Budget,
    Dispatch,
    Epoch,
    Expanded,
    Failure,
    Lost,
    Merged,
    Outcome,
    Quarantined,
    Settled,
    encode,
)
from callboard_router.fold import apply
from callboard_router.state import State

__all__ = ["Story"]


class Story:
    """Each event returns whether it counted; a post returns its id. at_ms: the server's clock."""

    def __init__(self) -> None:
        self.state = State()
        self.journal: list[tuple[int, str, bytes]] = []
        self.at_ms = 1_000
        self._subjects = Subjects()

    def store(self, subject: str, data: bytes) -> bool:
        """Fold the next message."""
        self.journal.append((self.at_ms, subject, data))
        seq = len(self.journal)
        _, counted = apply(self.state, self._subjects, seq, self.at_ms, (subject, data))
        return counted

    def again(self) -> State:
        """A fresh fold of the same journal."""
        state, subjects = State(), Subjects()
        for seq, (at_ms, subject, data) in enumerate(self.journal, 1):
            apply(state, subjects, seq, at_ms, (subject, data))
        return state

    @property
    def last(self) -> str:
        return str(len(self.journal))

    def post(self, tenant: str = "acme", capability: str = "plan", **body: Any) -> str:
        self.store(f"cb.task.{tenant}.{capability}", json.dumps(body).encode())
        return self.last

    def flow(self, *steps: dict[str, Any], tenant: str = "acme", **body: Any) -> str:
        """A workflow; steps need only an id, their capability is `plan`."""
        found = [{"capability": "plan"} | step for step in steps]
        body = {"name": "told", "steps": found} | body
        self.store(f"cb.flow.{tenant}.run", json.dumps(body).encode())
        return self.last

    def epoch(self, router: str = "r#1") -> int:
        self.store("cb.run.epoch", encode(Epoch(router, 1)))
        return self.state.seq

    def limits(self, **limits: int) -> bool:
        return self._event("all", "budget", Budget(self.state.epoch, limits))

    def dispatch(
        self, task: str, attempt: int = 1, *, tenant: str = "acme", epoch: int | None = None
    ) -> bool:
        event = Dispatch(
            task,
            attempt,
            f"secret-{attempt}",
            self.state.epoch if epoch is None else epoch,
            0,
            self.at_ms + 5000,
            20.0,
        )
        return self.store(f"cb.run.{tenant}.dispatch.shared.plan", encode(event))

    def outcome(
        self,
        task: str,
        result: Any = None,
        *,
        attempt: int = 1,
        secret: str | None = None,
        error: Failure | None = None,
        tenant: str = "acme",
    ) -> bool:
        event = Outcome(
            task,
            attempt,
            f"secret-{attempt}" if secret is None else secret,
            "h1",
            0,
            0,
            msgspec.UNSET if error else msgspec.Raw(json.dumps(result).encode()),
            error=error,
        )
        return self._event(tenant, "outcome", event)

    def run(self, task: str, result: Any = None) -> bool:
        """Dispatch and succeed."""
        return self.dispatch(task) and self.outcome(task, result)

    def fail(self, task: str) -> bool:
        """Dispatch, fail, and be settled as failed."""
        self.dispatch(task)
        self.outcome(task, error=Failure("Boom", "no"))
        return self.settle(task)

    def lose(self, task: str, attempt: int = 1, *, epoch: int | None = None) -> bool:
        event = Lost(task, attempt, self.state.epoch if epoch is None else epoch, "silent")
        return self._event("acme", "lost", event)

    def settle(self, task: str, *, epoch: int | None = None) -> bool:
        number = self.state.epoch if epoch is None else epoch
        return self._event("acme", "settled", Settled(task, number, "failed"))

    def succeed(self, flow: str) -> bool:
        return self._event("acme", "settled", Settled(flow, self.state.epoch, "succeeded"))

    def expand(self, flow: str, step: str, items: int, error: Failure | None = None) -> bool:
        event = Expanded(flow, step, self.state.epoch, items, error)
        return self._event("acme", "expanded", event)

    def merge(self, task: str, same_as: str) -> bool:
        return self._event("acme", "merged", Merged(task, same_as, self.state.epoch))

    def quarantine(self, seq: int) -> bool:
        return self._event("all", "quarantined", Quarantined(seq, self.state.epoch, "why"))

    def _event(self, tenant: str, kind: str, event: object) -> bool:
        return self.store(f"cb.run.{tenant}.{kind}.0", encode(event))
