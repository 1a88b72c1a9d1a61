"""The fold of the journal: what counts, what is void, and that it equals an independent fold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from callboard_broker.rule import DEAD_WINDOW_MS
from callboard_broker.wire import Failure
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.dead import Dead
from callboard_ledger.rows import Flow, Schedule, Task
from callboard_ledger.store import AllocationsQuery, Query
from callboard_ledger.viewing import view
from callboard_ledger.views import FlowView
from tests.folding import fold_with_kills
from tests.ledger_journal import SUBJECTS, Scribe, fan_out, nested, plain_row, random_journal
from tests.naive_ledger import NaiveFold


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
    row = folded(scribe).flows[flow]
    assert row.state == "waiting"
    assert [(step.plan.id, step.total) for step in row.steps.values()] == [
        ("plan", 1),
        ("build", None),
        ("check", None),
        ("report", 1),
    ]
    scribe.dispatch(f"{flow}.plan.0")
    aggregator = folded(scribe)
    assert aggregator.flows[flow].state == "running"
    step = aggregator.tasks[f"{flow}.plan.0"]
    assert (step.capability, step.step, step.idx, step.post_seq) == ("planner", "plan", 0, None)
    assert aggregator.flows[flow].steps["plan"].running == 1


def test_a_fan_out_that_was_expanded_gives_its_number_to_what_follows_it() -> None:
    scribe = begun()
    flow = scribe.flow(*fan_out())
    scribe.expanded(flow, "build", 3)
    scribe.expanded(flow, "build", 9)
    scribe.dispatch(f"{flow}.build.2")
    scribe.outcome(f"{flow}.build.2")
    scribe.dispatch(f"{flow}.check.2")
    scribe.settled(f"{flow}.build.1")
    steps = folded(scribe).flows[flow].steps
    build, check = steps["build"], steps["check"]
    assert (build.total, build.waiting, build.succeeded, build.failed) == (3, 1, 1, 1)
    assert (check.total, check.waiting, check.running) == (3, 2, 1)
    assert (build.state, check.state) == ("failed", "running")


def test_a_workflow_ends_only_after_its_steps() -> None:
    scribe = begun()
    flow = scribe.flow(*fan_out())
    scribe.dispatch(f"{flow}.plan.0")
    scribe.settled(flow, "failed")
    assert folded(scribe).flows[flow].state == "running"
    scribe.outcome(f"{flow}.plan.0")
    scribe.settled(flow, "succeeded")
    assert folded(scribe).flows[flow].state == "succeeded"


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


def test_losses_that_nobody_began_and_errors_that_were_retried_count_apart() -> None:
    scribe = begun()
    task = scribe.post()
    scribe.dispatch(task, host="host-2")
    assert folded(scribe).tasks[task].host == "host-2"
    scribe.lost(task, started=False)
    scribe.dispatch(task, 2)
    scribe.outcome(task, 2, error=Failure("Boom", "it broke"), used={"tokens": 7.0})
    scribe.retrying(task, 2, at=77)
    row = folded(scribe).tasks[task]
    assert (row.lost, row.unstarted, row.errors, row.not_before) == (0, 1, 1, 77)
    assert (row.state, row.failure, row.used) == ("waiting", None, {"tokens": 7.0})


def test_the_cost_of_a_lost_attempt_counts_once_when_it_comes_late() -> None:
    scribe = begun()
    task = scribe.post()
    scribe.dispatch(task)
    scribe.lost(task)
    for secret in ("forged", "s1", "s1"):
        scribe.outcome(task, secret=secret, used={"tokens": 3.0})
    assert folded(scribe).tasks[task].used == {"tokens": 3.0}


def test_a_redrive_that_is_refused_or_not_answered_changes_nothing() -> None:
    scribe = begun()
    task = scribe.post()
    scribe.settled(task)
    command = scribe.command("redrive", task)
    assert folded(scribe).tasks[task].state == "failed"
    scribe.answered(command, Failure("Conflict", "no"))
    scribe.dispatch(task)
    aggregator = folded(scribe)
    assert (aggregator.tasks[task].state, aggregator.void) == ("failed", 1)


@pytest.mark.parametrize("kind", ["skipped", "entered", "dispatch"])
def test_a_void_event_of_the_router_wakes_nothing(kind: str) -> None:
    """No task without a workflow is skipped or entered, and attempt 9 does not come after none."""
    scribe = begun()
    task = scribe.post()
    scribe.settled(task)
    command = scribe.command("redrive", task)
    if kind == "dispatch":
        scribe.dispatch(task, 9)
    else:
        getattr(scribe, kind)(task)
    aggregator = folded(scribe)
    row = aggregator.tasks[task]
    assert (row.state, row.generation, aggregator.void) == ("failed", 0, 1)
    scribe.dispatch(task)
    aggregator = folded(scribe)
    row = aggregator.tasks[task]
    assert (row.state, row.generation) == ("running", 1)
    assert aggregator.target(command) == task


def test_a_void_event_of_an_element_wakes_no_workflow() -> None:
    scribe = begun()
    flow = scribe.flow(*nested())
    scribe.settled(flow)
    scribe.command("resume", flow)
    for task in (f"{flow}.nothing.0", f"{flow}.plan.zero"):
        scribe.dispatch(task)
    aggregator = folded(scribe)
    assert (aggregator.flows[flow].state, aggregator.void) == ("failed", 2)
    scribe.dispatch(f"{flow}.plan.0")
    assert folded(scribe).flows[flow].state == "running"


def test_units_of_a_child_that_outlives_an_inner_workflow_count_for_the_outer_one() -> None:
    scribe = begun()
    flow = scribe.flow(*nested())
    inner = f"{flow}.sub.0"
    scribe.entered(inner)
    scribe.dispatch(f"{inner}.one.0")
    child = scribe.spawn(f"{inner}.one.0")
    scribe.outcome(f"{inner}.one.0", used={"tokens": 2.0})
    scribe.settled(inner, "cancelled")
    before = folded(scribe)
    before.saved(before.changes())
    scribe.dispatch(child)
    scribe.outcome(child, used={"tokens": 5.0})
    whole = folded(scribe)
    for record in scribe.records[before.position :]:
        before.apply(record)
    assert whole.flows[flow].used == before.flows[flow].used == {"tokens": 7.0}
    assert whole.flows[inner].used == {"tokens": 2.0}


def test_a_repeated_command_is_carried_out_once() -> None:
    scribe = begun()
    task = scribe.post()
    scribe.settled(task)
    first, again = scribe.command("redrive", task), scribe.command("redrive", task)
    scribe.answered(first)
    scribe.merged(again, first)
    scribe.settled(task)
    aggregator = folded(scribe)
    assert (aggregator.tasks[task].state, aggregator.tasks[task].generation) == ("failed", 1)
    assert aggregator.changes().merges[0].same_as == first


def test_a_cancelled_workflow_asks_all_that_lives_in_it_to_end() -> None:
    scribe = begun()
    flow = scribe.flow(*nested())
    scribe.dispatch(f"{flow}.plan.0")
    child = scribe.spawn(f"{flow}.plan.0")
    scribe.answered(scribe.command("cancel", flow, by="ann"))
    aggregator = folded(scribe)
    asked = [aggregator.flows[flow], *(aggregator.tasks[n] for n in (f"{flow}.plan.0", child))]
    assert {row.cancel for row in asked} == {"cancelled by ann"}
    assert (aggregator.tasks[child].parent, aggregator.tasks[child].flow) == (
        f"{flow}.plan.0",
        flow,
    )


def test_only_the_current_attempt_may_spawn() -> None:
    scribe = begun()
    task = scribe.post()
    scribe.dispatch(task)
    scribe.lost(task)
    child = scribe.spawn(task)
    row = folded(scribe).tasks[child]
    assert row.failure is not None
    assert (row.failure.type, row.parent) == ("Fenced", None)


def test_a_workflow_says_which_gates_wait_and_what_the_other_steps_wait_for() -> None:
    scribe = begun()
    flow = scribe.flow(*nested())
    scribe.dispatch(f"{flow}.plan.0")
    scribe.outcome(f"{flow}.plan.0")
    scribe.entered(f"{flow}.sub.0")
    shown = view(folded(scribe).flows[flow])
    assert isinstance(shown, FlowView)
    assert [(step.id, step.state, step.waits) for step in shown.steps] == [
        ("plan", "succeeded", None),
        ("sub", "running", None),
        ("ask", "waiting", "steps sub"),
        ("ship", "waiting", "steps ask"),
    ]
    scribe.settled(f"{flow}.sub.0", "succeeded")
    shown = view(folded(scribe).flows[flow])
    assert isinstance(shown, FlowView)
    assert shown.waits == {f"{flow}.ask.0": "approval"}
    assert shown.steps[2].prompt == "ship it?"
    scribe.skipped(f"{flow}.ask.0")
    aggregator = folded(scribe)
    shown = view(aggregator.flows[flow])
    assert isinstance(shown, FlowView)
    assert [(step.state, step.skipped) for step in shown.steps[2:]] == [("cancelled", 1)] * 2
    row = aggregator.tasks[f"{flow}.ask.0"]
    assert (row.state, row.failure) == ("cancelled", Failure("Skipped", "no need"))


def test_the_dead_are_forgotten_by_age_and_by_number() -> None:
    gone: list[str] = []
    dead: Dead[Task] = Dead(2, lambda row: gone.append(row.id))
    for number in range(4):
        dead.bury(Task(id=str(number), state="failed"), number)
    assert gone == ["0", "1"]
    dead.bury(Task(id="9", state="failed"), DEAD_WINDOW_MS + 2)
    assert gone == ["0", "1", "2"]
    assert dead.get("3") is not None


@pytest.mark.parametrize("seed", range(25))
def test_the_state_equals_an_independent_fold_across_saves_and_restarts(
    seed: int, tmp_path: Path
) -> None:
    journal = random_journal(seed, 1_200, resume=False)
    store = fold_with_kills(journal, seed, tmp_path / "ledger.db")
    found = store.find(Query(limit=10_000))
    naive = NaiveFold()
    for record in journal:
        naive.apply(record)
    tasks = {row.id: seen_task(row) for row in found if isinstance(row, Task)}
    flows = {row.id: seen_flow(row) for row in found if isinstance(row, Flow)}
    for row in naive.tasks.values():
        row.pop("skipped", None)
        row.pop("draws")
    assert tasks == naive.tasks
    for row in naive.flows.values():
        row.pop("draws", None)
    assert flows == naive.flows
    schedules = {row.id: (row.state, row.number) for row in found if isinstance(row, Schedule)}
    assert schedules == {n: (row["state"], row["number"]) for n, row in naive.schedules.items()}
    assert {seq for seq in naive.merges if store.merge(seq) is None} == set()
    assert {row.id for row in store.find(Query(state="running", limit=10_000))} == {
        name for name, row in (naive.tasks | naive.flows).items() if row["state"] == "running"
    }
    states = Counter(row["state"] for row in naive.tasks.values())
    assert set(states) >= {"waiting", "succeeded"}
    store.close()


@pytest.mark.parametrize("seed", range(5))
def test_checkpoints_are_counted_as_an_independent_fold_does_across_saves_and_restarts(
    seed: int, tmp_path: Path
) -> None:
    journal = random_journal(seed, 1_200, resume=False, checkpoints=True)
    store = fold_with_kills(journal, seed, tmp_path / "ledger.db")
    naive = NaiveFold()
    for record in journal:
        naive.apply(record)
    found = [row for row in store.find(Query(limit=10_000)) if isinstance(row, Task)]
    counted = {row.id: (row.attempt, row.checkpoints) for row in found}
    assert counted == {n: (r["attempt"], r["checkpoints"]) for n, r in naive.tasks.items()}
    assert sum(number > 0 for _, number in counted.values()) > 5
    store.close()


def test_a_checkpoint_is_its_attempts_own_and_the_last_one_counts() -> None:
    scribe = begun()
    task = scribe.post()
    scribe.checkpoint(task)
    scribe.dispatch(task)
    for number in (1, 3, 2, 3):
        scribe.checkpoint(task, 1, number)
    scribe.checkpoint(task, 1, 4, secret="forged")  # noqa: S106  not one
    scribe.checkpoint(task, 1, 4, tenant="globex")
    aggregator = folded(scribe)
    assert (aggregator.tasks[task].checkpoints, aggregator.void) == (3, 5)
    assert view(aggregator.tasks[task]).checkpoints == 3  # type: ignore[union-attr]
    scribe.lost(task)
    scribe.checkpoint(task, 1, 5)
    scribe.dispatch(task, 2)
    assert folded(scribe).tasks[task].checkpoints == 0


@pytest.mark.parametrize("seed", range(25))
def test_the_state_does_not_depend_on_when_it_was_saved(seed: int, tmp_path: Path) -> None:
    journal = random_journal(seed, 1_200, budgets=True)
    store = fold_with_kills(journal, seed, tmp_path / "ledger.db")
    whole = Aggregator(SUBJECTS)
    for record in journal:
        whole.apply(record)
    rows = [*whole.tasks.values(), *whole.flows.values(), *whole.schedules.values()]
    found = store.find(Query(limit=10_000))
    assert {row.id: plain_row(row) for row in found} == {row.id: plain_row(row) for row in rows}
    kept = store.load()
    assert (kept.epoch, kept.void, kept.malformed) == (whole.epoch, whole.void, whole.malformed)
    allocations = store.allocations(AllocationsQuery(limit=10_000))
    assert allocations[::-1] == whole.changes().allocations
    open_accounts = [row for _, row in sorted(whole.accounts.items()) if row.open]
    assert kept.accounts == open_accounts
    store.close()


@pytest.mark.parametrize("seed", range(12))
def test_what_is_void_changes_nothing(seed: int) -> None:
    """But for the cost of a lost attempt, which counts all the same."""
    whole, counted = Aggregator(SUBJECTS), Aggregator(SUBJECTS)
    for record in random_journal(seed, 1_200):
        if whole.apply(record) != "void" or ".outcome." in record.subject:
            counted.apply(record)
    assert whole.void > counted.void
    left, right = (
        {row.id: plain_row(row) for row in [*fold.tasks.values(), *fold.flows.values()]}
        for fold in (whole, counted)
    )
    assert left == right


def seen_task(row: Task) -> dict[str, Any]:
    names = "tenant state attempt lost unstarted errors generation secret host dispatch_seq end_seq"
    return {
        **{name: getattr(row, name) for name in [*names.split(), "capability", "parent"]},
        "checkpoints": row.checkpoints,
        "failed": row.failure is not None,
        "used": sum((row.used or {}).values()),
    }


def seen_flow(row: Flow) -> dict[str, Any]:
    return {
        "tenant": row.tenant,
        "state": row.state,
        "end_seq": row.end_seq,
        "steps": {
            s.plan.id: [s.total, s.running, s.succeeded, s.failed, s.cancelled, s.skipped]
            for s in row.steps.values()
        },
    }
