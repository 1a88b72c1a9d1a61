"""Journals for the ledger's tests: seeded, mostly plausible, with everything that may go wrong."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from callboard_broker.record import Record
from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Answered,
    Budget,
    Checkpoint,
    Command,
    Cron,
    Dispatch,
    Entered,
    Epoch,
    Expanded,
    Failure,
    Fired,
    FlowRun,
    Gate,
    Limit,
    Lost,
    Merged,
    Outcome,
    Parent,
    Post,
    Quarantined,
    Quota,
    Ref,
    Retrying,
    Settled,
    Skipped,
    Step,
    SubFlow,
    encode,
)
from callboard_ledger.rows import Row

__all__ = ["SUBJECTS", "Scribe", "fan_out", "nested", "plain_row", "random_journal"]

SUBJECTS = Subjects()
_TENANTS = ("acme", "globex")
_START_MS = 1_700_000_000_000


class Scribe:
    """Writes a journal record by record, as a server would number and date it."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.epoch = 0
        self._start_ms = _START_MS

    def skip_ms(self, ms: int) -> None:
        """Nothing is written for so long."""
        self._start_ms += ms

    def write(self, subject: str, message: object, headers: bytes = b"") -> int:
        data = message if isinstance(message, bytes) else encode(message)
        seq = len(self.records) + 1
        at_ns = (self._start_ms + seq) * 1_000_000 + 17
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

    def command(self, verb: str, task: str, *, tenant: str = "acme", **fields: object) -> str:
        command = Command(task, **fields)  # type: ignore[arg-type]
        return str(self.write(SUBJECTS.flow(tenant, verb), command))

    def schedule(self, tenant: str = "acme", **terms: object) -> str:
        return self.post(tenant, cron=Cron("*/5 * * * *"), **terms)

    def spawn(self, parent: str, attempt: int = 1, *, tenant: str = "acme") -> str:
        return self.post(tenant, parent=Parent(parent, attempt, f"s{attempt}"))

    def dispatch(
        self,
        task: str,
        attempt: int = 1,
        *,
        tenant: str = "acme",
        epoch: int | None = None,
        host: str | None = None,
    ) -> int:
        subject = SUBJECTS.dispatch(tenant, "shared", "review.python")
        epoch = self.epoch if epoch is None else epoch
        event = Dispatch(task, attempt, f"s{attempt}", epoch, 7, 0, 20.0)
        if host is not None:
            subject = SUBJECTS.mailbox(tenant, host)
            event = msgspec.structs.replace(
                event, host=host, pool="shared", capability="review.python"
            )
        return self.write(subject, event)

    def outcome(
        self,
        task: str,
        attempt: int = 1,
        *,
        tenant: str = "acme",
        secret: str | None = None,
        error: Failure | None = None,
        used: dict[str, float] | None = None,
        times: tuple[int, int] = (1, 2),
    ) -> int:
        result = msgspec.UNSET if error is not None else msgspec.Raw(b'{"ok":true}')
        secret = secret or f"s{attempt}"
        outcome = Outcome(
            task, attempt, secret, "host-1", *times, result=result, error=error, used=used or {}
        )
        return self.write(SUBJECTS.run(tenant, "outcome", 7), outcome)

    def checkpoint(
        self, task: str, attempt: int = 1, number: int = 1, *, tenant: str = "acme", **more: Any
    ) -> int:
        secret = more.get("secret", f"s{attempt}")
        event = Checkpoint(task, attempt, secret, "host-1", number, msgspec.Raw(b'{"at":1}'))
        return self.write(SUBJECTS.run(tenant, "checkpoint", 7), event)

    def lost(
        self,
        task: str,
        attempt: int = 1,
        *,
        tenant: str = "acme",
        epoch: int | None = None,
        started: bool = True,
    ) -> int:
        epoch = self.epoch if epoch is None else epoch
        lost = Lost(task, attempt, epoch, "the lease ended", "host-1", started)
        return self.write(SUBJECTS.run(tenant, "lost", 7), lost)

    def router(
        self, event: object, kind: str, *, tenant: str = "acme", epoch: int | None = None
    ) -> int:
        """Any event of the router; its epoch is put in."""
        epoch = self.epoch if epoch is None else epoch
        event = msgspec.structs.replace(event, epoch=epoch)  # type: ignore[type-var]
        return self.write(SUBJECTS.run(tenant, kind, 7), event)

    def retrying(self, task: str, attempt: int = 1, at: int = 0, **more: Any) -> int:
        return self.router(Retrying(task, attempt, 0, at), "retrying", **more)

    def skipped(self, task: str, **more: Any) -> int:
        return self.router(Skipped(task, 0, "no need"), "skipped", **more)

    def entered(self, task: str, **more: Any) -> int:
        return self.router(Entered(task, 0, msgspec.Raw(b"{}")), "entered", **more)

    def fired(self, schedule: str, number: int, **more: Any) -> int:
        return self.router(Fired(schedule, 0, number, 99), "fired", **more)

    def answered(self, command: str, error: Failure | None = None, **more: Any) -> int:
        return self.router(Answered(command, 0, error), "answered", **more)

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


def plain_row(row: Row) -> dict[str, Any]:
    """What a row says, without what only memory needs, and of an error only what a store keeps."""
    fields = msgspec.structs.asdict(row)
    for name in ("dirty", "rows", "stored"):
        fields.pop(name, None)
    for name in ("failure", "error"):
        if fields.get(name) is not None:
            fields[name] = fields[name].type
    for name in ("used", "void", "past"):
        fields[name] = fields.get(name) or None
    if "steps" in fields:
        fields["steps"] = [msgspec.to_builtins(step) for step in fields["steps"].values()]
    return fields


def fan_out() -> list[Step]:
    """A plan, one build per item of it, one test per build, and a report of all."""
    return [
        Step(id="plan", capability="planner"),
        Step(id="build", capability="builder", each=Ref("plan", "files")),
        Step(id="check", capability="checker", each=Ref("build")),
        Step(id="report", capability="writer", after=["check"], priority=8),
    ]


def nested() -> list[Step]:
    """A plan, a workflow of two steps, and a gate before the last step."""
    inner = [
        Step(id="one", capability="worker"),
        Step(id="two", capability="worker", after=["one"]),
    ]
    return [
        Step(id="plan", capability="planner"),
        Step(id="sub", flow=SubFlow(inner), after=["plan"]),
        Step(id="ask", gate=Gate(prompt="ship it?"), after=["sub"]),
        Step(id="ship", capability="shipper", after=["ask"]),
    ]


def random_journal(
    seed: int,
    length: int,
    *,
    resume: bool = True,
    checkpoints: bool = False,
    budgets: bool = False,
) -> list[Record]:
    """About `length` events: many of them as they should be, the others somehow wrong.

    resume: whether workflows are resumed, too. checkpoints: whether attempts leave some. budgets:
    whether tasks draw on more than their tenant's, and budgets of all kinds are set.
    """
    story = _Story(seed, resume=resume, checkpoints=checkpoints)
    if budgets:
        story.purse = random.Random(seed)
    return story.tell(length)


class _Story:
    """Writes at random, with a preference for what was begun lately."""

    def __init__(self, seed: int, *, resume: bool, checkpoints: bool) -> None:
        self.rng = random.Random(seed)
        self.resume = resume
        self.checkpoints = checkpoints
        self.purse: random.Random | None = None
        self.scribe = Scribe()
        self.ids: list[tuple[str, str]] = [("acme", "999999")]
        self.flows: list[tuple[str, str]] = []
        self.commands: list[tuple[str, str]] = []
        self.schedules: list[tuple[str, str]] = []
        self.attempts: dict[str, int] = {}
        self.lives: dict[str, tuple[str, str]] = {}

    def tell(self, length: int) -> list[Record]:
        self.scribe.begin_epoch()
        while len(self.scribe.records) < length:
            if self.checkpoints and self.rng.random() < 0.3:
                self._checkpoint()
            if self.purse is not None and self.purse.random() < 0.1:
                self._budget(self.purse)
            if self.rng.random() < 0.5:
                self._go_on()
            else:
                self._event(self.rng.randrange(32))
        return self.scribe.records

    def _go_on(self) -> None:
        """What might really come next for one of the tasks that came lately."""
        rng, scribe = self.rng, self.scribe
        owner, task = rng.choice(self.ids[-15:])
        _, state = self.lives.setdefault(task, (owner, "waiting"))
        attempt = self.attempts.get(task, 0)
        if state == "waiting":
            self.attempts[task] = attempt + 1
            scribe.dispatch(task, attempt + 1, tenant=owner)
            state = "running"
        elif state == "running":
            state = rng.choice(("ended", "failed", "failed", "waiting"))
            used = {"tokens": 2.0}
            if state == "waiting":
                scribe.lost(task, attempt, tenant=owner, started=rng.random() < 0.5)
            else:
                error = Failure("Boom", "x" * 5) if state == "failed" else None
                scribe.outcome(task, attempt, tenant=owner, error=error, used=used)
        elif state == "failed" and rng.random() < 0.6:
            scribe.retrying(task, attempt, scribe.epoch, tenant=owner)
            state = "waiting"
        elif state == "failed":
            scribe.settled(task, tenant=owner)
            state = "ended"
        elif rng.random() < 0.5:
            command = scribe.command("redrive", task, tenant=owner)
            self.commands.append((owner, command))
            state = "waiting"
        self.lives[task] = (owner, state)

    def _terms(self) -> dict[str, Any]:
        """On what a task draws beyond its tenant's and its capability's budgets."""
        if self.purse is None or self.purse.random() < 0.4:
            return {}
        names = self.purse.sample(["provider:openai", "gpu", "disk"], self.purse.randrange(3))
        units = {"tokens": float(self.purse.randrange(1, 50))}
        return {"budgets": names, "units": units if self.purse.random() < 0.7 else {}}

    def _budget(self, purse: random.Random) -> None:
        keys = ["global", "tenant", "tenant/acme", "capability/builder", "key/gpu"]
        keys += ["tenant/globex/review.python", "key/provider:openai"]
        some = {key: _limit(purse) for key in purse.sample(keys, purse.randrange(4))}
        base = {key: _limit(purse) for key in purse.sample(keys, 4)}
        epoch = self.scribe.epoch if purse.random() < 0.9 else 1
        changed = {key: limit if purse.random() < 0.7 else None for key, limit in some.items()}
        event = Budget(epoch, base if purse.random() < 0.2 else None, changed)
        self.scribe.write(SUBJECTS.run("all", "budget", 0), event)

    def _checkpoint(self) -> None:
        """Of an attempt that may run; or it is a repeat, a forgery, or another tenant's."""
        rng = self.rng
        owner, task = rng.choice(self.ids[-15:])
        attempt = self.attempts.get(task, 1)
        secret = "forged" if rng.random() < 0.1 else f"s{attempt}"
        tenant = owner if rng.random() < 0.9 else rng.choice(_TENANTS)
        self.scribe.checkpoint(task, attempt, rng.randrange(1, 6), tenant=tenant, secret=secret)

    def _event(self, kind: int) -> None:
        """Anything, about anything."""
        rng, scribe, ids = self.rng, self.scribe, self.ids
        tenant = rng.choice(_TENANTS)
        owner, task = rng.choice(ids[-12:] if rng.random() < 0.8 else ids)
        if kind < 4:
            delay = rng.choice((None, None, 3.0))
            terms = self._terms()
            posted = scribe.post(tenant, priority=rng.randrange(10), delay=delay, **terms)
            ids.append((tenant, posted))
        elif kind < 7:
            self._command(owner, task)
        elif kind == 7:
            steps = rng.choice((fan_out, nested))()
            if self.purse is not None:
                steps = [_priced(step, self._terms()) for step in steps]
            flow = scribe.flow(*steps, tenant=tenant)
            self.flows.append((tenant, flow))
            ids += [(tenant, flow), (tenant, f"{flow}.plan.0")]
        elif kind == 8 and self.flows:
            self._expand()
        elif kind == 9 and self.flows:
            self._inside()
        elif kind == 10:
            self._schedule(tenant)
        elif kind < 13:
            _write_rubbish(scribe, rng, ids)
        elif kind < 15:
            _write_notice(scribe, rng, scribe.epoch if rng.random() < 0.9 else 1)
        else:
            self._about(kind, owner, task)

    def _about(self, kind: int, owner: str, task: str) -> None:
        """What a router or a host may say of a task, at the right time or not."""
        rng, scribe = self.rng, self.scribe
        tenant = owner if rng.random() < 0.95 else rng.choice(_TENANTS)
        known = self.attempts.get(task, 0) + (kind in range(15, 20))
        attempt = max(1, known) if rng.random() < 0.9 else rng.randrange(1, 4)
        epoch = scribe.epoch if rng.random() < 0.95 else rng.randrange(scribe.epoch + 2)
        said: dict[str, Any] = {"tenant": tenant, "epoch": epoch}
        if kind < 20:
            scribe.dispatch(task, attempt, host=rng.choice((None, None, "host-2")), **said)
            self.attempts[task] = attempt
        elif kind < 25:
            error = Failure("Boom", "x" * 5) if rng.random() < 0.3 else None
            secret = None if rng.random() < 0.95 else "forged"
            used = rng.choice((None, {"tokens": float(rng.randrange(9))}))
            scribe.outcome(task, attempt, tenant=tenant, secret=secret, error=error, used=used)
        elif kind == 25:
            scribe.lost(task, attempt, started=rng.random() < 0.5, **said)
        elif kind < 28:
            state = rng.choice(("failed", "cancelled", "expired", "succeeded"))
            scribe.settled(task, state, **said)
        elif kind == 28:
            scribe.merged(task, rng.choice(self.ids)[1], tenant=tenant)
        elif kind == 29:
            scribe.retrying(task, attempt, **said)
        elif kind == 30:
            self.ids.append((owner, scribe.spawn(task, attempt, tenant=owner)))
        else:
            scribe.skipped(task, **said)

    def _expand(self) -> None:
        owner, flow = self.rng.choice(self.flows[-3:])
        step, items = self.rng.choice(("build", "check", "plan")), self.rng.randrange(-1, 4)
        self.scribe.expanded(flow, step, items, tenant=owner)
        self.ids += [
            (owner, f"{flow}.{name}.{i}") for i in range(items) for name in ("build", step)
        ]

    def _inside(self) -> None:
        owner, flow = self.rng.choice(self.flows[-3:])
        self.scribe.entered(f"{flow}.sub.0", tenant=owner)
        names = ("sub.0", "sub.0.one.0", "sub.0.two.0", "ask.0", "undo.1")
        self.ids += [(owner, f"{flow}.{name}") for name in names]

    def _command(self, owner: str, task: str) -> None:
        rng = self.rng
        if self.commands and rng.random() < 0.5:
            tenant, command = self.commands.pop(rng.randrange(len(self.commands)))
            refused = Failure("Conflict", "no") if rng.random() < 0.2 else None
            self.scribe.answered(command, refused, tenant=tenant)
            return
        verb = rng.choice(
            ("redrive", "redrive", "cancel", "pause", "resume", "resume")[: 4 + 2 * self.resume]
        )
        if verb == "resume" and rng.random() < 0.7:
            task = task.partition(".")[0]
        edited = msgspec.Raw(b'{"x":1}') if rng.random() < 0.3 else msgspec.UNSET
        command = self.scribe.command(verb, task, tenant=owner, payload=edited, by="ann")
        self.commands.append((owner, command))
        self.ids.append((owner, command))

    def _schedule(self, tenant: str) -> None:
        if not self.schedules or self.rng.random() < 0.2:
            schedule = self.scribe.schedule(tenant, **self._terms())
            self.schedules.append((tenant, schedule))
            self.ids.append((tenant, schedule))
            return
        owner, schedule = self.rng.choice(self.schedules)
        number = self.rng.randrange(1, 5)
        self.scribe.fired(schedule, number, tenant=owner)
        self.ids.append((owner, f"{schedule}.cron.{number}"))


def _priced(step: Step, terms: dict[str, Any]) -> Step:
    return msgspec.structs.replace(step, **terms) if step.capability else step


def _limit(purse: random.Random) -> Limit:
    units = {"tokens": Quota(100.0, 60.0)} if purse.random() < 0.5 else {}
    return Limit(purse.choice((None, 1, 2, 50)), purse.choice((None, 3.0)), units=units)


def _write_notice(scribe: Scribe, rng: random.Random, epoch: int) -> None:
    """What changes no task: budgets, quarantined records; and now and then a new router."""
    choice = rng.randrange(5)
    if choice == 0:
        scribe.begin_epoch()
    elif choice < 3:
        scribe.write(SUBJECTS.run("all", "budget", 0), Budget(epoch, {"global": Limit(3)}))
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
    return FlowRun(
        "ring",
        [Step(id="a", capability="x", after=["b"]), Step(id="b", capability="x", after=["a"])],
    )
