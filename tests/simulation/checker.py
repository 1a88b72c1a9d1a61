"""The independent checker: it reads the journal with rules of its own and allows no exception.

It shares no code with the fold, to which its own result is compared at every message
(`reference.py`). Every event of a router must be one that the journal up to there justifies.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from callboard_broker.wire import Dispatch
from tests.simulation.endings import Endings
from tests.simulation.fairness import Fairness
from tests.simulation.fitting import asks_for_a_host, misfit
from tests.simulation.orders import Orders
from tests.simulation.places import Places
from tests.simulation.purse import Draw
from tests.simulation.reference import Reference
from tests.simulation.sent import Memory, Sent
from tests.simulation.server import Stored
from tests.simulation.tables import CheckedSchedule, CheckedTask, Tables
from tests.simulation.views import NotThere
from tests.simulation.world import Violation, World

__all__ = ["Checker"]


class Checker:
    """Watches the journal and the outside table.

    digests: of the state, by sequence. pools: of the tenants that have their own.
    clock_error_ms: how wrong the clock of a host may be. allowed: attempts that a router has told
    a host to start. seen: how often each feature was in play.
    """

    def __init__(
        self,
        world: World,
        digests: dict[int, str],
        *,
        pools: dict[str, str],
        lost_limit: int,
        clock_error_ms: int,
    ) -> None:
        self.overtakes = 0
        self.starts: dict[tuple[str, int], tuple[str, str, float]] = {}
        self._reference = Reference(digests)
        self.tables = Tables(self._reference.adopt)
        self.orders = Orders(self.tables)
        self.places = Places(self.tables, pools, self.starts)
        self.allowed: set[tuple[str, int]] = set()
        self.seen: Counter[str] = Counter()
        self._fairness = Fairness(self.tables, self.places)
        self._endings = Endings(self.tables, self.seen, lost_limit=lost_limit)
        self._world = world
        self._clock_error_ms = clock_error_ms
        self._lost_limit = lost_limit
        self._epoch = self._told = 0
        self._memory = Memory()
        self._dispatched: dict[tuple[str, int], Any] = {}
        self._draws: dict[tuple[str, int], Draw] = {}
        self._sent: dict[int, Sent] = {}

    @property
    def ends(self) -> Counter[str]:
        return self.tables.ends

    @property
    def idle(self) -> bool:
        """Whether everything that was stored has come to its end."""
        tables = self.tables
        live = tables.tasks or tables.flows or tables.schedules
        return not (live or tables.merges or tables.answers or tables.unreadable)

    def stored(self, record: Stored, tag: Sent | None) -> None:
        """A message was stored: take it in, and compare with the fold."""
        self.tables.seq, self.tables.at_ms = record.seq, record.at_ms
        self._reference.fold(record)
        if tag is not None and tag.kind != "outcome":
            self._sent[record.seq] = tag
            self._take(record, tag)
        else:
            kind = record.subject.split(".")[-1 if record.subject.endswith("epoch") else 3]
            event = json.loads(record.data)
            if kind not in ("epoch", "outcome", "checkpoint") and event["epoch"] != self._epoch:
                raise Violation(
                    "fence", f"{kind} of epoch {event['epoch']} at {record.seq}, in {self._epoch}"
                )
            self.seen[kind] += 1
            getattr(self, f"_on_{kind}")(record, event)
        self._reference.compare(self.tables, self._epoch)

    def started(self, dispatch: Dispatch, host: str, incarnation: str, payload: Any) -> None:
        """The outside table: a handler begins, really."""
        key = (dispatch.task, dispatch.attempt)
        late = self._world.server_ms - dispatch.start_by
        self._world.note(host, "starts", *key, incarnation)
        if key not in self._dispatched:
            raise Violation("I3", f"{key} started, but its dispatch is void or not stored")
        if key in self.starts:
            raise Violation("I3", f"{key} started by {incarnation}, before by {self.starts[key]}")
        if late > self._clock_error_ms:
            raise Violation("start_by", f"{key} started {late} ms after its start_by")
        if payload != self._dispatched[key]:
            raise Violation("I5", f"{key} got {payload}, must get {self._dispatched[key]}")
        if dispatch.host not in (None, host):
            raise Violation("I3", f"{key} started by {host}, but it went to {dispatch.host}")
        self.starts[key] = (host, incarnation, self._world.now)

    def finish(self, sent: list[Sent], stored: list[Stored]) -> None:
        """Everything has come to rest."""
        tables = self.tables
        if not self.idle:
            left = [*tables.tasks, *tables.flows, *tables.schedules, *tables.merges]
            left += [*tables.answers, *map(str, tables.unreadable)]
            raise Violation("I1", f"still open at the end: {left[:12]}")
        if +tables.purse.in_use:
            raise Violation("I2", f"tokens are out at rest: {+tables.purse.in_use}")
        for found in sent:
            for seq in found.acked:
                if seq > len(stored) or stored[seq - 1].data != found.data:
                    raise Violation("I1", f"post {seq} was acknowledged and is not there")
                if found.kind not in ("garbage", "outcome") and not self.ends[str(seq)]:
                    raise Violation("I1", f"post {seq} has no end")
        for name, count in self.ends.items():
            if count != 1 + tables.lives[name] and "." not in name:
                raise Violation("I1", f"{name} has {count} ends in {1 + tables.lives[name]} lives")

    # -- what posters send

    def _take(self, record: Stored, tag: Sent) -> None:
        tables, name = self.tables, str(record.seq)
        if tag.kind == "garbage":
            tables.unreadable.add(record.seq)
            if record.subject == "cb.run.epoch":
                self._epoch = record.seq
            return
        readable = tag.kind != "bad" or tag.remembered
        first = self._memory.first(tag, record.at_ms) if readable else None
        if first is not None:
            self.seen["merge"] += 1
            tables.merges[name] = first
            return
        if tag.kind == "command":
            if not tag.refused_for:
                self._memory.remember(name, tag, record.at_ms)
            self._take_command(record, tag)
            return
        refused = self._refused(tag, readable=readable)
        if refused is None:
            self._memory.remember(name, tag, record.at_ms)
        if refused is None and tag.flow is not None:
            tables.begin(name, tag.tenant, tag.flow, tag.flow.inputs)
        else:
            self._add_post(name, tag, refused)

    def _refused(self, tag: Sent, *, readable: bool) -> tuple[str, ...] | None:
        """The type of the error (and its field) with which a post is refused."""
        tables = self.tables
        if not readable:
            return "BadInput", tag.refused_for
        if tag.parent is not None:
            parent = tables.tasks.get(tag.parent[0])
            proof = None if parent is None else (parent.id, parent.attempt, parent.secret)
            if parent is None or parent.state != "running" or proof != tag.parent:
                self.seen["fenced"] += 1
                return ("Fenced",)
            if parent.cancel:
                return ("Cancelled",)
        most = tables.purse.limit(f"tenant/{tag.tenant}").get("waiting")
        if most is not None and tables.waiting(tag.tenant) >= most:
            self.seen["overloaded"] += 1
            return ("Overloaded",)
        return ("BadInput", tag.refused_for) if tag.kind == "bad" else None

    def _add_post(self, name: str, tag: Sent, refused: tuple[str, ...] | None) -> None:
        tables, body = self.tables, tag.body
        task = CheckedTask(
            id=name,
            tenant=tag.tenant,
            capability="" if tag.subject.startswith("cb.flow") else tag.capability,
            payload=body.get("payload"),
            terms=body,
            draw=Draw((), {}),
            since=tables.at_ms,
            refused=refused or (),
            runnable=tag.kind != "bad" and (refused is None or tag.kind == "task"),
        )
        if refused is None and tag.kind == "schedule":
            overlap = body["cron"].get("overlap", False)
            tables.schedules[name] = CheckedSchedule(
                id=name, tenant=tag.tenant, template=task, overlap=overlap
            )
            return
        if "delay" in body:
            task.not_before = tables.at_ms + int(body["delay"] * 1000)
        if refused is None and tag.parent is not None:
            self.seen["spawned"] += 1
            parent = tables.tasks[tag.parent[0]]
            parent.children.append(name)
            task.parent, task.view = parent.id, parent.view
        if refused is not None:
            task.failure = {"type": refused[0]}
            if "cron" in body and refused[0] != "BadInput":
                task.capability = ""  # no task: it cannot be run as one
        tables.add(task)

    def _take_command(self, record: Stored, tag: Sent) -> None:
        answer = self.orders.carry_out(tag)
        verb = tag.subject.split(".")[-1]
        self.seen[f"{verb}: {answer or 'done'}"] += 1
        self.tables.answers[str(record.seq)] = answer
        for task in self.tables.tasks.values():
            if not (task.cancel or task.paused or (task.view and task.view.is_paused)):
                task.stopped_at = 0
            elif not task.stopped_at:
                task.stopped_at = record.seq
        if self.orders.revived is not None:
            self._reference.adopt(self.tables, *self.orders.revived)

    # -- what routers and hosts write

    def _on_epoch(self, record: Stored, _event: dict[str, Any]) -> None:
        self._epoch = record.seq

    def _on_budget(self, record: Stored, event: dict[str, Any]) -> None:
        self.tables.purse.change(event, record.at_ms)

    def _on_mailbox(self, record: Stored, event: dict[str, Any]) -> None:
        self._on_dispatch(record, event)
        host, needs = event["host"], self.tables.tasks[event["task"]].terms.get("needs", {})
        why = misfit(needs, host, self.places.hosts[host].disk)
        if why is not None:
            raise Violation("fit", f"{event['task']} needs {needs}, but went to {host}: {why}")
        self.seen.update(f"needs {name}" for name in needs)
        self.seen["stayed"] += needs.get("stay_with") == host

    def _on_dispatch(self, record: Stored, event: dict[str, Any]) -> None:
        name, attempt = event["task"], event["attempt"]
        task = self.tables.tasks.get(name)
        if task is None:
            rule = "I5" if "." in name and name not in self.ends else "I3b"
            raise Violation(rule, f"{name} dispatched: not live, or its needs are not met")
        if task.state != "waiting" or task.failure is not None or attempt != task.attempt + 1:
            raise Violation("I3b", f"{name} attempt {attempt} dispatched while {task}")
        if (name, attempt) in self._dispatched:
            raise Violation("I3b", f"attempt {attempt} of {name} is dispatched again")
        parts = record.subject.split(".")
        queue = event["capability"] if "host" in event else ".".join(parts[5:])
        if parts[2] != task.tenant or not f"{task.capability}.".startswith(f"{queue}."):
            raise Violation("I3b", f"{name} dispatched to {record.subject}")
        needs = task.terms.get("needs", {})
        if "host" not in event and asks_for_a_host(needs):
            raise Violation("fit", f"{name} needs {needs}, but went to a queue")
        self._may_begin(task, record, event)
        self._check_restored(task, event)
        self._fairness.judge(task)
        self.tables.attempts[name] = attempt
        task.state, task.attempt, task.secret = "running", attempt, event["secret"]
        task.checkpoints = 0
        self.tables.purse.take(task.draw, record.at_ms, f"{name} at {record.seq}")
        self._dispatched[name, attempt] = self._payload(task)

    def _check_restored(self, task: CheckedTask, event: dict[str, Any]) -> None:
        """An attempt is given the last checkpoint of the valid ones before it, and no other."""
        expected: dict[str, Any] = {}
        if task.saved is not None:
            seq, state = task.saved
            self.seen["restored"] += 1
            expected = {"restored_at": seq} if state["pad"] else {"restored": state}
        found = {name: event[name] for name in ("restored", "restored_at") if name in event}
        if found != expected:
            raise Violation("restore", f"{task.id} is given {found}, but was at {expected}")

    def _may_begin(self, task: CheckedTask, record: Stored, event: dict[str, Any]) -> None:
        """Not before its time, not too often, and not after somebody was told that it stops."""
        if task.lost >= self._lost_limit:
            raise Violation("lost", f"{task.id} dispatched after {task.lost} lost attempts")
        if record.at_ms < task.not_before - 1:
            early = task.not_before - record.at_ms
            raise Violation("time", f"{task.id} dispatched {early} ms before its time")
        if task.stopped_at and task.stopped_at <= self._told and "blob" not in event:
            raise Violation("stop", f"{task.id} dispatched, but stopped at {task.stopped_at}")

    def _payload(self, task: CheckedTask) -> Any:
        """What the handler must be given."""
        if task.view is None or task.kind != "task" or not task.place[0]:
            return task.payload
        step, index = task.place
        source = task.view.spec.follows(step)
        if source is not None and not task.view.complete(source):
            self.overtakes += 1
        try:
            if not task.view.holds(step, index):
                raise Violation("I5", f"{task.id} dispatched, but its condition does not hold")
            return task.view.payload(step, index)
        except NotThere as error:
            raise Violation("I5", f"{task.id} dispatched without {error}") from error

    def _on_outcome(self, record: Stored, event: dict[str, Any]) -> None:
        task = self.tables.tasks.get(event["task"])
        if task is None:
            return
        proof, used = (event["attempt"], event["secret"]), event.get("used", {})
        if task.state != "running" or proof != (task.attempt, task.secret):
            if used and task.void.get(proof[0]) == proof[1]:
                self.seen["late cost"] += 1
                del task.void[proof[0]]
                self.tables.purse.correct(task.draw, used, record.at_ms)
            return
        self.tables.purse.give_back(task.draw, used, record.at_ms)
        task.secret = ""
        if event.get("error") is not None:
            self.seen[event["error"]["type"]] += 1
            task.state, task.failure = "waiting", event["error"]
            task.failed_at = record.at_ms
        else:
            self.tables.end(task, "succeeded", event.get("result"))

    def _on_checkpoint(self, record: Stored, event: dict[str, Any]) -> None:
        task = self.tables.tasks.get(event["task"])
        proof = (event["attempt"], event["secret"])
        if task is None or task.state != "running" or proof != (task.attempt, task.secret):
            self.seen["void checkpoint"] += 1
        elif event["number"] > task.checkpoints:
            task.checkpoints = event["number"]
            task.saved = record.seq, event["value"]

    def _on_lost(self, record: Stored, event: dict[str, Any]) -> None:
        task = self.tables.tasks.get(event["task"])
        if task is None or task.state != "running" or event["attempt"] != task.attempt:
            return
        self.tables.purse.give_back(task.draw, {}, record.at_ms)
        if task.draw.units:
            task.void[task.attempt] = task.secret
            while len(task.void) > 8:
                del task.void[next(iter(task.void))]
        task.state, task.secret = "waiting", ""
        if event.get("started", True):
            if not {(task.id, task.attempt)} & (self.starts.keys() | self.allowed):
                raise Violation("lost", f"{event} says started, but no handler was")
            task.lost += 1
        else:
            task.unstarted += 1

    def _on_retrying(self, record: Stored, event: dict[str, Any]) -> None:
        self._endings.retrying(record, event)

    def _on_settled(self, record: Stored, event: dict[str, Any]) -> None:
        self._endings.settled(record, event)

    def _on_halted(self, record: Stored, event: dict[str, Any]) -> None:
        view = self.tables.flows.get(event["task"])
        if view is None or view.ending is not None:
            return
        if view.expires_at is None or record.at_ms < view.expires_at - 1:
            raise Violation("time", f"{event} before {view.expires_at}")
        self.tables.halt(view, event["state"])

    def _on_merged(self, _record: Stored, event: dict[str, Any]) -> None:
        if self.tables.merges.pop(event["task"], None) != event["same_as"]:
            raise Violation("I1", f"{event} merges what is not the same")
        self.ends[event["task"]] += 1

    def _on_answered(self, _record: Stored, event: dict[str, Any]) -> None:
        name = event["task"]
        if name not in self.tables.answers:
            raise Violation("I1", f"{event} answers what was not asked")
        expected = self.tables.answers.pop(name)
        found = (event.get("error") or {}).get("type")
        if found != expected:
            raise Violation("order", f"{event}, but expected is {expected}")
        self.ends[name] += 1
        self._told = max(self._told, int(name))

    def _on_expanded(self, _record: Stored, event: dict[str, Any]) -> None:
        self._endings.expanded(event)

    def _on_entered(self, _record: Stored, event: dict[str, Any]) -> None:
        self._endings.entered(event)

    def _on_skipped(self, _record: Stored, event: dict[str, Any]) -> None:
        self._endings.skipped(event)

    def _on_fired(self, record: Stored, event: dict[str, Any]) -> None:
        self._endings.fired(record, event)

    def _on_quarantined(self, _record: Stored, event: dict[str, Any]) -> None:
        if event["seq"] not in self.tables.unreadable:
            raise Violation("I8", f"{event} quarantines what can be read")
        self.tables.unreadable.discard(event["seq"])
