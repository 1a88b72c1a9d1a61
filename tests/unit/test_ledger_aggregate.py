"""The fold of the journal: what counts, what is void, and that it equals an independent fold."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from callboard_broker.record import Record
from callboard_broker.wire import Failure
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.rows import Flow, Task
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.store import Query
from tests.ledger_journal import SUBJECTS, Scribe, fan_out, random_journal

CAPABILITIES = {"plan": "planner", "build": "builder", "check": "checker", "report": "writer"}


def folded(scribe: Scribe) -> Aggregator:
    aggregator = Aggregator(SUBJECTS)
    for record in scribe.records:
        aggregator.apply(record)
    return aggregator


def begun() -> Scribe:
    scribe = Scribe()
    scribe.begin_epoch()
    return scribe


def test_a_task_that_ran_has_succeeded_and_tells_where_and_when() -> None:
    scribe = begun()
    task = scribe.run_task()
    row = folded(scribe).tasks[task]
    assert (row.state, row.attempt, row.host) == ("succeeded", 1, "host-1")
    assert (row.post_seq, row.dispatch_seq, row.end_seq) == (2, 3, 4)
    assert row.posted_at == 1_700_000_000_002
    assert row.ended_at == 1_700_000_000_004


def test_a_redelivered_event_is_applied_once() -> None:
    scribe = begun()
    scribe.run_task()
    aggregator = folded(scribe)
    assert {aggregator.apply(record) for record in scribe.records} == {"repeated"}
    assert aggregator.void == 0


def test_the_outcome_of_a_lost_attempt_comes_too_late() -> None:
    scribe = begun()
    task = scribe.post()
    scribe.dispatch(task)
    scribe.lost(task)
    scribe.outcome(task)
    aggregator = folded(scribe)
    assert aggregator.tasks[task].state == "waiting"
    assert (aggregator.tasks[task].lost, aggregator.void) == (1, 1)


def test_an_event_on_another_tenants_subject_is_void() -> None:
    scribe = begun()
    task = scribe.post("acme")
    scribe.dispatch(task, tenant="globex")
    assert folded(scribe).tasks[task].state == "waiting"
    scribe.dispatch(task)
    scribe.outcome(task, tenant="globex")
    scribe.lost(task, tenant="globex")
    assert folded(scribe).tasks[task].state == "running"


def test_a_router_whose_epoch_is_over_changes_nothing() -> None:
    scribe = begun()
    old = scribe.epoch
    task = scribe.post()
    scribe.begin_epoch()
    scribe.dispatch(task, epoch=old)
    scribe.settled(task, epoch=old)
    assert folded(scribe).tasks[task].state == "waiting"
    assert folded(scribe).void == 2


def test_an_attempt_of_an_earlier_epoch_still_ends_with_its_outcome() -> None:
    scribe = begun()
    task = scribe.post()
    scribe.dispatch(task)
    scribe.begin_epoch()
    scribe.outcome(task)
    assert folded(scribe).tasks[task].state == "succeeded"


def test_a_malformed_post_waits_until_the_router_ends_it_and_cannot_be_dispatched() -> None:
    scribe = begun()
    task = str(scribe.write("cb.task.acme.review", b"no json"))
    scribe.dispatch(task)
    row = folded(scribe).tasks[task]
    assert row.state == "waiting"
    assert row.failure is not None
    assert row.failure.type == "BadInput"
    scribe.settled(task)
    aggregator = folded(scribe)
    assert aggregator.tasks[task].state == "failed"
    assert aggregator.malformed == 1


def test_a_failed_attempt_waits_for_the_router_with_its_error() -> None:
    scribe = begun()
    task = scribe.post()
    scribe.dispatch(task)
    scribe.outcome(task, error=Failure("Boom", "it broke", trace="long"))
    row = folded(scribe).tasks[task]
    assert row.state == "waiting"
    assert row.failure == Failure("Boom", "it broke", trace="long")
    assert row.end_seq is None


def test_a_repeated_post_is_no_task_of_its_own() -> None:
    scribe = begun()
    first, again = scribe.post(), scribe.post()
    scribe.merged(again, first)
    aggregator = folded(scribe)
    assert list(aggregator.tasks) == [first]
    merge = aggregator.changes().merges[0]
    assert (str(merge.seq), merge.same_as, merge.tenant) == (again, first, "acme")


def test_a_step_appears_with_its_first_dispatch_and_counts_in_its_workflow() -> None:
    scribe = begun()
    flow = scribe.flow(*fan_out())
    row = folded(scribe).flows[int(flow)]
    assert row.state == "waiting"
    assert [(step.id, step.total) for step in row.steps.values()] == [
        ("plan", 1),
        ("build", None),
        ("check", None),
        ("report", 1),
    ]
    scribe.dispatch(f"{flow}.plan.0")
    aggregator = folded(scribe)
    assert aggregator.flows[int(flow)].state == "running"
    step = aggregator.tasks[f"{flow}.plan.0"]
    assert (step.capability, step.step, step.idx, step.post_seq) == ("planner", "plan", 0, None)
    assert aggregator.flows[int(flow)].steps["plan"].running == 1


def test_a_fan_out_that_was_expanded_gives_its_number_to_what_follows_it() -> None:
    scribe = begun()
    flow = scribe.flow(*fan_out())
    scribe.expanded(flow, "build", 3)
    scribe.expanded(flow, "build", 9)
    scribe.dispatch(f"{flow}.build.2")
    scribe.outcome(f"{flow}.build.2")
    scribe.dispatch(f"{flow}.check.2")
    scribe.settled(f"{flow}.build.1")
    steps = folded(scribe).flows[int(flow)].steps
    build, check = steps["build"], steps["check"]
    assert (build.total, build.waiting, build.succeeded, build.failed) == (3, 1, 1, 1)
    assert (check.total, check.waiting, check.running) == (3, 2, 1)
    assert (build.state, check.state) == ("failed", "running")


def test_a_workflow_ends_only_after_its_steps() -> None:
    scribe = begun()
    flow = scribe.flow(*fan_out())
    scribe.dispatch(f"{flow}.plan.0")
    scribe.settled(flow, "failed")
    assert folded(scribe).flows[int(flow)].state == "running"
    scribe.outcome(f"{flow}.plan.0")
    scribe.settled(flow, "succeeded")
    assert folded(scribe).flows[int(flow)].state == "succeeded"


def test_a_step_that_left_memory_cannot_be_dispatched_anew() -> None:
    scribe = begun()
    flow = scribe.flow(*fan_out())
    scribe.dispatch(f"{flow}.plan.0")
    scribe.outcome(f"{flow}.plan.0")
    aggregator = folded(scribe)
    aggregator.saved(aggregator.changes())
    assert not aggregator.tasks
    scribe.dispatch(f"{flow}.plan.0")
    assert aggregator.apply(scribe.records[-1]) == "void"


def test_what_has_ended_leaves_memory_once_it_is_saved() -> None:
    scribe = begun()
    scribe.run_task()
    flow = scribe.flow(*fan_out())
    scribe.settled(flow, "cancelled")
    waiting = scribe.post()
    aggregator = folded(scribe)
    assert len(aggregator.tasks) == 2
    aggregator.saved(aggregator.changes())
    assert list(aggregator.tasks) == [waiting]
    assert not aggregator.flows
    assert not aggregator.changes().tasks


@pytest.mark.parametrize(
    "task", ["", ".", "2..0", "2.plan", "2.plan.00", "2.plan.-1", "2.p.0", "٢"]
)
def test_a_dispatch_of_an_id_that_nobody_could_have_given_is_void(task: str) -> None:
    scribe = begun()
    scribe.flow(*fan_out())
    scribe.dispatch(task)
    aggregator = folded(scribe)
    assert not aggregator.tasks
    assert aggregator.void == 1


@pytest.mark.parametrize("seed", range(25))
def test_the_state_equals_an_independent_fold_across_saves_and_restarts(
    seed: int, tmp_path: Path
) -> None:
    journal = random_journal(seed, 1_200)
    store = SqliteStore(tmp_path / "ledger.db", stream="JOURNAL")
    aggregator = Aggregator(SUBJECTS)
    for number, record in enumerate(journal):
        aggregator.apply(record)
        if number % (seed + 3) == 0:
            changes = aggregator.changes()
            store.save(changes)
            aggregator.saved(changes)
        if number % 97 == seed:  # killed: what was not saved is folded again
            store.close()
            store = SqliteStore(tmp_path / "ledger.db", stream="JOURNAL")
            aggregator = Aggregator(SUBJECTS)
            aggregator.restore(store.load())
            for again in journal[aggregator.position : number + 1]:
                aggregator.apply(again)
    store.save(aggregator.changes())
    found = store.find(Query(limit=10_000))
    naive = NaiveFold()
    for record in journal:
        naive.apply(record)
    tasks = {row.id: seen_task(row) for row in found if isinstance(row, Task)}
    flows = {row.id: seen_flow(row) for row in found if isinstance(row, Flow)}
    assert tasks == naive.tasks
    assert flows == naive.flows
    assert {seq for seq in naive.merges if store.merge(seq) is None} == set()
    assert {row.id for row in store.find(Query(state="running", limit=10_000))} == {
        name for name, row in (naive.tasks | naive.flows).items() if row["state"] == "running"
    }
    states = Counter(row["state"] for row in naive.tasks.values())
    assert set(states) >= {"waiting", "running", "succeeded", "failed"}
    store.close()


def seen_task(row: Task) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "state": row.state,
        "attempt": row.attempt,
        "lost": row.lost,
        "secret": row.secret,
        "failed": row.failure is not None,
        "host": row.host,
        "dispatch_seq": row.dispatch_seq,
        "end_seq": row.end_seq,
        "capability": row.capability,
    }


def seen_flow(row: Flow) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "state": row.state,
        "end_seq": row.end_seq,
        "steps": {s.id: [s.total, s.running, s.succeeded, s.failed] for s in row.steps.values()},
    }


class NaiveFold:
    """PROTOCOL.md again, in plain dictionaries that forget nothing; of the code it shares nothing
    but the shape of what it is compared with."""

    LIVE = ("waiting", "running")

    def __init__(self) -> None:
        self.epoch = 0
        self.tasks: dict[str, dict[str, Any]] = {}
        self.flows: dict[str, dict[str, Any]] = {}
        self.merges: set[int] = set()

    def apply(self, record: Record) -> None:
        words = record.subject.split(".")
        try:
            body = json.loads(record.data, parse_constant=float)
        except (ValueError, RecursionError):
            body = None
        if words[1] == "task":
            if not words[2].islower() or "*" in words:
                return
            good = isinstance(body, dict) and body.get("priority", 5) <= 9
            self.tasks[str(record.seq)] = self._new(words[2], ".".join(words[3:]), failed=not good)
        elif words[1] == "flow":
            ids = [step["id"] for step in body["steps"]] if body and "steps" in body else []
            good = words[3] == "run" and "plan" in ids
            steps = {"plan": 1, "build": None, "check": None, "report": 1} if good else {}
            self.flows[str(record.seq)] = {
                "tenant": words[2],
                "state": "waiting",
                "end_seq": None,
                "steps": {name: [total, 0, 0, 0] for name, total in steps.items()},
            }
        elif words[2] == "epoch":
            if body and "router" in body:
                self.epoch = record.seq
        elif (body and body.get("kind") == words[3] and len(words[-1]) < 4) or words[
            3
        ] == "dispatch":
            self._event(words[3], words[2], record.seq, body)

    def _new(self, tenant: str, capability: str, *, failed: bool = False) -> dict[str, Any]:
        return {
            "tenant": tenant,
            "state": "waiting",
            "attempt": 0,
            "lost": 0,
            "secret": "",
            "failed": failed,
            "host": None,
            "dispatch_seq": None,
            "end_seq": None,
            "capability": capability,
        }

    def _event(self, kind: str, tenant: str, seq: int, body: dict[str, Any]) -> None:
        if kind != "outcome" and body.get("epoch") != self.epoch:
            return
        name = body.get("task", "")
        flow = self.flows.get(name)
        if flow is not None and flow["tenant"] == tenant:
            self._flow_event(kind, seq, flow, body)
            return
        task = self.tasks.get(name)
        if task is None and kind in ("dispatch", "settled"):
            task = self._step(name, tenant)
            if task is not None and (kind == "settled" or body["attempt"] == 1):
                self.tasks[name] = task
        if task is None or task["tenant"] != tenant:
            return
        before = task["state"]
        if not self._changes(kind, seq, task, body):
            return
        parts = name.split(".")
        if kind == "merged" and len(parts) == 1:
            del self.tasks[name]
            self.merges.add(int(name))
        if len(parts) == 3:
            counts = self.flows[parts[0]]["steps"][parts[1]]
            counts[1] += (task["state"] == "running") - (before == "running")
            counts[2] += task["state"] == "succeeded"
            counts[3] += task["state"] in ("failed", "cancelled", "expired")
            if task["state"] == "running" and self.flows[parts[0]]["state"] == "waiting":
                self.flows[parts[0]]["state"] = "running"

    def _changes(self, kind: str, seq: int, task: dict[str, Any], body: dict[str, Any]) -> bool:
        current = task["state"] == "running" and body.get("attempt") == task["attempt"]
        if kind == "dispatch":
            right = body["attempt"] == task["attempt"] + 1 and not task["failed"]
            if task["state"] != "waiting" or not right:
                return False
            task |= {"state": "running", "attempt": body["attempt"], "secret": body["secret"]}
            task["dispatch_seq"] = seq
        elif kind == "outcome":
            if not current or body["secret"] != task["secret"]:
                return False
            error = "error" in body
            task |= {"secret": "", "host": body["host"], "failed": error}
            task["state"] = "waiting" if error else "succeeded"
            task["end_seq"] = None if error else seq
        elif kind == "lost":
            if not current:
                return False
            task |= {"secret": "", "state": "waiting", "host": body.get("host")}
            task["lost"] += 1
        elif kind == "settled":
            if task["state"] != "waiting":
                return False
            task |= {"state": body["state"], "end_seq": seq}
            task["failed"] = task["failed"] or "error" in body
        elif kind == "merged":
            return bool(task["state"] == "waiting" and task["attempt"] == 0)
        else:
            return False
        return True

    def _flow_event(self, kind: str, seq: int, flow: dict[str, Any], body: dict[str, Any]) -> None:
        name = body["task"]
        steps = [row for task, row in self.tasks.items() if task.startswith(f"{name}.")]
        live = flow["state"] in self.LIVE
        if kind == "settled" and live and not any(row["state"] in self.LIVE for row in steps):
            flow |= {"state": body["state"], "end_seq": seq}
        elif kind == "expanded" and live and body["step"] == "build" and flow["steps"]:
            if flow["steps"]["build"][0] is None and "error" in body:
                flow["steps"]["build"][0] = flow["steps"]["build"][3] = 1
            elif flow["steps"]["build"][0] is None:
                items = body.get("items", 0)
                flow["steps"]["build"][0] = flow["steps"]["check"][0] = items
        elif kind == "merged" and flow["state"] == "waiting" and not steps:
            del self.flows[name]
            self.merges.add(int(name))

    def _step(self, name: str, tenant: str) -> dict[str, Any] | None:
        parts = name.split(".")
        flow = self.flows.get(parts[0])
        if len(parts) != 3 or flow is None or flow["tenant"] != tenant:
            return None
        if flow["state"] not in self.LIVE or parts[1] not in flow["steps"]:
            return None
        return self._new(tenant, CAPABILITIES[parts[1]])
