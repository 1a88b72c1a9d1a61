"""What the stages of a story hand to each other: the wire between Plan, Implement, Test and Judge.

Nothing else is carried from one stage to the next, so each begins with a fresh context. Everything
is bounded by whoever writes it.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from callboard_broker.errors import BadInput

__all__ = [
    "Change",
    "Edit",
    "EditResult",
    "EditStatus",
    "FailedTest",
    "ImplementWanted",
    "Judged",
    "LintReport",
    "Plan",
    "PlanStep",
    "PlanWanted",
    "Planned",
    "Report",
    "Standing",
    "TestReport",
    "TestSummary",
    "TestWanted",
    "Verdict",
    "VerdictsWanted",
]

_COMMIT = re.compile(r"(?:[0-9a-f]{40,64})?")

Verdict = Literal["", "passed", "exhausted", "oscillating", "timed_out", "failed"]
"""How a story has ended; empty: it has not."""


EditStatus = Literal["replaced", "created", "would_replace", "would_create", "already", "refused"]


class Edit(msgspec.Struct, frozen=True):
    """One entry of an edits file. An empty original: `file` is made, and must not be there yet."""

    file: str
    original_snippet: str
    replacement_snippet: str


class EditResult(msgspec.Struct, frozen=True, kw_only=True):
    """line: where the snippet stands, from 1. diff: a unified diff, cut where it is too long."""

    file: str
    status: EditStatus
    reason: str = ""
    line: int | None = None
    diff: str = ""


class FailedTest(msgspec.Struct, frozen=True, kw_only=True):
    """test: as pytest names it, `tests/test_a.py::test_b`. suspects: files of its traceback."""

    test: str
    file: str = ""
    error: str = ""
    suspects: list[str] = []


class PlanStep(msgspec.Struct, frozen=True, kw_only=True):
    """criteria: the numbers of the acceptance criteria that it is about."""

    kind: Literal["fix", "task", "criterion"]
    title: str
    details: list[str] = []
    criteria: list[int] = []


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    steps: list[PlanStep] = []
    success_checks: list[str] = []
    suspect_scope: list[str] = []


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far a story is, between two iterations.

    base: the commit that it begins at; commit: the last one of this generation. began: Unix
    nanoseconds, to tell runs apart. generation: restarts so far. seen: signatures of trees and
    failures of this generation. avoid: what led nowhere before a restart.
    """

    base: str = ""
    commit: str = ""
    began: int = 0
    generation: int = 0
    iteration: int = 0
    verdict: Verdict = ""
    reason: str = ""
    branch: str = ""
    failures: list[FailedTest] = []
    seen: list[str] = []
    avoid: list[str] = []
    tokens: int = 0

    def __post_init__(self) -> None:
        for field in ("base", "commit"):  # they become words of a command line
            if _COMMIT.fullmatch(getattr(self, field)) is None:
                raise BadInput(field, f"{getattr(self, field)!r:.80} is no commit's hash")


class PlanWanted(msgspec.Struct, frozen=True, kw_only=True):
    """story: its file, relative to the project."""

    story: str
    profile: str = "quick"
    standing: Standing = Standing()


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A plan with the contract's names, and the standing that it was made for."""

    status: Literal["planned", "truncated", "empty"]
    profile: str
    verify_paths: list[str]
    max_steps_enforced: int
    plan: Plan
    standing: Standing = Standing()


class ImplementWanted(msgspec.Struct, frozen=True, kw_only=True):
    """run, item: under which names its branch is kept. edits: an edits file for each iteration;
    without any, the author is asked. tokens: of its answer, at most."""

    run: str
    item: str
    story: str
    planned: Planned
    edits: list[str] = []
    lint_gate: bool = True
    tokens: int | None = None


class TestWanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the sandboxed program reads. folder: it is copied, and never written to.

    paths: relative to it; empty: all that pytest finds. seconds: for the tests; lint_seconds.
    max_failures: pytest stops there.
    """

    __test__ = False  # it is no test of pytest's

    folder: str
    paths: list[str] = []
    linter: list[str] = []
    seconds: float = 120.0
    lint_seconds: float = 30.0
    max_failures: int = 20


class TestSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Counts, the failing tests (the first twenty), and the end of what pytest printed."""

    __test__ = False

    passed: int = 0
    failed: int = 0
    errors: int = 0
    skipped: int = 0
    failures: list[FailedTest] = []
    output: str = ""


class TestReport(msgspec.Struct, frozen=True, kw_only=True):
    """status `none`: nothing was collected; `broken`: pytest itself did not work."""

    __test__ = False

    status: Literal["passed", "failed", "timed_out", "none", "broken"]
    summary: TestSummary
    duration_sec: float


class LintReport(msgspec.Struct, frozen=True, kw_only=True):
    """status `missing`: there is no such program."""

    status: Literal["passed", "failed", "timed_out", "missing", "skipped"]
    output: str = ""
    duration_sec: float = 0.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the sandboxed program prints."""

    tests: TestReport
    lint: LintReport


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What an iteration has changed. test: how it is to be tested; None: it is not.

    tree: the hash of all files; tree_before: as they were. status `none`: there are no more edits.
    """

    status: Literal["applied", "refused", "timed_out", "none"]
    results: list[EditResult] = []
    backups: list[str] = []
    reason: str = ""
    branch: str = ""
    commit: str = ""
    tree: str = ""
    tree_before: str = ""
    tokens: int = 0
    lint_gate: bool = True
    test: TestWanted | None = None


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a judge is given; None: that stage was skipped, or gave nothing."""

    profile: str
    standing: Standing = Standing()
    planned: Planned | None = None
    change: Change | None = None
    report: Any = None


class VerdictsWanted(msgspec.Struct, frozen=True, kw_only=True):
    """ended: the last standing of each story; None: its workflow failed."""

    stories: list[dict[str, Any]]
    ended: list[Standing | None] | None = None
