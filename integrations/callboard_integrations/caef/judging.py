"""Decides after each iteration of a story how it goes on: a pure function of what the stages gave.

It goes on with what has failed, begins anew in a fresh worktree, or ends with a verdict. The same
files, or the same failures, a second time mean that it goes round in circles; then, and where time
has run out, it begins anew with a note of what to avoid, as often as the profile allows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import msgspec

from callboard_integrations.caef.records import (
    Change,
    FailedTest,
    Judged,
    Report,
    Standing,
    Verdict,
)
from callboard_integrations.caef.settings import Profile
from callboard_integrations.caef.testing import is_green, read_report

__all__ = ["judge"]

_MAX_NOTES = 10
_MAX_NOTE = 600
_MAX_FAILURES = 20
_MAX_ERROR = 1_500
_MAX_NAME = 500
_CHANGING = re.compile(r"0x[0-9a-fA-F]+|\b\d+\.\d+ ?m?s\b|/tmp/\S+")


def judge(given: Judged, profile: Profile) -> Standing:
    """How the story stands after an iteration. Raises `BadInput` for a report that is none."""
    if given.standing.verdict:
        return given.standing
    if given.planned is None or given.change is None:
        stage = "plan" if given.planned is None else "implement"
        reason = f"its {stage} stage has failed: callboard status says why"
        return _ended(given.standing, "failed", reason)
    change = given.change
    report = None if given.report is None else read_report(given.report)
    now = msgspec.structs.replace(
        given.planned.standing,
        iteration=given.planned.standing.iteration + 1,
        tokens=given.planned.standing.tokens + change.tokens,
        branch=change.branch or given.planned.standing.branch,
        commit=change.commit or given.planned.standing.commit,
    )
    if change.status == "none":
        return _ended(now, "exhausted", change.reason)
    if report is not None and is_green(report, lint_gate=change.lint_gate):
        return _ended(now, "passed", "")
    now = msgspec.structs.replace(now, failures=_failures(change, report))
    late = change.status == "timed_out" or (
        report is not None and report.tests.status == "timed_out"
    )
    signatures = _signatures(change, now.failures)
    known = {*now.seen, f"tree {change.tree_before}"}
    why: Verdict
    if late:
        why = "timed_out"
    elif not signatures.isdisjoint(known):
        why = "oscillating"
    elif now.iteration >= profile.iterations:
        return _ended(now, "exhausted", f"not green after {now.iteration} iterations")
    else:
        return msgspec.structs.replace(now, seen=sorted(known | signatures))
    if now.iteration >= profile.iterations or now.generation >= profile.restarts:
        left = "restarts" if now.iteration < profile.iterations else "iterations"
        return _ended(now, why, f"no {left} are left after {now.iteration} iterations")
    return msgspec.structs.replace(
        now,
        generation=now.generation + 1,
        commit=now.base,
        failures=[],
        seen=[],
        avoid=[*now.avoid, _note(now, why, change)][-_MAX_NOTES:],
    )


def _ended(now: Standing, verdict: Verdict, reason: str) -> Standing:
    failures = [] if verdict == "passed" else now.failures
    return msgspec.structs.replace(now, verdict=verdict, reason=reason, failures=failures)


def _failures(change: Change, report: Report | None) -> list[FailedTest]:
    """What the next plan is to mend."""
    if change.status != "applied":
        refused = [one for one in change.results if one.status == "refused"]
        found = [
            FailedTest(test="an edit", file=one.file, error=one.reason, suspects=[one.file])
            for one in refused
        ]
        return (found or [FailedTest(test="the edits", error=change.reason)])[:_MAX_FAILURES]
    if report is None:
        why = "the tests' sandbox ended without a report: memory, disk or processes ran out"
        return [FailedTest(test="the test run", error=why)]
    tests, lint = report.tests, report.lint
    failures = [_cut(one) for one in tests.summary.failures[:_MAX_FAILURES]]
    if tests.status != "passed" and not failures:
        said = "nothing was collected" if tests.status == "none" else tests.summary.output
        failures.append(
            FailedTest(test="the test run", error=f"{tests.status}: {said}"[:_MAX_ERROR])
        )
    if change.lint_gate and lint.status not in ("passed", "skipped"):
        error = f"{lint.status}: {lint.output}"[:_MAX_ERROR]
        failures.append(FailedTest(test="the linter", error=error))
    return failures[:_MAX_FAILURES]


def _cut(failure: FailedTest) -> FailedTest:
    """A test may have printed the report itself."""
    return FailedTest(
        test=failure.test[:_MAX_NAME],
        file=failure.file[:_MAX_NAME],
        error=failure.error[-_MAX_ERROR:],
        suspects=[name[:_MAX_NAME] for name in failure.suspects[:_MAX_NOTES]],
    )


def _signatures(change: Change, failures: Sequence[FailedTest]) -> set[str]:
    """By which the same state is known again: of the files, and of what fails and how."""
    told = sorted(f"{one.test}\0{_CHANGING.sub('', one.error)}" for one in failures)
    failing = f"failing {hashlib.sha256(chr(1).join(told).encode()).hexdigest()[:16]}"
    return {failing, f"tree {change.tree}"} if change.tree else {failing}


def _note(now: Standing, why: Verdict, change: Change) -> str:
    files = ", ".join(dict.fromkeys(one.file for one in change.results)) or "no file"
    how = "took too long" if why == "timed_out" else "went round in circles"
    last = now.failures[0].error.strip().rpartition("\n")[2] if now.failures else ""
    return f"{now.iteration} iterations that changed {files} {how}; at last: {last}"[:_MAX_NOTE]
