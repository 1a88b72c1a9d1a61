"""Journals for the ledger's tests: seeded, mostly plausible, with everything that may go wrong."""

from __future__ import annotations

import random

import msgspec

from callboard_broker.record import Record
from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Budget,
    Dispatch,
    Epoch,
    Expanded,
    Failure,
    FlowRun,
    Lost,
    Merged,
    Outcome,
    Post,
    Quarantined,
    Ref,
    Settled,
    Step,
    encode,
)

__all__ = ["SUBJECTS", "Scribe", "fan_out", "random_journal"]

SUBJECTS = Subjects()
_TENANTS = ("acme", "globex")
_START_MS = 1_700_000_000_000


class Scribe:
    """Writes a journal record by record, as a server would number and date it."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.epoch = 0

    def write(self, subject: str, message: object, headers: bytes = b"") -> int:
        data = message if isinstance(message, bytes) else encode(message)
        seq = len(self.records) + 1
        at_ns = (_START_MS + seq) * 1_000_000 + 17
        self.records.append(Record(seq, at_ns, subject, headers, data))
        return seq

    def begin_epoch(self) -> int:
        self.epoch = self.write(SUBJECTS.epoch, Epoch("router-1", 1))
        return self.epoch

    def post(
        self, tenant: str = "acme", capability: str = "review.python", **fields: object
    ) -> str:
        post = Post(payload=msgspec.Raw(b'{"file":"a.py"}'), **fields)  # type: ignore[arg-type]
        return str(self.write(SUBJECTS.task(tenant, capability), post))

    def flow(self, *steps: Step, tenant: str = "acme") -> str:
        return str(self.write(SUBJECTS.flow(tenant, "run"), FlowRun("nightly", list(steps))))

    def dispatch(
        self, task: str, attempt: int = 1, *, tenant: str = "acme", epoch: int | None = None
    ) -> int:
        subject = SUBJECTS.dispatch(tenant, "shared", "review.python")
        epoch = self.epoch if epoch is None else epoch
        secret = f"s{attempt}"
        return self.write(subject, Dispatch(task, attempt, secret, epoch, 7, 0, 20.0))

    def outcome(
        self,
        task: str,
        attempt: int = 1,
        *,
        tenant: str = "acme",
        secret: str | None = None,
        error: Failure | None = None,
    ) -> int:
        result = msgspec.UNSET if error is not None else msgspec.Raw(b'{"ok":true}')
        outcome = Outcome(
            task, attempt, secret or f"s{attempt}", "host-1", 1, 2, result=result, error=error
        )
        return self.write(SUBJECTS.run(tenant, "outcome", 7), outcome)

    def lost(
        self, task: str, attempt: int = 1, *, tenant: str = "acme", epoch: int | None = None
    ) -> int:
        lost = Lost(task, attempt, self.epoch if epoch is None else epoch, "the lease ended")
        return self.write(SUBJECTS.run(tenant, "lost", 7), lost)

    def settled(
        self,
        task: str,
        state: str = "failed",
        *,
        tenant: str = "acme",
        epoch: int | None = None,
    ) -> int:
        epoch = self.epoch if epoch is None else epoch
        error = None if state == "succeeded" else Failure("Broken", "it broke", field="payload.x")
        settled = Settled(task, epoch, state, error)  # type: ignore[arg-type]
        return self.write(SUBJECTS.run(tenant, "settled", 7), settled)

    def expanded(self, flow: str, step: str, items: int, *, tenant: str = "acme") -> int:
        error = Failure("BadInput", "not a list") if items < 0 else None
        event = Expanded(flow, step, self.epoch, max(0, items), error)
        return self.write(SUBJECTS.run(tenant, "expanded", 7), event)

    def merged(self, task: str, same_as: str, *, tenant: str = "acme") -> int:
        return self.write(SUBJECTS.run(tenant, "merged", 7), Merged(task, same_as, self.epoch))

    def run_task(self, tenant: str = "acme") -> str:
        """A whole life: posted, dispatched, succeeded."""
        task = self.post(tenant)
        self.dispatch(task, tenant=tenant)
        self.outcome(task, tenant=tenant)
        return task


def fan_out() -> list[Step]:
    """A plan, one build per item of it, one test per build, and a report of all."""
    return [
        Step("plan", "planner"),
        Step("build", "builder", each=Ref("plan", "files")),
        Step("check", "checker", each=Ref("build")),
        Step("report", "writer", after=["check"], priority=8),
    ]


def random_journal(seed: int, length: int) -> list[Record]:
    """About `length` events: most of them as they should be, every fifth one somehow wrong."""
    rng = random.Random(seed)
    scribe = Scribe()
    scribe.begin_epoch()
    ids: list[tuple[str, str]] = [("acme", "999999")]
    flows: list[tuple[str, str]] = []
    while len(scribe.records) < length:
        tenant = rng.choice(_TENANTS)
        recent = ids[-12:] if rng.random() < 0.8 else ids
        owner, task = rng.choice(recent)
        as_tenant = owner if rng.random() < 0.95 else rng.choice(_TENANTS)
        attempt = rng.choices((1, 2, 3), (70, 25, 5))[0]
        epoch = scribe.epoch if rng.random() < 0.95 else rng.randrange(scribe.epoch + 2)
        kind = rng.randrange(24)
        if kind < 4:
            ids.append((tenant, scribe.post(tenant, priority=rng.randrange(10))))
        elif kind < 9:
            scribe.dispatch(task, attempt, tenant=as_tenant, epoch=epoch)
        elif kind < 14:
            error = Failure("Boom", "x" * 5) if rng.random() < 0.3 else None
            secret = None if rng.random() < 0.95 else "forged"
            scribe.outcome(task, attempt, tenant=as_tenant, secret=secret, error=error)
        elif kind == 14:
            scribe.lost(task, attempt, tenant=as_tenant, epoch=epoch)
        elif kind < 17:
            state = rng.choice(("failed", "cancelled", "expired", "succeeded"))
            scribe.settled(task, state, tenant=as_tenant, epoch=epoch)
        elif kind == 17:
            flow = scribe.flow(*fan_out(), tenant=tenant)
            flows.append((tenant, flow))
            ids += [(tenant, flow), (tenant, f"{flow}.plan.0")]
        elif kind == 18 and flows:
            owner, flow = rng.choice(flows[-3:])
            step, items = rng.choice(("build", "check", "plan")), rng.randrange(-1, 4)
            scribe.expanded(flow, step, items, tenant=owner)
            ids += [(owner, f"{flow}.{name}.{i}") for i in range(items) for name in ("build", step)]
        elif kind == 19:
            scribe.merged(task, rng.choice(ids)[1], tenant=as_tenant)
        elif kind < 22:
            _write_rubbish(scribe, rng, ids)
        else:
            _write_notice(scribe, rng, epoch)
    return scribe.records


def _write_notice(scribe: Scribe, rng: random.Random, epoch: int) -> None:
    """What changes no task: budgets, quarantined records; and now and then a new router."""
    choice = rng.randrange(5)
    if choice == 0:
        scribe.begin_epoch()
    elif choice < 3:
        scribe.write(SUBJECTS.run("all", "budget", 0), Budget(epoch, {"global": 3}))
    else:
        report = Quarantined(rng.randrange(1, 50), epoch, "unreadable")
        scribe.write(SUBJECTS.run("refused", "quarantined", 0), report)


def _write_rubbish(scribe: Scribe, rng: random.Random, ids: list[tuple[str, str]]) -> None:
    """What anyone, or a broken component, may leave in a journal."""
    subject, data, is_task = rng.choice(
        (
            ("cb.task.acme.review", b"no json", True),
            ("cb.task.acme.review", b'{"payload": {"a": 1e999}, "priority": 77}', True),
            ("cb.task.acme.review", b"[" * 100_000, True),
            ("cb.flow.acme.run", b'{"name": "x", "steps": []}', True),
            ("cb.flow.acme.cancle", b"{}", True),
            ("cb.flow.acme.run", encode(_cycle()), True),
            ("cb.task.ACME.review", b"{}", False),
            ("cb.task.acme.\ufffd.*", b"{}", False),
            ("cb.run.acme.outcome.7", b'{"kind": "lost"}', False),
            ("cb.run.acme.outcome.7", b"", False),
            ("cb.run.acme.retrying.7", b"{}", False),
            ("cb.run.acme.settled.4000", b"{}", False),
            ("cb.run.epoch", b'{"kind": "epoch"}', False),
        )
    )
    seq = scribe.write(subject, data)
    if is_task:
        ids.append(("acme", str(seq)))


def _cycle() -> FlowRun:
    return FlowRun("ring", [Step("a", "x", after=["b"]), Step("b", "x", after=["a"])])
