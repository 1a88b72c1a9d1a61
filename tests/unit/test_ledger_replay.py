"""Replay: the state at a moment, and the history of one task with what was void in it."""

from __future__ import annotations

import pytest
from msgspec import Raw

from callboard_broker.wire import Failure
from callboard_ledger.replay import Replay, Replayed
from callboard_ledger.views import FlowView, ScheduleView, TaskView
from tests.ledger_journal import SUBJECTS, Scribe, fan_out, random_journal


def replayed(scribe: Scribe, replay: Replay) -> Replayed:
    for record in scribe.records:
        if replay.feed(record):
            break
    return replay.result()


def test_the_state_at_a_sequence_is_what_it_was_then() -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    task = scribe.run_task()
    scribe.post()
    states = [
        replayed(scribe, Replay(SUBJECTS, until_seq=seq)).tasks
        for seq in range(len(scribe.records) + 1)
    ]
    assert states == [
        {},
        {},
        {"waiting": 1},
        {"running": 1},
        {"succeeded": 1},
        {"succeeded": 1, "waiting": 1},
    ]
    at = scribe.records[3].at_ns // 1_000_000
    row = replayed(scribe, Replay(SUBJECTS, until_ms=at)).rows[0]
    assert isinstance(row, TaskView)
    assert (row.id, row.state, row.ended_at) == (task, "succeeded", at)


def test_a_timeline_shows_what_counted_and_what_was_void() -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    task, other = scribe.post(), scribe.post()
    scribe.dispatch(task)
    scribe.dispatch(other)
    scribe.lost(task)
    scribe.outcome(task)
    scribe.dispatch(task, 2)
    scribe.outcome(task, 2)
    result = replayed(scribe, Replay(SUBJECTS, about=task))
    assert [(m.kind, m.what, m.verdict) for m in result.timeline] == [
        ("post", "review.python", "accepted"),
        ("dispatch", "attempt 1 to shared/review.python", "accepted"),
        ("lost", "attempt 1: the lease ended", "accepted"),
        ("outcome", "attempt 1 on host-1: succeeded", "void"),
        ("dispatch", "attempt 2 to shared/review.python", "accepted"),
        ("outcome", "attempt 2 on host-1: succeeded", "accepted"),
    ]
    assert [row.id for row in result.rows] == [task]


def test_a_workflow_is_told_with_its_steps_and_only_to_its_tenant() -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    flow = scribe.flow(*fan_out())
    scribe.dispatch(f"{flow}.plan.0")
    scribe.outcome(f"{flow}.plan.0")
    scribe.expanded(flow, "build", 2)
    result = replayed(scribe, Replay(SUBJECTS, about=flow))
    assert [moment.kind for moment in result.timeline] == [
        "flow",
        "dispatch",
        "outcome",
        "expanded",
    ]
    row = result.rows[0]
    assert isinstance(row, FlowView)
    assert row.steps[1].waiting == 2
    assert [row.id for row in result.rows] == [flow, f"{flow}.plan.0"]
    elsewhere = replayed(scribe, Replay(SUBJECTS, about=flow, tenant="globex"))
    assert (elsewhere.rows, elsewhere.timeline) == ([], [])


def test_a_repeated_post_is_no_row_of_the_past_either() -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    first, again = scribe.post(), scribe.post()
    scribe.merged(again, first)
    assert replayed(scribe, Replay(SUBJECTS)).tasks == {"waiting": 1}
    assert replayed(scribe, Replay(SUBJECTS, until_seq=3)).tasks == {"waiting": 2}


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_are_given_away_as_they_end_make_the_same_state(seed: int) -> None:
    scribe = Scribe()
    scribe.records = random_journal(seed, 300)
    kept = replayed(scribe, Replay(SUBJECTS))
    given: list[TaskView | FlowView | ScheduleView] = []
    rest = replayed(scribe, Replay(SUBJECTS, ended=given.append))
    assert given
    assert (rest.tasks, rest.flows) == (kept.tasks, kept.flows)
    assert sorted([*given, *rest.rows], key=lambda row: row.id) == sorted(
        kept.rows, key=lambda row: row.id
    )
    left = {row.id: row.state for row in rest.rows if row.ended_at is not None}
    alone = {state for name, state in left.items() if "." not in name or ".cron." in name}
    assert "succeeded" not in alone  # what may be started again is not given away yet


def test_an_id_that_is_no_number_of_ours_does_not_end_a_replay() -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    flow = scribe.flow(*fan_out())
    scribe.dispatch("9" * 5_000)
    scribe.dispatch(f"0{flow}")
    result = replayed(scribe, Replay(SUBJECTS))
    assert [row.id for row in result.rows] == [flow]
    assert result.void == 2


def test_a_timeline_says_in_words_what_was_asked_and_what_became_of_it() -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    task = scribe.post()
    scribe.dispatch(task, host="host-2")
    scribe.lost(task, started=False)
    scribe.dispatch(task, 2)
    scribe.outcome(task, 2, error=Failure("Boom", "it broke"), used={"tokens": 1500.0})
    scribe.retrying(task, 2, 1_700_000_060_000)
    scribe.settled(task, "expired")
    command = scribe.command("redrive", task, by="ann", reason="again", payload=Raw(b"1"))
    scribe.answered(command)
    refused = scribe.command("cancel", task)
    scribe.answered(refused, Failure("Conflict", "too late"))
    scribe.command("approve", task, approved=False)
    result = replayed(scribe, Replay(SUBJECTS, about=task))
    assert [(m.kind, m.actor, m.what) for m in result.timeline] == [
        ("post", "client", "review.python"),
        ("dispatch", "router", "attempt 1 to shared/review.python, to the mailbox of host-2"),
        ("lost", "router", "attempt 1: the lease ended, nobody had begun it"),
        ("dispatch", "router", "attempt 2 to shared/review.python"),
        ("outcome", "host-1", "attempt 2 on host-1: Boom: it broke, used 1500 tokens"),
        (
            "retrying",
            "router",
            "attempt 2 is followed by another one at 2023-11-14 22:14:20 UTC",
        ),
        ("settled", "router", "expired: Broken (payload.x): it broke"),
        ("flow", "client ann", "redrive with edited inputs, by ann: again"),
        ("answered", "router", "carried out"),
        ("flow", "client", "cancel"),
        ("answered", "router", "refused: Conflict: too late"),
        ("flow", "client", "reject"),
    ]
    assert {moment.task for moment in result.timeline} == {task}
    assert result.tasks == {"waiting": 1}


def test_a_schedule_is_a_row_of_the_past_and_its_tasks_are_counted() -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    schedule = scribe.schedule()
    scribe.fired(schedule, 0)
    scribe.fired(schedule, 1)
    scribe.dispatch(f"{schedule}.cron.1")
    result = replayed(scribe, Replay(SUBJECTS))
    assert [row.id for row in result.rows] == [schedule, f"{schedule}.cron.1"]
    assert result.tasks == {"running": 1}
