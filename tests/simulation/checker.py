"""The independent checker: it reads the journal with a rule of its own and allows no exception.

It shares no code with the fold, to which its own result is compared at every message
(`reference.py`). Every event of a router must be one that the journal up to there justifies.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

from callboard_broker.wire import Dispatch
from tests.simulation.flows import FlowView, NotThere
from tests.simulation.reference import Reference, View
from tests.simulation.sent import Memory, Sent
from tests.simulation.server import Stored
from tests.simulation.world import Violation, World

__all__ = ["Checker"]


@dataclass(slots=True, kw_only=True, eq=False)
class _Task:
    tenant: str
    payload: Any = None
    bad_field: str | None = None
    flow: FlowView | None = None
    place: tuple[str, int] = ("", 0)
    state: str = "waiting"
    attempt: int = 0
    secret: str = ""
    lost: int = 0
    failed: bool = False


class Checker:
    """Watches the journal and the outside table.

    digests: of the state, by sequence. clock_error_ms: how wrong the clock of a host may be.
    """

    def __init__(
        self, world: World, digests: dict[int, str], *, lost_limit: int, clock_error_ms: int
    ) -> None:
        self.ends: Counter[str] = Counter()
        self.overtakes = 0
        self.starts: dict[tuple[str, int], tuple[str, str, float]] = {}
        self.tasks: dict[str, _Task] = {}
        self.flows: dict[str, FlowView] = {}
        self.merges: dict[str, str] = {}
        self.unreadable: set[int] = set()
        self._world = world
        self._lost_limit = lost_limit
        self._clock_error_ms = clock_error_ms
        self._reference = Reference(digests)
        self._epoch = 0
        self._limits: dict[str, int] = {}
        self._in_use: Counter[str] = Counter()
        self._tenants: dict[str, str] = {}
        self._memory = Memory()
        self._dispatched: dict[tuple[str, int], Any] = {}
        self._sent: dict[int, Sent] = {}

    @property
    def idle(self) -> bool:
        """Whether everything that was stored has come to its end."""
        return not (self.tasks or self.flows or self.merges or self.unreadable)

    def stored(self, record: Stored, tag: Sent | None) -> None:
        """A message was stored: take it in, and compare with the fold."""
        if tag is not None and tag.kind != "outcome":
            self._sent[record.seq] = tag
            self._take_post(record, tag)
        else:
            kind = record.subject.split(".")[-1 if record.subject.endswith("epoch") else 3]
            event = json.loads(record.data)
            if kind not in ("epoch", "outcome") and event["epoch"] != self._epoch:
                raise Violation(
                    "fence", f"{kind} of epoch {event['epoch']} at {record.seq}, in {self._epoch}"
                )
            getattr(self, f"_on_{kind}")(record, event)
        self._reference.fold(record)
        self._reference.compare(self._view(), record.seq)

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
        self.starts[key] = (host, incarnation, self._world.now)

    def _view(self) -> View:
        return View(
            tasks={
                name: (task.state, task.attempt, task.lost, task.failed)
                for name, task in self.tasks.items()
            },
            in_use=self._in_use,
            rest=(
                self._epoch,
                self._limits,
                set(self.flows),
                set(self.merges),
                set(self.unreadable),
            ),
            ended=self.ends,
        )

    def finish(self, sent: list[Sent], stored: list[Stored]) -> None:
        """Everything has come to rest."""
        if not self.idle:
            left = [*self.tasks, *self.flows, *self.merges, *map(str, self.unreadable)]
            raise Violation("I1", f"still open at the end: {left[:12]}")
        if +self._in_use:
            raise Violation("I2", f"tokens are out at rest: {dict(self._in_use)}")
        for found in sent:
            for seq in found.acked:
                if seq > len(stored) or stored[seq - 1].data != found.data:
                    raise Violation("I1", f"post {seq} was acknowledged and is not there")
                if found.kind not in ("garbage", "outcome") and self.ends[str(seq)] != 1:
                    raise Violation("I1", f"post {seq} has {self.ends[str(seq)]} ends")
        wrong = {name: count for name, count in self.ends.items() if count != 1}
        if wrong:
            raise Violation("I1", f"more than one end: {wrong}")

    # -- what posters send

    def _take_post(self, record: Stored, tag: Sent) -> None:
        name = str(record.seq)
        self._tenants[name] = tag.tenant
        if tag.kind == "garbage":
            self.unreadable.add(record.seq)
            if record.subject == "cb.run.epoch":
                self._epoch = record.seq
            return
        first = self._memory.first(name, tag, record.at_ms) if tag.remembered else None
        if first is not None:
            self.merges[name] = first
            return
        if tag.flow is not None:
            self.flows[name] = FlowView(tag.flow, record.seq)
            self._grow(name)
        elif tag.kind == "bad":
            self.tasks[name] = _Task(tenant=tag.tenant, bad_field=tag.refused_for, failed=True)
        else:
            self.tasks[name] = _Task(tenant=tag.tenant, payload=tag.payload)

    def _grow(self, flow_id: str) -> None:
        """Tasks whose own needs are met exist from here on."""
        view = self.flows[flow_id]
        for step, index in view.live():
            name = f"{flow_id}.{step}.{index}"
            if name not in self.tasks:
                tenant = self._tenants[flow_id]
                self.tasks[name] = _Task(tenant=tenant, flow=view, place=(step, index))

    # -- what routers and hosts write

    def _on_epoch(self, record: Stored, _event: dict[str, Any]) -> None:
        self._epoch = record.seq

    def _on_budget(self, _record: Stored, event: dict[str, Any]) -> None:
        self._limits = event["concurrency"]

    def _on_dispatch(self, record: Stored, event: dict[str, Any]) -> None:
        name, attempt = event["task"], event["attempt"]
        task = self.tasks.get(name)
        if task is None:
            rule = "I5" if "." in name and name not in self.ends else "I3b"
            raise Violation(rule, f"{name} dispatched: not live, or its needs are not met")
        if task.state != "waiting" or task.failed or attempt != task.attempt + 1:
            raise Violation("I3b", f"{name} attempt {attempt} dispatched while {task}")
        if record.subject.split(".")[2] != task.tenant:
            raise Violation("I3b", f"{name} dispatched for another tenant")
        task.state, task.attempt, task.secret = "running", attempt, event["secret"]
        for key, most in self._budgets(task.tenant):
            self._in_use[key] += 1
            if self._in_use[key] > most:
                raise Violation("I2", f"{self._in_use[key]} of {key} in use, {most} allowed")
        self._dispatched[name, attempt] = self._payload(name, task)

    def _budgets(self, tenant: str) -> list[tuple[str, int]]:
        most = self._limits.get(f"tenant/{tenant}", self._limits.get("tenant", 0))
        return [("global", self._limits.get("global", 0)), (f"tenant/{tenant}", most)]

    def _payload(self, name: str, task: _Task) -> Any:
        """What the handler must be given."""
        if task.flow is None:
            return task.payload
        step, index = task.place
        source = task.flow.spec.follows(step)
        if source is not None and not task.flow.complete(source):
            self.overtakes += 1
        try:
            return task.flow.payload(step, index)
        except NotThere as error:
            raise Violation("I5", f"{name} dispatched without {error}") from error

    def _on_outcome(self, _record: Stored, event: dict[str, Any]) -> None:
        task = self.tasks.get(event["task"])
        if task is None or task.state != "running":
            return
        if (event["attempt"], event["secret"]) != (task.attempt, task.secret):
            return
        self._give_back(task)
        if event.get("error") is not None:
            task.state, task.failed = "waiting", True
        else:
            self._end(event["task"], task, event.get("result"))

    def _on_lost(self, _record: Stored, event: dict[str, Any]) -> None:
        task = self.tasks.get(event["task"])
        if task is not None and task.state == "running" and event["attempt"] == task.attempt:
            self._give_back(task)
            task.state = "waiting"
            task.lost += 1

    def _give_back(self, task: _Task) -> None:
        for key, _ in self._budgets(task.tenant):
            self._in_use[key] -= 1

    def _on_settled(self, record: Stored, event: dict[str, Any]) -> None:
        name = event["task"]
        if name in self.flows:
            self._settle_flow(record, event)
            return
        task = self.tasks.get(name)
        if task is None or task.state != "waiting":
            raise Violation("I1", f"{name} settled, which is {task and task.state}")
        if task.bad_field is not None and event["error"].get("field") != task.bad_field:
            raise Violation("I8", f"{name} failed for {event['error']}, not {task.bad_field}")
        if not (task.failed or task.lost >= self._lost_limit or self._cannot_be_made(task)):
            raise Violation("I1", f"{name} settled without a reason: {event['error']}")
        self._end(name, task, None, failed=True)

    def _cannot_be_made(self, task: _Task) -> bool:
        if task.flow is not None:
            try:
                task.flow.payload(*task.place)
            except NotThere:
                return True
        return False

    def _settle_flow(self, record: Stored, event: dict[str, Any]) -> None:
        name = event["task"]
        view = self.flows[name]
        if view.live() or view.unexpanded():
            raise Violation("I5", f"workflow {name} settled at {record.seq} while {view.live()}")
        expected: dict[str, Any] | None = None
        if not view.failed:
            try:
                expected = view.output()
            except NotThere:
                expected = None
        if (event["state"] == "succeeded") != (expected is not None):
            raise Violation("I5", f"workflow {name} settled as {event}, must be {expected}")
        if "result" in event and event["result"] != expected:
            raise Violation("I5", f"workflow {name} came to {event['result']}, not {expected}")
        del self.flows[name]
        self.ends[name] += 1

    def _end(self, name: str, task: _Task, result: Any, *, failed: bool = False) -> None:
        del self.tasks[name]
        self.ends[name] += 1
        if task.flow is not None:
            step, index = task.place
            task.flow.ended.add(task.place)
            if failed:
                task.flow.failed.add(step)
            else:
                task.flow.results.setdefault(step, {})[index] = result
            self._grow(str(task.flow.seq))

    def _on_merged(self, _record: Stored, event: dict[str, Any]) -> None:
        if self.merges.pop(event["task"], None) != event["same_as"]:
            raise Violation("I1", f"{event} merges what is not the same")
        self.ends[event["task"]] += 1

    def _on_expanded(self, _record: Stored, event: dict[str, Any]) -> None:
        view = self.flows.get(event["task"])
        if view is None or event["step"] not in view.unexpanded():
            raise Violation("I5", f"{event} expands what is not to be expanded")
        try:
            expected = len(view.items(event["step"]))
        except NotThere:
            expected = -1
        items = -1 if "error" in event else event.get("items", 0)
        if items != expected:
            raise Violation("I5", f"{event} has the wrong number of items, not {expected}")
        if items < 0:
            view.failed.add(event["step"])
        else:
            view.fanned[event["step"]] = items
        self._grow(event["task"])

    def _on_quarantined(self, _record: Stored, event: dict[str, Any]) -> None:
        if event["seq"] not in self.unreadable:
            raise Violation("I8", f"{event} quarantines what can be read")
        self.unreadable.discard(event["seq"])
