"""Makes a story and what has failed into a plan: what to do next, and how to see that it is done.

Failing tests come first, file by file; then tasks that are not ticked, with their subtasks; then
criteria that no task is about. The same story and failures give the same plan, and no more steps
than are allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from callboard_integrations.caef.records import FailedTest, Plan, PlanStep
from callboard_integrations.caef.settings import Profile
from callboard_integrations.caef.story_file import StoryFile

__all__ = ["is_test_file", "make_plan", "verified_by"]

_MAX_SCOPE = 50
_MAX_SHOWN = 300


def make_plan(
    story: StoryFile | None,
    failures: Sequence[FailedTest],
    suspects: Sequence[str],
    *,
    max_steps: int,
) -> tuple[Plan, bool]:
    """The plan, and whether steps were left out."""
    steps = [*_mending(failures), *_doing(story)]
    checks = [f"passes: {one.test}" for one in failures]
    if story is not None:
        checks += [f"criterion {number}: {text}" for number, text in enumerate(story.criteria, 1)]
    files = [*(name for one in failures for name in (*one.suspects, one.file)), *suspects]
    files += story.files if story is not None else []
    scope = [name for name in dict.fromkeys(files) if name][:_MAX_SCOPE]
    plan = Plan(steps=steps[:max_steps], success_checks=checks, suspect_scope=scope)
    return plan, len(steps) > max_steps


def _mending(failures: Sequence[FailedTest]) -> list[PlanStep]:
    by_file: dict[str, list[FailedTest]] = {}
    for one in failures:
        by_file.setdefault(one.file, []).append(one)
    return [
        PlanStep(
            kind="fix",
            title=f"mend what fails in {file or 'the suite'}",
            details=[f"{one.test}: {one.error[:_MAX_SHOWN]}" for one in found],
        )
        for file, found in by_file.items()
    ]


def _doing(story: StoryFile | None) -> list[PlanStep]:
    if story is None:
        return []
    steps = [
        PlanStep(kind="task", title=task.text, details=task.open, criteria=list(task.criteria))
        for task in story.tasks
        if not task.done or task.open
    ]
    about = {number for task in story.tasks for number in task.criteria}
    if not about and story.tasks:
        return steps  # its author does not say which task is about what
    return steps + [
        PlanStep(kind="criterion", title=text, criteria=[number])
        for number, text in enumerate(story.criteria, 1)
        if number not in about
    ]


def is_test_file(name: str) -> bool:
    """Whether pytest would collect a file of this name."""
    path = PurePosixPath(name)
    return path.suffix == ".py" and (path.stem.startswith("test_") or path.stem.endswith("_test"))


def verified_by(plan: Plan, profile: Profile) -> list[str]:
    """What is to be tested afterwards; empty: all that pytest finds.

    As failures are a part of the scope, no iteration tests less than the one before.
    """
    if profile.verify_paths or profile.whole_suite:
        return list(profile.verify_paths)
    return [name for name in plan.suspect_scope if is_test_file(name)]
