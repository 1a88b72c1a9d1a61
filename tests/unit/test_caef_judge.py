"""How a story goes on after an iteration: green, again, anew, or to its end."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import pytest

from callboard_broker.errors import BadInput
from callboard_integrations.caef import load_settings, to_workflow
from callboard_integrations.caef.flow import StoryOptions
from callboard_integrations.caef.judging import judge
from callboard_integrations.caef.records import (
    Change,
    EditResult,
    FailedTest,
    Judged,
    LintReport,
    Plan,
    Planned,
    Report,
    Standing,
    TestReport,
    TestSummary,
)

PROFILE = load_settings(None).profile("quick").model_copy(update={"iterations": 6, "restarts": 1})
BASE = "ba5e" * 10
START = Standing(base=BASE, commit=BASE, began=1)


def change(tree: str, **fields: Any) -> Change:
    results = [EditResult(file="a.py", status="replaced")]
    given: dict[str, Any] = {"status": "applied", "tree": tree, "tree_before": "t0"}
    return Change(**{**given, "results": results, "commit": commit_of(tree), "tokens": 5, **fields})


def commit_of(tree: str) -> str:
    return hashlib.sha1(tree.encode(), usedforsecurity=False).hexdigest()


def report(*failing: str, status: Any = None, lint: Any = "passed") -> dict[str, Any]:
    failures = [FailedTest(test=name, error=f"{name} at 0x7f12 is wrong") for name in failing]
    tests = TestReport(
        status=status or ("failed" if failing else "passed"),
        summary=TestSummary(failures=failures),
        duration_sec=0.1,
    )
    return msgspec.to_builtins(Report(tests=tests, lint=LintReport(status=lint, output="E501")))


def judged(standing: Standing, made: Change | None, said: Any = None) -> Standing:
    planned = Planned(
        status="planned",
        profile="quick",
        verify_paths=[],
        max_steps_enforced=5,
        plan=Plan(),
        standing=standing,
    )
    given = Judged(profile="quick", standing=standing, planned=planned, change=made, report=said)
    return judge(given, PROFILE)


def test_green_tests_end_a_story():
    found = judged(START, change("t1"), report())
    assert (found.verdict, found.iteration, found.commit, found.tokens) == (
        "passed",
        1,
        commit_of("t1"),
        5,
    )


def test_what_fails_is_what_the_next_plan_begins_with():
    found = judged(START, change("t1"), report("a", "b"))
    assert (found.verdict, found.generation) == ("", 0)
    assert [one.test for one in found.failures] == ["a", "b"]
    assert judged(found, change("t2"), report("b")).verdict == ""


def test_an_unhappy_linter_is_a_failure_only_where_it_is_a_gate():
    assert judged(START, change("t1", lint_gate=False), report(lint="failed")).verdict == "passed"
    for lint in ("failed", "missing", "timed_out"):
        found = judged(START, change("t1"), report(lint=lint))
        assert [one.test for one in found.failures] == ["the linter"]
    assert judged(START, change("t1"), report(lint="skipped")).verdict == "passed"


@pytest.mark.parametrize(
    ("tree", "failing"),
    [("t1", "other"), ("t2", "a"), ("t0", "other")],
    ids=["the same files", "the same failures", "nothing changed"],
)
def test_going_round_in_circles_begins_anew_with_a_note_and_then_ends(tree: str, failing: str):
    first = judged(START, change("t1"), report("a"))
    anew = judged(first, change(tree), report(failing))
    assert (anew.verdict, anew.generation, anew.commit) == ("", 1, BASE)
    assert (anew.failures, anew.seen) == ([], [])
    assert "a.py went round in circles" in anew.avoid[0]
    again = judged(anew, change("t1"), report("a"))
    assert again.verdict == ""  # a fresh beginning knows nothing of the trees before
    ended = judged(again, change("t1"), report("b"))
    assert (ended.verdict, ended.reason) == (
        "oscillating",
        "no restarts are left after 4 iterations",
    )


def test_the_same_failure_at_another_address_is_the_same_failure():
    first = judged(START, change("t1"), report("a"))
    said = report("a")
    said["tests"]["summary"]["failures"][0]["error"] = "a at 0x9999 is wrong"
    assert judged(first, change("t2"), said).generation == 1


@pytest.mark.parametrize("by", ["author", "tests"])
def test_running_out_of_time_begins_anew_and_then_ends(by: str):
    late = (
        (change("", status="timed_out"), None)
        if by == "author"
        else (change("t1"), report(status="timed_out"))
    )
    anew = judged(START, *late)
    assert (anew.verdict, anew.generation) == ("", 1)
    assert "took too long" in anew.avoid[0]
    assert judged(anew, *late).verdict == "timed_out"


def test_iterations_are_counted_over_restarts_and_then_exhausted():
    standing = START
    for number in range(1, PROFILE.iterations):
        standing = judged(standing, change(f"t{number}"), report(f"test-{number}"))
        assert standing.verdict == ""
    standing = judged(standing, change("t99"), report("test-99"))
    assert (standing.verdict, standing.iteration) == ("exhausted", PROFILE.iterations)
    assert judged(standing, change("t100"), report()) == standing  # it has ended for good


def test_edits_that_do_not_fit_are_what_is_to_be_mended():
    refused = [EditResult(file="a.py", status="refused", reason="is not there")]
    found = judged(START, change("", status="refused", results=refused))
    assert [(one.file, one.error) for one in found.failures] == [("a.py", "is not there")]
    assert judged(found, change("", status="refused", results=refused)).generation == 1


def test_a_story_without_further_edits_is_exhausted():
    found = judged(START, change("", status="none", reason="there are no edits"))
    assert (found.verdict, found.reason) == ("exhausted", "there are no edits")


def test_a_sandbox_that_ends_without_a_report_is_a_failure_and_a_stage_that_fails_the_end():
    found = judged(START, change("t1"), None)
    assert "without a report" in found.failures[0].error
    assert judged(START, None).verdict == "failed"
    with pytest.raises(BadInput, match="report"):
        judged(START, change("t1"), {"tests": "forged"})


def test_what_a_stage_is_given_as_a_commit_is_one():
    for word in ("--exec=sh", "HEAD", "master"):
        with pytest.raises(BadInput, match="no commit's hash"):
            Standing(base=word)


def test_a_report_that_a_test_has_printed_itself_is_cut():
    said = report(*(f"{number}" * 9_999 for number in range(10)))
    found = judged(START, change("t1"), said)
    assert len(msgspec.json.encode(found)) < 64 * 1024


def test_a_run_is_refused_before_anything_begins_if_two_stories_share_a_name():
    options = StoryOptions(run="r", profile_name="quick", profile=PROFILE)
    story = {"id": "a", "story": "a.md"}
    assert to_workflow([story], options).spec().name == "caef"
    with pytest.raises(BadInput, match="that of two"):
        to_workflow([story, story], options)
    with pytest.raises(BadInput, match="no short name"):
        to_workflow([{"id": "a.b", "story": "a.md"}], options)
    with pytest.raises(BadInput, match="0 stories"):
        to_workflow([], options)
