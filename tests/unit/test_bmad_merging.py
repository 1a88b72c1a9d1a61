"""Branches of stories are merged where somebody asks for it, and his own checkout is left alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from callboard_integrations.bmad.worktrees import GitFailed, Merged, Worktrees


def git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", *words],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def git_fails(folder: Path, *words: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        git(folder, *words)


def repository_at(folder: Path) -> Path:
    git(folder, "init", "--quiet")
    (folder / "shared.txt").write_text("one\n")
    (folder / ".gitignore").write_text(".callboard/\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "begin")
    return folder


async def story(worktrees: Worktrees, name: str, **files: str) -> str:
    tree = await worktrees.of("r", {"id": name})
    assert tree is not None
    for file, text in files.items():
        (tree.folder / f"{file}.txt").write_text(text)
    await tree.commit(name)
    return tree.branch


async def merged(worktrees: Worktrees) -> Merged:
    return await worktrees.merged("r", list((await worktrees.branches("r")).values()))


async def test_branches_are_merged_into_one_and_those_in_conflict_are_named(tmp_path: Path):
    worktrees = Worktrees(repository_at(tmp_path))
    first = await story(worktrees, "1.1", shared="two\n", first="1\n")
    second = await story(worktrees, "1.2", shared="three\n", second="2\n")
    third = await story(worktrees, "1.3", third="3\n")
    (tmp_path / "shared.txt").write_text("a person's own, not committed\n")
    found = await merged(worktrees)
    assert found.branch == "callboard/r/_merged"
    assert found.merged == (first, third)
    assert found.conflicts == {second: ["shared.txt"]}
    listed = git(tmp_path, "ls-tree", "--name-only", found.branch).split()
    assert listed == [".gitignore", "first.txt", "shared.txt", "third.txt"]
    assert (tmp_path / "shared.txt").read_text() == "a person's own, not committed\n"
    assert git(tmp_path, "status", "--porcelain").split() == ["M", "shared.txt"]

    head = git(tmp_path, "rev-parse", found.branch)
    again = await merged(worktrees)
    assert (again.merged, again.conflicts) == (found.merged, found.conflicts)
    assert git(tmp_path, "rev-parse", found.branch) == head, "nothing is merged twice"


async def test_a_merge_by_hand_is_kept_and_whatever_is_not_committed_is_refused(tmp_path: Path):
    worktrees = Worktrees(repository_at(tmp_path))
    await story(worktrees, "1.1", shared="two\n")
    second = await story(worktrees, "1.2", shared="three\n")
    folder = (await merged(worktrees)).folder
    git_fails(folder, "merge", second)
    assert not (await merged(worktrees)).merged[1:], "a merge that was left half way is taken back"
    git_fails(folder, "merge", second)
    (folder / "shared.txt").write_text("two and three\n")
    git(folder, "commit", "--quiet", "-a", "-m", "by hand")
    assert not (await merged(worktrees)).conflicts
    (folder / "shared.txt").write_text("dirty\n")
    with pytest.raises(GitFailed, match="not committed"):
        await merged(worktrees)
    assert (folder / "shared.txt").read_text() == "dirty\n"


async def test_a_merge_goes_into_no_branch_that_somebody_has_switched_to(tmp_path: Path):
    worktrees = Worktrees(repository_at(tmp_path))
    await story(worktrees, "1.1", shared="two\n")
    folder = (await merged(worktrees)).folder
    git(folder, "switch", "--quiet", "-c", "mine")
    mine = git(tmp_path, "rev-parse", "mine")
    await story(worktrees, "1.2", more="three\n")
    with pytest.raises(GitFailed, match="switch callboard/r/_merged"):
        await merged(worktrees)
    assert git(tmp_path, "rev-parse", "mine") == mine
