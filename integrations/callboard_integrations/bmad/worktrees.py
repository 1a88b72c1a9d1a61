"""A worktree and a branch for each item of a loop, so that stories never share a checkout.

Worktrees are made one at a time, under a lock; what a step leaves in its own is committed there.
Branches are merged only where somebody asks for it, into one more branch with a worktree of its
own. Nothing in the user's own checkout is touched.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callboard_broker.errors import CallboardError
from callboard_integrations.bmad.persona import token
from callboard_integrations.bmad.project_files import KEPT, keep_from_git, locked
from callboard_integrations.bmad.records import item_id

__all__ = ["GitFailed", "Merged", "Worktree", "Worktrees", "git_environment"]

_AUTHOR = (
    *("-c", "user.name=callboard", "-c", "user.email=callboard@localhost"),
    *("-c", "commit.gpgsign=false"),
)
_ALONE = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0")
"""No program that the repository names is run: a hook may lie in the tree, written by a model."""

_ELSEWHERE = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_WORK_TREE",
    }
)
"""Set by git for a hook or an alias, they would lead every command to the user's own checkout."""

_MERGED = "_merged"
"""No item has this name: theirs begin with a letter or digit."""


class GitFailed(CallboardError, RuntimeError):
    """git did not do what was asked of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What came of a merge. branch: into which. conflicts: the files of each branch left out."""

    branch: str
    folder: Path
    merged: tuple[str, ...]
    conflicts: dict[str, list[str]]


class Worktree:
    """One checkout. folder: where work is done in it. branch: its own."""

    def __init__(self, folder: Path, branch: str) -> None:
        self.folder = folder
        self.branch = branch

    async def has(self, commit: str) -> bool:
        """Whether the branch still holds a commit."""
        return await _succeeds(self.folder, "merge-base", "--is-ancestor", commit, "HEAD")

    async def is_at(self, commit: str) -> bool:
        """Whether nothing was committed to the branch since."""
        return await _git(self.folder, "rev-parse", f"refs/heads/{self.branch}") == commit

    async def reset(self, commit: str) -> None:
        """Put the branch and every file back to a commit; whatever is not in it is removed."""
        await self._attach()
        await _git(self.folder, "reset", "--quiet", "--hard", commit)
        await _git(self.folder, "clean", "--quiet", "-ffdx")

    async def tree(self) -> str:
        """The hash of all files of the last commit: the same for the same contents."""
        return await _git(self.folder, "rev-parse", "HEAD^{tree}")

    async def merge(self, branch: str) -> list[str]:
        """Merge a branch into this one, or leave it as it was; the files that are in conflict.

        Raises `GitFailed`.
        """
        words = (*_AUTHOR, "merge", "--quiet", "--no-ff", "--no-edit", branch)
        code, _, errors = await _run(self.folder, words)
        if code == 0:
            return []
        listed = await _git(self.folder, "diff", "--name-only", "--diff-filter=U", "-z")
        if not listed:
            raise GitFailed(f"git merge of {branch} ended with {code}: {errors.strip()[-300:]}")
        await _git(self.folder, "merge", "--abort")
        return [name for name in listed.split("\0") if name]

    async def check_clean(self) -> None:
        """Take back a merge that was interrupted. Raises `GitFailed` if anything else is there, or
        somebody has switched to another branch."""
        _, at, _ = await _run(self.folder, ("symbolic-ref", "--quiet", "HEAD"))
        if at != f"refs/heads/{self.branch}":
            back = f"git -C {shlex.quote(str(self.folder))} switch {self.branch}"
            raise GitFailed(f"{self.folder} is not on its branch any more; go back by: {back}")
        if await _succeeds(self.folder, "rev-parse", "--verify", "--quiet", "MERGE_HEAD"):
            await _git(self.folder, "merge", "--abort")
        if await _git(self.folder, "status", "--porcelain"):
            raise GitFailed(f"{self.folder} has changes that are not committed; commit them first")

    async def commit(self, message: str, *, ignored: bool = False) -> str:
        """Commit whatever has changed; the branch's commit then. ignored: also what .gitignore
        names."""
        await self._attach()
        await _git(self.folder, "add", "--all", *(["--force"] if ignored else []))
        if await _git(self.folder, "status", "--porcelain"):
            await _git(self.folder, *_AUTHOR, "commit", "--quiet", "-m", message)
        return await _git(self.folder, "rev-parse", "HEAD")

    async def _attach(self) -> None:
        """Whoever worked in the folder may have switched; another branch must not be moved."""
        await _git(self.folder, "symbolic-ref", "HEAD", f"refs/heads/{self.branch}")


class Worktrees:
    """Those of one project; none if it is not a git repository with a commit."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._folder = project / KEPT / "worktrees"
        self._making = asyncio.Lock()
        self._usable: bool | None = None

    async def usable(self) -> bool:
        """Whether the project is the top of a repository that has a commit."""
        if self._usable is None:
            self._usable = (self._project / ".git").exists() and await _succeeds(
                self._project, "rev-parse", "--verify", "--quiet", "HEAD"
            )
        return self._usable

    async def head(self) -> str:
        """The commit that the user's checkout is at. Raises `GitFailed`."""
        return await _git(self._project, "rev-parse", "--verify", "HEAD^{commit}")

    async def of(self, run: str, item: Any, commit: str = "HEAD") -> Worktree | None:
        """The worktree of an item: a new one, or that of an earlier step or attempt.

        commit: where a new branch begins.
        """
        if not await self.usable():
            return None
        return await self._at(run, item_id(item), commit)

    async def branches(self, run: str) -> dict[str, str]:
        """The branches of a run's items, by the item's short name; without that of `merged`."""
        under = f"callboard/{token(run)}/"
        listed = await _git(
            self._project, "for-each-ref", "--format=%(refname:short)", f"refs/heads/{under}"
        )
        found = {name.removeprefix(under): name for name in listed.split()}
        return {name: branch for name, branch in found.items() if name != _MERGED}

    async def merged(self, run: str, branches: Sequence[str]) -> Merged:
        """Merge `branches` one after the other into the run's own; those in conflict stay out.

        The first time it begins where the user's checkout is. Raises `GitFailed`.
        """
        tree = await self._at(run, _MERGED, "HEAD")
        with locked(self._folder / ".merging"):
            await tree.check_clean()
            conflicts: dict[str, list[str]] = {}
            merged: list[str] = []
            for branch in branches:
                if files := await tree.merge(branch):
                    conflicts[branch] = files
                else:
                    merged.append(branch)
        return Merged(
            branch=tree.branch, folder=tree.folder, merged=tuple(merged), conflicts=conflicts
        )

    async def _at(self, run: str, name: str, commit: str) -> Worktree:
        branch = f"callboard/{token(run)}/{name}"
        folder = self._folder / token(run) / name
        async with self._making:
            await asyncio.to_thread(keep_from_git, self._project)
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
            if not (folder / ".git").exists():
                await self._make(folder, branch, commit)
        return Worktree(folder, branch)

    async def _make(self, folder: Path, branch: str, commit: str) -> None:
        with locked(self._folder / ".lock"):
            if (folder / ".git").exists():
                return
            await _git(self._project, "worktree", "prune")
            known = await _succeeds(
                self._project, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}"
            )
            how = (str(folder), branch) if known else ("-b", branch, str(folder), commit)
            await _git(self._project, "worktree", "add", "--quiet", *how)


def git_environment(folder: Path) -> dict[str, str]:
    """What git in this folder is to know, whoever calls it.

    A worktree that has lost its .git is not the user's checkout above.
    """
    known = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    return {**known, "GIT_CEILING_DIRECTORIES": str(folder.parent.resolve())}


async def _run(folder: Path, words: tuple[str, ...]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        "git",
        *_ALONE,
        *words,
        cwd=folder,
        env=git_environment(folder),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    code = process.returncode
    return code or 0, output.decode(errors="replace").strip(), errors.decode(errors="replace")


async def _succeeds(folder: Path, *words: str) -> bool:
    code, _, _ = await _run(folder, words)
    return code == 0


async def _git(folder: Path, *words: str) -> str:
    code, output, errors = await _run(folder, words)
    if code != 0:
        what = next(word for word in words if not word.startswith("-") and "=" not in word)
        raise GitFailed(f"git {what} in {folder} ended with {code}: {errors.strip()[-300:]}")
    return output
