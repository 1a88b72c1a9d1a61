"""`callboard caef` as a person meets it: the example, first without a board and then on one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.commands import Shell, running_board
from tests.open_folders import open_folder
from tests.open_python import make_environment

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "caef"
AUTHOR = f"{sys.executable} {EXAMPLE / 'author.py'}"
STORY = "till/docs/stories/1.1.story.md"


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def folder() -> Iterator[Path]:
    """The example as a repository, with an interpreter that the sandbox may use."""
    with open_folder() as found:
        till = found / "till"
        shutil.copytree(EXAMPLE / "till", till)
        settings = {"python": str(make_environment(found))}
        (till / "caef.yaml").write_text(yaml.safe_dump(settings))
        (till / ".gitignore").write_text(".callboard/\n")
        git(till, "init", "--quiet")
        git(till, "add", "--all")
        git(till, "commit", "--quiet", "-m", "A till")
        yield found


def test_a_plan_and_a_dry_run_need_no_board_and_change_nothing(folder: Path):
    shell = Shell(folder=folder)
    plan = shell.run("caef", "plan", "till/docs/stories")
    assert (plan.returncode, plan.stderr) == (0, "")
    assert "Take the discount as a share of the sum" in plan.stdout
    assert "criterion 1: 250 cents are shown as 2.50." in plan.stdout
    first, second = shell.json("caef", "plan", "till/docs/stories")
    assert first["plan"]["steps"][0]["details"] == ["`total` in src/till/price.py"]
    assert second["verify_paths"] == ["tests/test_receipt.py"]
    dry = shell.run("caef", "run", STORY)
    assert dry.returncode == 0
    assert "+    return round(sum(prices) * (1 - discount))" in dry.stdout
    assert "nothing was changed: --apply" in dry.stderr
    asked = shell.json("caef", "run", "till/docs/stories", "--command", AUTHOR)
    assert [one["status"] for one in asked] == ["dry_run", "dry_run"]
    assert git(folder / "till", "status", "--porcelain", "--ignored") == ""
    assert git(folder / "till", "branch", "--list", "callboard/*") == ""


def test_an_edit_that_does_not_fit_is_told_with_the_nearest_line(folder: Path):
    (folder / "till/edits.json").write_text(
        '[{"file": "src/till/price.py", "original_snippet": "    return sum(price)",'
        ' "replacement_snippet": "x"}]'
    )
    done = Shell(folder=folder).run("caef", "run", STORY, "--edits", "till/edits.json")
    assert done.returncode == 1
    assert "src/till/price.py: the snippet is not there; the nearest is line 6" in done.stdout


@pytest.mark.timeout(120)
def test_the_example_ends_with_two_green_branches(folder: Path):
    till = folder / "till"
    with running_board(folder) as board:
        words = ["caef", "run", "till/docs/stories", "--apply", "--command", AUTHOR]
        done = board.shell.run(*words, "--run", "demo")
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [line.split() for line in done.stdout.splitlines()]
        assert ["1-1", "passed", "1", "0", "0", "callboard/demo/1-1"] in rows
        assert ["1-2", "passed", "2", "0", "0", "callboard/demo/1-2"] in rows
        again = board.shell.json(*words, "--run", "demo")
        assert [one["verdict"] for one in again["stories"]] == ["failed", "failed"]
    assert git(till, "status", "--porcelain") == ""
    assert "1 - discount" in git(till, "show", "callboard/demo/1-1:src/till/price.py")
    assert "cents / 100:.2f" in git(till, "show", "callboard/demo/1-2:src/till/receipt.py")
    assert git(till, "diff", "--name-only", "HEAD", "callboard/demo/1-2") == "src/till/receipt.py"


def test_the_pages_example_of_the_plain_objects_runs_in_the_example(folder: Path):
    page = (EXAMPLE.parents[1] / "docs" / "caef.md").read_text()
    (plain, *_) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    code = f"{plain}\nprint(plan['status'], change['status'], report['status'])\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder / "till",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("planned applied passed\n", "")
    assert "1 - discount" in (folder / "till/src/till/price.py").read_text()


def test_mistakes_are_one_line_without_a_traceback(folder: Path):
    shell = Shell(folder=folder)
    (folder / "empty.md").write_text("# Nothing\n")
    (folder / "wrong").mkdir()
    (folder / "wrong/caef.yaml").write_text("profiles: {quick: {iterations: none}}\n")
    for words, said in {
        ("plan", "nowhere.md"): "no git repository",
        ("plan", "till/nowhere.md"): "there is no story",
        ("plan", "empty.md", "--project", "."): "Acceptance Criteria",
        ("plan", "empty.md", "--project", "till"): "does not lie in the project",
        ("plan", STORY, "--project", "wrong"): "profiles.quick.iterations",
        ("run", "empty.md", "--project", "."): "has no edits file beside it",
        ("run", "empty.md", "--project", ".", "--no-wait"): "--no-agents",
        ("run", "empty.md", "--project", ".", "--command", "x", "--profile", "y"): "full, quick",
        ("run", "empty.md", "--project", ".", "--command", "x", "--apply"): "git init",
    }.items():
        done = shell.run("caef", *words)
        assert done.returncode == 2, (words, done.stderr)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
