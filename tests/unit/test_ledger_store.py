"""The store: rows and position belong together, whatever happens in between."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from callboard_broker.errors import StoreLocked
from callboard_broker.wire import Failure, Settled
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.directory import LedgerDirectory
from callboard_ledger.rows import Task
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.store import Query
from tests.ledger_journal import SUBJECTS, Scribe, fan_out, nested


def opened(directory: Path, created: str = "t0") -> SqliteStore:
    return SqliteStore(directory / "ledger.db", stream="JOURNAL", created=created)


def save(store: SqliteStore, scribe: Scribe) -> Aggregator:
    aggregator = Aggregator(SUBJECTS)
    for record in scribe.records:
        aggregator.apply(record)
    changes = aggregator.changes()
    store.save(changes)
    aggregator.saved(changes)
    return aggregator


def test_a_failed_save_changes_neither_rows_nor_position(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    task = scribe.post()
    store = opened(tmp_path)
    aggregator = save(store, scribe)
    scribe.dispatch(task)
    scribe.post()
    for record in scribe.records:
        aggregator.apply(record)
    changes = aggregator.changes()
    changes.tasks[-1].tenant = None  # type: ignore[assignment]  # breaks the transaction half-way
    with pytest.raises(sqlite3.IntegrityError):
        store.save(changes)
    kept = store.load()
    assert kept.position == 2
    assert [(row.id, row.state) for row in kept.tasks] == [(task, "waiting")]
    changes.tasks[-1].tenant = "acme"
    store.save(aggregator.changes())
    assert store.load().position == 4
    store.close()


def test_everything_the_rule_needs_survives_a_restart(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    task = scribe.post()
    failed = scribe.post()
    scribe.dispatch(task)
    scribe.dispatch(failed)
    scribe.outcome(failed, error=Failure("Boom", "why", field="x", trace="t" * 5_000))
    flow = scribe.flow(*fan_out())
    scribe.dispatch(f"{flow}.plan.0")
    scribe.outcome(f"{flow}.plan.0")
    store = opened(tmp_path)
    save(store, scribe)
    store.close()
    aggregator = Aggregator(SUBJECTS)
    store = opened(tmp_path)
    aggregator.restore(store.load())
    assert aggregator.tasks[failed].failure == Failure("Boom", "why", field="x")
    scribe.outcome(task)
    scribe.dispatch(failed, 2)
    scribe.dispatch(f"{flow}.plan.0")
    scribe.dispatch(f"{flow}.build.0")
    verdicts = [aggregator.apply(record) for record in scribe.records[-4:]]
    assert verdicts == ["accepted", "void", "void", "accepted"]
    store.close()


@pytest.mark.parametrize("damage", ["another journal", "another schema"])
def test_a_store_that_is_not_of_this_journal_is_built_anew(tmp_path: Path, damage: str) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    scribe.run_task()
    store = opened(tmp_path)
    save(store, scribe)
    store.close()
    if damage == "another schema":
        with sqlite3.connect(tmp_path / "ledger.db") as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
    store = opened(tmp_path, created="t0" if damage == "another schema" else "t1")
    assert store.load().position == 0
    assert store.find(Query()) == []
    store.close()


def test_rows_come_newest_first_and_page_by_page(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    for tenant in ("acme", "globex") * 10:
        scribe.run_task(tenant)
    waiting = scribe.post()
    flow = scribe.flow(*fan_out())
    store = opened(tmp_path)
    save(store, scribe)
    assert [row.id for row in store.find(Query(limit=2))] == [flow, waiting]
    assert [row.id for row in store.find(Query(state="waiting", kind="task"))] == [waiting]
    seen: list[int] = []
    before = None
    while page := store.find(Query(tenant="acme", kind="task", limit=4, before=before)):
        assert all(row.tenant == "acme" for row in page)
        seen += [row.seq for row in page]
        before = page[-1].seq
    assert len(seen) == 11
    assert seen == sorted(seen, reverse=True)
    store.close()


def test_finished_rows_can_still_be_asked_for(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    task = scribe.run_task()
    flow = scribe.flow(*fan_out())
    scribe.dispatch(f"{flow}.plan.0")
    scribe.outcome(f"{flow}.plan.0")
    again = scribe.post()
    scribe.merged(again, task)
    store = opened(tmp_path)
    save(store, scribe)
    found = store.task(task)
    assert isinstance(found, Task)
    assert (found.state, found.end_seq) == ("succeeded", 4)
    step = store.task(f"{flow}.plan.0")
    assert step is not None
    assert step.id == f"{flow}.plan.0"
    merge = store.merge(int(again))
    assert merge is not None
    assert merge.same_as == task
    assert store.task(again) is None
    for nonsense in ("", "x", "1.2", f"{flow}.plan.x", f"{flow}.plan.0.0", "9" * 40, "' OR 1=1"):
        assert store.task(nonsense) is None
    store.close()


def test_the_store_is_private_and_has_one_ledger_at_a_time(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "ledger"
    with LedgerDirectory(directory) as mine:
        opened(mine.path).close()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(mine.database.stat().st_mode) == 0o600
        with pytest.raises(StoreLocked, match="another ledger"), LedgerDirectory(directory):
            pass
    with LedgerDirectory(directory):
        pass


def test_rows_are_found_by_capability_workflow_and_what_became_of_them(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    failed, cancelled, expired = scribe.post(), scribe.post(), scribe.post("globex")
    scribe.settled(failed)
    scribe.settled(cancelled, "cancelled")
    scribe.settled(expired, "expired", tenant="globex")
    schedule = scribe.schedule()
    scribe.fired(schedule, 1)
    flow = scribe.flow(*nested())
    scribe.dispatch(f"{flow}.plan.0")
    child = scribe.spawn(f"{flow}.plan.0")
    scribe.entered(f"{flow}.sub.0")
    scribe.dispatch(f"{flow}.sub.0.one.0")
    store = opened(tmp_path)
    save(store, scribe)

    def found(**asked: Any) -> list[str]:
        return [row.id for row in store.find(Query(**asked))]

    assert found(dead=True) == [expired, failed]
    assert found(dead=True, tenant="acme") == [failed]
    assert found(dead=True, state="expired") == [expired]
    assert found(flow=flow) == [f"{flow}.sub.0", child, f"{flow}.plan.0"]
    assert found(flow=f"{flow}.sub.0") == [f"{flow}.sub.0.one.0"]
    assert found(flow=schedule) == [f"{schedule}.cron.1"]
    assert found(kind="schedule") == [schedule]
    assert found(capability="planner") == [f"{flow}.plan.0"]
    assert found(kind="flow") == [f"{flow}.sub.0", flow]
    inner = store.flow(f"{flow}.sub.0")
    assert inner is not None
    assert (inner.flow, inner.step, inner.idx) == (flow, "sub", 0)
    store.close()


def test_what_ended_without_success_can_begin_again_after_a_restart(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    task = scribe.post()
    scribe.dispatch(task)
    scribe.outcome(task, error=Failure("Boom", "why"), used={"tokens": 5.0})
    scribe.settled(task)
    flow = scribe.flow(*nested())
    scribe.dispatch(f"{flow}.plan.0")
    scribe.outcome(f"{flow}.plan.0")
    scribe.entered(f"{flow}.sub.0")
    scribe.dispatch(f"{flow}.sub.0.one.0")
    scribe.outcome(f"{flow}.sub.0.one.0", error=Failure("Boom", "why"))
    scribe.settled(f"{flow}.sub.0.one.0")
    scribe.settled(f"{flow}.sub.0")
    scribe.settled(flow)
    store = opened(tmp_path)
    save(store, scribe)
    store.close()
    store = opened(tmp_path)
    aggregator = Aggregator(SUBJECTS)
    aggregator.restore(store.load())
    assert not aggregator.tasks
    redrive, resume = scribe.command("redrive", task), scribe.command("resume", flow)
    scribe.answered(redrive)
    scribe.dispatch(f"{flow}.sub.0.one.0", 2)  # before the router says that it was resumed
    scribe.answered(resume)
    for record in scribe.records:
        aggregator.apply(record)
    row = aggregator.tasks[task]
    assert (row.state, row.attempt, row.generation, row.used) == ("waiting", 1, 1, {"tokens": 5.0})
    assert [aggregator.flows[name].generation for name in (flow, f"{flow}.sub.0")] == [1, 1]
    assert aggregator.flows[flow].steps["plan"].succeeded == 1
    assert aggregator.tasks[f"{flow}.sub.0.one.0"].state == "running"
    store.save(aggregator.changes())
    kept = store.command(int(resume))
    assert kept is not None
    assert (kept.verb, kept.target, kept.state) == ("resume", flow, "succeeded")
    assert [command.id for command in store.commands_about([task, flow], 9)] == [redrive, resume]
    store.close()


def test_a_workflow_that_was_refused_cannot_be_resumed_after_a_restart_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_ledger.sqlite_store.MAX_DEAD_FLOWS", 2)
    scribe = Scribe()
    scribe.begin_epoch()
    failed = scribe.flow(*nested())
    scribe.settled(failed)
    empty, too_many = scribe.flow(), scribe.flow(*nested())
    scribe.settled(empty)
    overload = Failure("Overloaded", "too many wait")
    scribe.router(Settled(too_many, 0, "failed", overload), "settled")
    scribe.settled(scribe.flow())  # none of these takes the place of one that can be resumed
    store = opened(tmp_path)
    aggregator = save(store, scribe)
    store.close()
    store = opened(tmp_path)
    restarted = Aggregator(SUBJECTS)
    restarted.restore(store.load())
    for flow in (failed, empty, too_many):
        scribe.answered(scribe.command("resume", flow))
    for record in scribe.records:
        aggregator.apply(record)
        restarted.apply(record)
    assert list(restarted.flows) == list(aggregator.flows) == [failed]
    store.close()


@pytest.mark.parametrize(
    "query",
    [
        Query(tenant="acme"),
        Query(state="failed"),
        Query(tenant="acme", state="waiting"),
        Query(capability="review.python"),
        Query(dead=True),
        Query(tenant="acme", dead=True),
        Query(),
    ],
)
def test_no_question_reads_the_whole_table(tmp_path: Path, query: Query) -> None:
    store = opened(tmp_path)
    plans: list[str] = []
    store._database.set_trace_callback(plans.append)
    store.find(query)
    store._database.set_trace_callback(None)
    for sql in plans:
        steps = store._database.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
        assert not any("TEMP B-TREE" in step[3] for step in steps), steps
    store.close()
