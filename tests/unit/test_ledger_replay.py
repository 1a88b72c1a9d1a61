"""Replay: the state at a moment, and the history of one task with what was void in it."""

from __future__ import annotations

import pytest

from callboard_ledger.replay import Replay, Replayed, render
from callboard_ledger.views import FlowView, TaskView
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
        replayed(scribe, Replay(SUBJECTS, until_seq=seq)).states
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
    assert replayed(scribe, Replay(SUBJECTS)).states == {"waiting": 1}
    assert replayed(scribe, Replay(SUBJECTS, until_seq=3)).states == {"waiting": 2}


@pytest.mark.parametrize("seed", range(3))
def test_any_journal_can_be_shown_to_a_person(seed: int) -> None:
    scribe = Scribe()
    scribe.records = random_journal(seed, 300)
    lines = list(render(replayed(scribe, Replay(SUBJECTS))))
    assert lines[0].startswith("at 300 (2023-11-14 22:13:20.300): ")
    assert all(line.isprintable() for line in lines)
