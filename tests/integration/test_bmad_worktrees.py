"""Worktrees on real repositories: whatever is done in one, the user's own branches stay."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from callboard_integrations.bmad.worktrees import GitFailed, Worktree, Worktrees


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with a commit, and with a change that is not committed."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "mine")
    (folder / ".gitignore").write_text("*.out\n")
    (folder / "a.txt").write_text("committed\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "begin")
    git(folder, "branch", "other")
    (folder / "a.txt").write_text("not committed\n")
    return folder


async def opened(project: Path) -> Worktree:
    tree = await Worktrees(project).of("run", "1")
    assert tree is not None
    return tree


async def test_git_takes_no_notice_of_worktrees_in_the_users_checkout(project: Path):
    await opened(project)
    assert git(project, "status", "--porcelain") == "M a.txt"


async def test_without_its_git_file_a_worktree_is_not_the_users_checkout(project: Path):
    tree = await opened(project)
    (tree.folder / ".git").unlink()
    for doing in (tree.reset("mine"), tree.commit("x"), tree.tree()):
        with pytest.raises(GitFailed, match="not a git repository"):
            await doing
    assert (project / "a.txt").read_text() == "not committed\n"


@pytest.mark.parametrize("switch", [["checkout", "other"], ["checkout", "--detach"]])
async def test_another_branch_that_was_checked_out_in_a_worktree_is_not_moved(
    project: Path, switch: list[str]
):
    begun = git(project, "rev-parse", "other")
    tree = await opened(project)
    git(tree.folder, *switch)
    (tree.folder / "b.txt").write_text("b")
    commit = await tree.commit("work")
    git(tree.folder, *switch)
    await tree.reset(commit)
    assert git(project, "rev-parse", "other") == begun
    assert git(project, "rev-parse", tree.branch) == commit
    assert (tree.folder / "b.txt").is_file()


async def test_a_repository_that_the_environment_names_is_not_meant(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GIT_DIR", str(project / ".git"))  # as git sets it for a hook
    monkeypatch.setenv("GIT_INDEX_FILE", str(project / ".git" / "index"))
    tree = await opened(project)
    (tree.folder / "b.txt").write_text("b")
    commit = await tree.commit("work")
    monkeypatch.undo()
    assert git(project, "rev-parse", tree.branch) == commit
    assert git(project, "rev-parse", "mine") != commit
    assert git(project, "status", "--porcelain") == "M a.txt"


async def test_hooks_that_lie_in_the_tree_are_not_run(project: Path):
    git(project, "config", "core.hooksPath", "hooks")
    git(project, "config", "core.fsmonitor", "hooks/monitor")
    tree = await opened(project)
    (tree.folder / "hooks").mkdir()
    names = ("post-index-change", "pre-commit", "post-commit", "reference-transaction", "monitor")
    for name in names:
        hook = tree.folder / "hooks" / name
        hook.write_text(f"#!/bin/sh\necho {name} >> {project}/ran\n")
        hook.chmod(0o755)
    await tree.reset(await tree.commit("work"))
    assert not (project / "ran").exists()


async def test_ignored_files_are_committed_where_that_is_asked_for(project: Path):
    tree = await opened(project)
    (tree.folder / "made.out").write_text("x")
    await tree.commit("without")
    assert "made.out" not in git(project, "ls-tree", "--name-only", tree.branch)
    await tree.commit("with", ignored=True)
    assert "made.out" in git(project, "ls-tree", "--name-only", tree.branch)


async def test_worktrees_of_many_items_are_made_at_once(project: Path):
    trees = Worktrees(project)
    made = await asyncio.gather(*(trees.of("run", name) for name in "abcdef"))
    assert len({tree.folder for tree in made if tree is not None}) == 6
