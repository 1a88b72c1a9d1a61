"""A journal told by hand, for tests of the fold: each method stores one message and folds it."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Answered,
    Budget,
    Checkpoint,
    Dispatch,
    Entered,
    Epoch,
    Expanded,
    Failure,
    Fired,
    Halted,
    Limit,
    Lost,
    Merged,
    Outcome,
    Quarantined,
    Retrying,
    Settled,
    Skipped,
    TerminalState,
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

    def command(self, verb: str, task: str, *, tenant: str = "acme", **body: Any) -> str:
        """What someone asks; `source` stands for `from`."""
        if "source" in body:
            body["from"] = body.pop("source")
        self.store(f"cb.flow.{tenant}.{verb}", json.dumps({"id": task} | body).encode())
        return self.last

    def epoch(self, router: str = "r#1") -> int:
        self.store("cb.run.epoch", encode(Epoch(router, 1)))
        return self.state.seq

    def limits(self, **limits: int | Limit) -> bool:
        """What the settings say; a number is a concurrency."""
        found = {
            key: limit if isinstance(limit, Limit) else Limit(concurrency=limit)
            for key, limit in limits.items()
        }
        return self._event("all", "budget", Budget(self.state.epoch, base=found))

    def change(self, **changed: Limit | None) -> bool:
        """Budgets are set on the running board."""
        return self._event("all", "budget", Budget(self.state.epoch, changed=dict(changed)))

    def dispatch(
        self,
        task: str,
        attempt: int = 1,
        *,
        tenant: str = "acme",
        epoch: int | None = None,
        host: str | None = None,
        queue: tuple[str, str] = ("shared", "plan"),
    ) -> bool:
        """host: to its mailbox."""
        pool, capability = queue
        event = Dispatch(
            task,
            attempt,
            f"secret-{attempt}",
            self.state.epoch if epoch is None else epoch,
            0,
            self.at_ms + 5000,
            20.0,
            host=host,
            pool="" if host is None else pool,
            capability="" if host is None else capability,
        )
        where = f"dispatch.{pool}.{capability}" if host is None else f"mailbox.{host}"
        return self.store(f"cb.run.{tenant}.{where}", encode(event))

    def outcome(
        self,
        task: str,
        result: Any = None,
        *,
        attempt: int = 1,
        secret: str | None = None,
        error: Failure | None = None,
        tenant: str = "acme",
        used: dict[str, float] | None = None,
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
            used=used or {},
        )
        return self._event(tenant, "outcome", event)

    def checkpoint(
        self,
        task: str,
        value: Any = None,
        *,
        attempt: int = 1,
        number: int = 1,
        secret: str | None = None,
        tenant: str = "acme",
    ) -> bool:
        proof = f"secret-{attempt}" if secret is None else secret
        raw = msgspec.Raw(json.dumps(value).encode())
        event = Checkpoint(task, attempt, proof, "h1", number, raw)
        return self._event(tenant, "checkpoint", event)

    def run(self, task: str, result: Any = None, *, attempt: int = 1) -> bool:
        """Dispatch and succeed."""
        return self.dispatch(task, attempt) and self.outcome(task, result, attempt=attempt)

    def fail(self, task: str, *, attempt: int = 1) -> bool:
        """Dispatch, fail, and be settled as failed."""
        self.dispatch(task, attempt)
        self.outcome(task, error=Failure("Boom", "no"), attempt=attempt)
        return self.settle(task)

    def lose(
        self, task: str, attempt: int = 1, *, epoch: int | None = None, started: bool = True
    ) -> bool:
        number = self.state.epoch if epoch is None else epoch
        event = Lost(task, attempt, number, "silent", started=started)
        return self._event("acme", "lost", event)

    def retry(
        self, task: str, at: int, *, attempt: int = 1, avoid: list[str] | None = None
    ) -> bool:
        event = Retrying(task, attempt, self.state.epoch, at, avoid or [])
        return self._event("acme", "retrying", event)

    def settle(
        self,
        task: str,
        state: TerminalState = "failed",
        *,
        epoch: int | None = None,
        result: Any = msgspec.UNSET,
        error: Failure | None = None,
    ) -> bool:
        number = self.state.epoch if epoch is None else epoch
        value = result if result is msgspec.UNSET else msgspec.Raw(json.dumps(result).encode())
        return self._event("acme", "settled", Settled(task, number, state, error, value))

    def succeed(self, flow: str, result: Any = msgspec.UNSET) -> bool:
        return self.settle(flow, "succeeded", result=result)

    def skip(self, task: str, reason: str = "its condition does not hold") -> bool:
        return self._event("acme", "skipped", Skipped(task, self.state.epoch, reason))

    def enter(self, task: str, inputs: Any = None) -> bool:
        value = msgspec.Raw(json.dumps({} if inputs is None else inputs).encode())
        return self._event("acme", "entered", Entered(task, self.state.epoch, value))

    def halt(self, flow: str, state: TerminalState = "expired", reason: str = "late") -> bool:
        return self._event("acme", "halted", Halted(flow, self.state.epoch, state, reason))

    def fire(self, schedule: str, number: int, next_at: int) -> bool:
        return self._event("acme", "fired", Fired(schedule, self.state.epoch, number, next_at))

    def answer(self, command: str, error: Failure | None = None) -> bool:
        return self._event("acme", "answered", Answered(command, self.state.epoch, error))

    def expand(self, flow: str, step: str, items: int, error: Failure | None = None) -> bool:
        event = Expanded(flow, step, self.state.epoch, items, error)
        return self._event("acme", "expanded", event)

    def merge(self, task: str, same_as: str) -> bool:
        return self._event("acme", "merged", Merged(task, same_as, self.state.epoch))

    def quarantine(self, seq: int) -> bool:
        return self._event("all", "quarantined", Quarantined(seq, self.state.epoch, "why"))

    def _event(self, tenant: str, kind: str, event: object) -> bool:
        return self.store(f"cb.run.{tenant}.{kind}.0", encode(event))
