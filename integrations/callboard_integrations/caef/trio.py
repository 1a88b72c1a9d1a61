"""Plan, Implement and Test as plain objects, for whoever has no board: the published contract.

    plan = PlanAgent("quick", story="docs/stories/1.1.story.md", root=project).run()
    change = ImplementAgent(root=project).run("edits.json", apply=True)
    report = TestAgent("quick", root=project).run(["tests"])

Each call begins anew and keeps nothing. The agents of a board do the same with the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.project_files import KEPT
from callboard_integrations.caef.backups import applied_before, apply_changes
from callboard_integrations.caef.edits import digest_of, read_edits, worked_out
from callboard_integrations.caef.planning import make_plan, verified_by
from callboard_integrations.caef.records import Edit, EditResult, FailedTest, Planned, TestWanted
from callboard_integrations.caef.settings import CaefSettings, load_settings
from callboard_integrations.caef.story_file import read_story
from callboard_integrations.caef.testing import (
    checked_paths,
    is_green,
    run_in_sandbox,
    testing_agent,
)

__all__ = ["ImplementAgent", "PlanAgent", "TestAgent", "implement", "plan_for"]

_STEPS = 5


def plan_for(
    profile_name: str,
    settings: CaefSettings,
    story: Path | None,
    root: Path,
    *,
    failures: Sequence[FailedTest] = (),
    max_steps: int | None = None,
    suspects: Sequence[str] = (),
) -> Planned:
    """A plan within the profile's budget. Raises `BadInput`."""
    profile = settings.profile(profile_name)
    most = profile.max_steps if max_steps is None else min(max_steps, profile.max_steps)
    found = None if story is None else read_story(story, inside=root)
    plan, cut = make_plan(found, failures, suspects, max_steps=most)
    return Planned(
        status="truncated" if cut else "planned" if plan.steps else "empty",
        profile=profile_name,
        verify_paths=verified_by(plan, profile),
        max_steps_enforced=most,
        plan=plan,
    )


def implement(
    root: Path, edits: Sequence[Edit], backups: Path, *, apply: bool
) -> tuple[str, list[EditResult], list[str]]:
    """Apply all edits to files below `root`, or none: the status, each result, and the backups.

    backups: a folder; one below it, named after the edits, keeps what was there before. Raises
    `BadInput`, `OSError`.
    """
    backup = backups / digest_of(edits)
    if apply and (kept := applied_before(root, backup)):
        return "already", [EditResult(file=edit.file, status="already") for edit in edits], kept
    results, changes = worked_out(root, edits, apply=apply)
    if not changes:
        return "refused", results, []
    if not apply:
        return "dry_run", results, []
    return "applied", results, apply_changes(root, changes, backup)


class PlanAgent:
    """story: a story file. root: the project; settings: by default those of its `caef.yaml`."""

    def __init__(
        self,
        profile_name: str = "quick",
        *,
        story: Path | str | None = None,
        root: Path | str = ".",
        settings: CaefSettings | None = None,
    ) -> None:
        self._root = Path(root).resolve()
        self._settings = settings or load_settings(self._root)
        self._settings.profile(profile_name)
        self._profile = profile_name
        self._story = None if story is None else self._root / story

    def run(
        self,
        parsed_failures: Sequence[Mapping[str, Any]] | None = None,
        suspect_files: Sequence[str] | None = None,
        max_steps: int = _STEPS,
    ) -> dict[str, Any]:
        """Return {status, profile, verify_paths, max_steps_enforced, plan: {steps, success_checks,
        suspect_scope}}. status: `planned`, `truncated` (there is more to do) or `empty`.

        parsed_failures: as `tests.summary.failures` of a report. Raises `BadInput`.
        """
        if max_steps < 1:
            raise BadInput("max_steps", f"{max_steps} is not above 0")
        try:
            failures = msgspec.convert(list(parsed_failures or ()), list[FailedTest])
        except msgspec.ValidationError as error:
            raise BadInput("parsed_failures", str(error)) from error
        found = plan_for(
            self._profile,
            self._settings,
            self._story,
            self._root,
            failures=failures,
            max_steps=max_steps,
            suspects=suspect_files or (),
        )
        plain: dict[str, Any] = msgspec.to_builtins(found)
        del plain["standing"]
        return plain


class ImplementAgent:
    """root: the folder that files are named in. backups: a folder, by default in `.callboard`."""

    def __init__(self, *, root: Path | str = ".", backups: Path | str | None = None) -> None:
        self._root = Path(root).resolve()
        kept = self._root / KEPT / "caef" / "backups"
        self._backups = kept if backups is None else Path(backups).resolve()

    def run(
        self,
        edits_file: Path | str | None = None,
        apply: bool | None = None,  # noqa: FBT001  the contract's
    ) -> dict[str, Any]:
        """Return {status, results, backups}, or {status: "skipped", reason} without any edits.

        edits_file: relative to the root. apply: write the files; else it is a dry run. status:
        `applied`, `already`, `dry_run` or `refused`, where nothing is written because one edit does
        not fit. `restore` of a backup brings the old files back. Raises `BadInput` if the edits
        file is no list of edits.
        """
        if edits_file is None:
            return {"status": "skipped", "reason": "no edits file was given"}
        edits = read_edits(self._root / edits_file)
        if not edits:
            return {"status": "skipped", "reason": f"{edits_file} is not there, or has no edits"}
        done = implement(self._root, edits, self._backups, apply=bool(apply))
        status, results, backups = done
        return {"status": status, "results": msgspec.to_builtins(results), "backups": backups}


class TestAgent:
    """root: the project whose tests are run, in the sandbox. settings: see `PlanAgent`."""

    __test__ = False  # it is no test of pytest's

    def __init__(
        self,
        profile_name: str = "quick",
        *,
        root: Path | str = ".",
        settings: CaefSettings | None = None,
    ) -> None:
        self._root = Path(root).resolve()
        self._settings = settings or load_settings(self._root)
        self._profile = self._settings.profile(profile_name)
        self._agent = testing_agent(self._settings, self._root, self._root)

    def run(
        self,
        paths: Sequence[str] | None = None,
        lint_gate: bool = True,  # noqa: FBT001, FBT002  the contract's
    ) -> dict[str, Any]:
        """Return {status, tests: {status, summary, duration_sec}, lint}. status: `passed`, or
        `failed`.

        paths: files, folders or tests, relative to the root; none: all that pytest finds.
        lint_gate: whether the linter must be content, too. Raises `BadInput`.
        """
        profile = self._profile
        wanted = TestWanted(
            folder=str(self._root),
            paths=checked_paths(self._root, list(paths or profile.verify_paths)),
            linter=self._settings.linter,
            seconds=profile.test_seconds,
            lint_seconds=profile.lint_seconds,
            max_failures=profile.max_failures,
        )
        report = run_in_sandbox(self._agent, wanted)
        status = "passed" if is_green(report, lint_gate=lint_gate) else "failed"
        return {"status": status, **msgspec.to_builtins(report)}
