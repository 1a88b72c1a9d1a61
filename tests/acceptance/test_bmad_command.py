"""`callboard bmad` as a person meets it: the example on a board of `callboard up`, and mistakes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import Shell, running_board

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "bmad"
STORIES = ["1-1", "1-2", "2-1", "2-2"]


def shop_at(folder: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE / "teashop", folder / "teashop"))


@pytest.mark.timeout(120)
def test_the_example_runs_from_a_wish_to_reviewed_stories(tmp_path: Path):
    shop = shop_at(tmp_path)
    runner = f"{sys.executable} {EXAMPLE / 'stand_in.py'}"
    asked = ["bmad", "run", "teashop", "--command", runner, "--at-once", "2", "--others", "yes"]
    with running_board(tmp_path) as board:
        done = board.shell.run(*asked)
        assert (done.returncode, done.stderr) == (0, "")
        assert "look-back.md" in done.stdout
        again = board.shell.json(*asked)
        assert again["state"] == "succeeded"
    pages = sorted(path.name for path in (shop / "site").iterdir())
    assert pages == [
        "a-basket.html",
        "opening-hours.html",
        "the-bill.html",
        "the-list-of-teas.html",
    ]
    brief = (shop / "docs" / "brief.md").read_text()
    assert brief.startswith("Planner of small things")
    status = (shop / "docs" / "stories" / "sprint-status.yaml").read_text()
    for story in STORIES:
        assert f"  {story}: done\n" in status
        assert (shop / "docs" / "stories" / f"{story}.story.md").is_file()


def test_a_plan_is_shown_as_text_json_and_pictures_and_nothing_runs(tmp_path: Path):
    shop_at(tmp_path)
    shell = Shell(folder=tmp_path)
    text = shell.run("bmad", "plan", "teashop")
    assert text.returncode == 0
    assert "9 steps" in text.stdout
    assert "? brief_is_thin: before planner-2" in text.stdout
    found = shell.json("bmad", "plan", "teashop")
    assert found["loops"] == {"write_story": ["write_story", "build_story", "review_story"]}
    assert shell.run("bmad", "plan", "teashop", "--format", "mermaid").stdout.startswith(
        "flowchart"
    )
    drawn = shell.run("bmad", "plan", "teashop", "--format", "svg", "--output", "plan.svg")
    assert drawn.returncode == 0
    assert (tmp_path / "plan.svg").read_text().startswith("<svg")
    (tmp_path / "teashop" / "docs").mkdir()
    (tmp_path / "teashop" / "docs" / "stories.yaml").write_text(
        '- {id: "1", title: Teas, spec_checkpoint: true, done_checkpoint: true}\n'
    )
    text = shell.run("bmad", "plan", "teashop")
    assert "? spec_checkpoint: before build_story, of story 1\n" in text.stdout
    assert "? done_checkpoint: before anything of the next stories, after story 1\n" in text.stdout


def test_lint_names_the_file_and_line_and_fails_for_what_gives_nothing(tmp_path: Path):
    shop = shop_at(tmp_path)
    shell = Shell(folder=tmp_path)
    assert shell.run("bmad", "lint", "teashop").returncode == 0
    broken = shop / ".bmad-core" / "agents" / "builder.md"
    broken.write_text(broken.read_text().replace("```yaml", "```text"))
    found = shell.run("bmad", "lint", "teashop")
    assert found.returncode == 1
    assert ".bmad-core/agents/builder.md: error:" in found.stdout
    assert (
        ".bmad-core/workflows/tea-shop.yaml:30: warning: the step's agent 'builder'" in found.stdout
    )
    plan = shell.run("bmad", "plan", "teashop")
    assert plan.returncode == 1
    assert "--assign builder=PERSONA" in plan.stdout
    listed = shell.json("bmad", "list", "teashop")
    assert [one["id"] for one in listed["personas"]] == ["planner", "reviewer"]


def test_the_stories_that_are_done_are_merged_on_a_branch_of_their_own(tmp_path: Path):
    shop = shop_at(tmp_path)
    words = ["-c", "user.name=a", "-c", "user.email=a@localhost"]

    def git(*more: str) -> str:
        command = ["git", *words, *more]
        return subprocess.run(command, cwd=shop, check=True, capture_output=True, text=True).stdout

    git("init", "--quiet", "--initial-branch", "mine")
    git("add", ".")
    git("commit", "--quiet", "-m", "begin")
    for name in ("1-1", "1-2", "2-1"):
        git("switch", "--quiet", "-c", f"callboard/tea-shop/{name}", "mine")
        (shop / "page.html").write_text("first" if name == "1-1" else "other")
        git("add", ".")
        git("commit", "--quiet", "-m", name)
    git("switch", "--quiet", "mine")
    (shop / "sprint-status.yaml").write_text(
        "development_status:\n  1-1-teas: done\n  1-2: review\n  2-1: done\n"
    )
    found = Shell(folder=tmp_path).run("bmad", "merge", "teashop", "--run", "tea-shop")
    assert found.returncode == 1
    assert found.stdout.splitlines()[:3] == [
        "merged callboard/tea-shop/1-1",
        "left out callboard/tea-shop/1-2: review, not done (--all takes it)",
        "in conflict callboard/tea-shop/2-1: page.html",
    ]
    assert git("show", "callboard/tea-shop/_merged:page.html") == "first"
    assert git("rev-parse", "--abbrev-ref", "HEAD") == "mine\n"


def test_mistakes_are_one_line_without_a_traceback(tmp_path: Path):
    shop_at(tmp_path)
    shell = Shell(folder=tmp_path)
    for words, said in {
        ("plan", "nowhere"): "no folder or file",
        ("plan", "teashop", "-w", "coffee"): "core/tea-shop",
        ("run", "teashop", "--no-wait"): "--no-agents",
        ("merge", "teashop", "--run", "x"): "not the top of a git repository",
        ("run", "teashop", "--command", "x", "--yes", "unheard"): "brief_is_thin",
    }.items():
        done = shell.run("bmad", *words)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
