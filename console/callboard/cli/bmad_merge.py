"""Merges the finished stories of a run for `callboard bmad merge`, on a branch of its own."""

from __future__ import annotations

from pathlib import Path

from callboard.cli.screen import Screen
from callboard_broker.errors import BadInput
from callboard_integrations.bmad.status_files import StatusFile, find_status_file
from callboard_integrations.bmad.worktrees import Worktrees

__all__ = ["merge_run"]


async def merge_run(project: Path, run: str, screen: Screen, *, everything: bool) -> int:
    """Merge, and say what was merged and what was left out; the exit code."""
    worktrees = Worktrees(project)
    if not await worktrees.usable():
        raise BadInput("path", f"{project} is not the top of a git repository with a commit")
    branches = await worktrees.branches(run)
    if not branches:
        raise BadInput("--run", f"there is no branch callboard/{run}/... in {project}")
    statuses = StatusFile(find_status_file(project), project)
    open_ = {
        branch: status or "no status"
        for name, branch in branches.items()
        if not everything and (status := statuses.of(name)) != "done"
    }
    found = await worktrees.merged(run, [one for one in branches.values() if one not in open_])
    if screen.json:
        screen.document(
            {
                "branch": found.branch,
                "folder": str(found.folder),
                "merged": found.merged,
                "conflicts": found.conflicts,
                "unfinished": open_,
            }
        )
        return 1 if found.conflicts else 0
    for branch in found.merged:
        screen.line(f"merged {branch}")
    for branch, status in open_.items():
        screen.line(f"left out {branch}: {status}, not done (--all takes it)", "yellow")
    for branch, files in found.conflicts.items():
        screen.line(f"in conflict {branch}: {', '.join(files)}", "bold red")
    screen.line(f"{found.branch} in {found.folder}; to have it: git merge {found.branch}")
    if found.conflicts:
        screen.note(f"merge these by hand in {found.folder}, commit, and run this again")
    return 1 if found.conflicts else 0
