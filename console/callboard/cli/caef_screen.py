"""What `callboard caef` prints: plans, what edits would change, and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from callboard.cli.screen import Screen
from callboard_integrations.caef.records import Planned
from callboard_integrations.caef.rehearsing import Rehearsal

__all__ = ["show_plans", "show_rehearsals", "show_verdicts"]

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def show_plans(screen: Screen, plans: Mapping[str, Planned]) -> None:
    """The steps of each story, and its checks."""
    if screen.json:
        screen.document([{"story": name, **_plan(found)} for name, found in plans.items()])
        return
    for name, found in plans.items():
        cut = ", and there is more to do" if found.status == "truncated" else ""
        steps = found.plan.steps
        screen.line(f"{name} · profile {found.profile}{cut}", "bold")
        screen.table(
            ("no#", "kind", "step", "left of it"),
            [
                (number, step.kind, step.title, "; ".join(step.details))
                for number, step in enumerate(steps, 1)
            ],
            fold="step",
        )
        for check in found.plan.success_checks:
            screen.line(f"✓ {check}")
        if found.plan.suspect_scope:
            screen.line(f"looks at: {', '.join(found.plan.suspect_scope)}")


def show_rehearsals(screen: Screen, found: Sequence[Rehearsal]) -> None:
    """The diffs of all edits, and which of them do not fit."""
    if screen.json:
        screen.document(
            [
                {
                    "story": one.story,
                    "status": "dry_run" if one.fits else "refused",
                    "reason": one.refused,
                    "results": msgspec.to_builtins(one.results),
                    **_plan(one.planned),
                }
                for one in found
            ]
        )
        return
    for one in found:
        screen.line(one.story, "bold")
        for result in one.results:
            for line in result.diff.split("\n") if result.diff else ():
                screen.line(line, _COLOURS.get(line[:1], ""))
            if result.status == "refused":
                screen.line(f"{result.file}: {result.reason}", "bold red")
        if one.refused:
            screen.line(one.refused, "bold red")
    screen.note("nothing was changed: --apply makes these edits on a branch, and runs the tests")


def show_verdicts(screen: Screen, run: str, verdicts: Sequence[Mapping[str, Any]]) -> None:
    """One line for each story, and what still fails."""
    if screen.json:
        screen.document({"id": run, "stories": verdicts})
        return
    screen.table(
        ("story", "verdict", "rounds#", "restarts#", "tokens#", "branch", "why"),
        [
            (
                one["id"],
                one["verdict"],
                one["iteration"],
                one["generation"],
                one["tokens"],
                one["branch"],
                one["reason"],
            )
            for one in verdicts
        ],
    )
    for one in verdicts:
        for failure in one["failures"][:5]:
            last = failure["error"].strip().rpartition("\n")[2]
            screen.line(f"{one['id']}: {failure['test']}: {last}", "red")
    if any(one["verdict"] == "passed" for one in verdicts):
        screen.note("git merge BRANCH takes a story over; git worktree list shows their folders")


def _plan(found: Planned) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(found)
    kept = ("profile", "verify_paths", "max_steps_enforced", "plan")
    return {"plan_status": plain["status"], **{name: plain[name] for name in kept}}
