"""What a persona's task does: nothing twice, nothing outside of its folder, and what it used."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

from callboard.testing import MemoryBoard, memory_board, run_agent
from callboard_integrations.bmad import (
    Answer,
    CommandRunner,
    EndpointRunner,
    Persona,
    Request,
    RunOptions,
    Workshop,
    agents_of,
    make_plan,
    to_workflow,
)
from callboard_integrations.bmad.assignment import branches as branches_in
from callboard_integrations.bmad.assignment import gathered
from callboard_integrations.bmad.discovery import discover
from callboard_integrations.bmad.stories import find_items
from tests.model_server import ModelServer, model_server

ADA = Persona(id="ada", pack="core", generation="v4", path="ada.md", raw="You are Ada.\n")
TASK = {"run": "r", "step": "brief", "creates": ["brief.md"]}

WORKFLOW = """
workflow:
  id: engine
  sequence:
    - agent: ada
      creates: brief.md
    - agent: ada
      updates: brief.md
      requires: brief.md
      condition: brief_is_thin
    - agent: bob
      action: shard_documents
      creates: sharded_docs
      requires: brief.md
    - agent: bob
      action: create_story
      creates: story.md
      requires: sharded_docs
      repeats: for_each_epic
    - agent: ada
      action: implement_story
      creates: implementation_files
      requires: story.md
    - agent: bob
      action: review_implementation
      updates: implementation_files
      requires: implementation_files
      optional: true
"""
AGENT = "```yaml\nagent: {name: N, id: ID, title: T}\npersona: {role: r, identity: i}\n```\n"


def project_at(folder: Path) -> Path:
    root = folder / ".bmad-core"
    for kind in ("agents", "workflows"):
        (root / kind).mkdir(parents=True)
    for name in ("ada", "bob"):
        (root / "agents" / f"{name}.md").write_text(AGENT.replace("ID", name))
    (root / "workflows" / "engine.yaml").write_text(WORKFLOW)
    return folder


class Says:
    """A runner with one answer, that counts."""

    name = "says"

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[Request] = []

    async def run(self, request: Request) -> Answer:
        self.asked.append(request)
        return Answer(text=self.text, tokens=7)


async def attempt(workshop: Workshop, payload: dict[str, Any]) -> Any:
    return await run_agent(agents_of(workshop, [ADA])[0], payload)


async def test_finished_work_is_not_done_again_and_what_a_person_changed_is_handed_on(
    tmp_path: Path,
):
    runner = Says("the brief\n")
    workshop = Workshop(tmp_path, runner)
    first = await attempt(workshop, TASK)
    assert first.used == {"tokens": 7}
    assert first.result["files"] == ["docs/brief.md"]
    (tmp_path / "docs" / "brief.md").write_text("a better brief\n")
    again = await attempt(workshop, TASK)
    assert len(runner.asked) == 1
    assert again.used == {"tokens": 0}
    assert again.result["reused"] is True
    assert again.result["artifacts"] == {"brief.md": "a better brief\n"}


async def test_work_whose_file_is_gone_or_whose_question_is_another_is_done_again(tmp_path: Path):
    runner = Says("the brief\n")
    workshop = Workshop(tmp_path, runner)
    await attempt(workshop, TASK)
    (tmp_path / "docs" / "brief.md").unlink()
    await attempt(workshop, TASK)
    await attempt(workshop, TASK | {"notes": "shorter"})
    assert len(runner.asked) == 3


async def test_a_no_hands_on_what_would_have_been_updated_and_asks_nobody(tmp_path: Path):
    runner = Says("never")
    task = TASK | {"creates": [], "updates": ["prd.md"], "decided": [False]}
    outcome = await attempt(
        Workshop(tmp_path, runner), task | {"sources": [{"prd.md": "v1", "other": "x"}]}
    )
    assert outcome.result["artifacts"] == {"prd.md": "v1"}
    assert not runner.asked


def names_below(folder: Path) -> set[str]:
    """Of what is no note about who wrote a file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.name for path in files if path.parent.name != "files"}


@pytest.mark.parametrize(
    "name", ["../out.md", ".git/hooks/pre-commit.sh", "/etc/x.md", "a/../b.md"]
)
async def test_a_model_writes_nothing_outside_of_the_folder(tmp_path: Path, name: str):
    project = tmp_path / "project"
    project.mkdir()
    runner = Says(f"=== {name} ===\nevil\n")
    await attempt(Workshop(project, runner), TASK | {"item": {"id": "1.1"}})
    assert names_below(tmp_path) <= {"1-1.brief.md", "brief.1-1.json"}


async def test_marked_parts_are_the_artifacts_of_their_names(tmp_path: Path):
    runner = Says("=== a.md ===\none\n=== b.md ===\ntwo\n")
    outcome = await attempt(Workshop(tmp_path, runner), TASK | {"creates": ["a.md", "b.md"]})
    assert outcome.result["artifacts"] == {"a.md": "one\n", "b.md": "two\n"}


async def run_engine(project: Path, workshop: Workshop, **options: Any) -> dict[str, str]:
    return gathered((await engine_result(project, workshop, **options))["artifacts"])


async def engine_result(project: Path, workshop: Workshop, **options: Any) -> dict[str, Any]:
    roster = discover(project)
    plan = make_plan(roster, roster.workflow())
    flow = to_workflow(plan, RunOptions(**{"run": "r", "other_answers": True, **options}))
    async with memory_board(agents_of(workshop, roster.personas)) as board:
        handle = await board.run(flow)
        result: dict[str, Any] = await handle.result(timeout=60)
    return result


def workshop_of(project: Path, model: ModelServer) -> Workshop:
    return Workshop(project, EndpointRunner(model.url, "local"))


def git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@localhost", *words],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


async def test_stories_of_a_repository_have_a_branch_and_a_worktree_each(tmp_path: Path):
    project = project_at(tmp_path / "project")
    git(project, "init", "--quiet")
    git(project, "add", ".")
    git(project, "commit", "--quiet", "-m", "begin")
    runner = CommandRunner("sh -c 'cat > asked.txt; echo answer in $(basename $PWD)'")
    result = await engine_result(project, Workshop(project, runner), items=["1.1", "1.2", "2.1"])
    made, held = gathered(result["artifacts"]), branches_in(result)
    branches = git(project, "branch", "--list", "callboard/*", "--format", "%(refname:short)")
    assert branches.split() == [f"callboard/r/{name}" for name in ("1-1", "1-2", "2-1")]
    assert made["1-2/story.md"] == "answer in 1-2\n"
    for branch in branches.split():
        log = git(project, "log", "--format=%s", branch).splitlines()
        name = branch.rpartition("/")[2]
        assert log[-1] == "begin"
        assert f"create_story: {name}" in log
        assert "implement_story" in git(project, "show", f"{branch}:asked.txt") + "\n".join(log)
    changed = git(project, "status", "--porcelain", "--", ".", ":!docs", ":!.callboard")
    assert changed.split() == ["??", "asked.txt"]  # of the steps that are about no story

    assert held["callboard/r/1-2"][0] == "docs/stories/1-2.story.md"
    assert list(held) == branches.split()

    before = git(project, "rev-parse", "callboard/r/1-1", "callboard/r/1-2").split()
    git(project, "worktree", "remove", "--force", ".callboard/worktrees/r/1-1")
    git(project, "branch", "-D", "callboard/r/1-1")
    await run_engine(project, Workshop(project, runner), items=["1.1", "1.2", "2.1"])
    after = git(project, "rev-parse", "callboard/r/1-1", "callboard/r/1-2").split()
    assert before[1] == after[1], "finished work is left alone"
    assert "implement_story: 1-1" in git(project, "log", "--format=%s", "callboard/r/1-1")


async def test_an_interrupted_run_asks_only_for_what_is_missing(tmp_path: Path):
    project = project_at(tmp_path)
    with model_server() as model:
        await run_engine(project, workshop_of(project, model), items=["1.1", "1.2"])
        before = len(model.asked)
        (project / ".callboard/personas/r/implement_story.1-2.json").unlink()
        await run_engine(project, workshop_of(project, model), items=["1.1", "1.2"])
        assert len(model.asked) == before + 1


async def test_a_story_is_done_only_after_a_review(tmp_path: Path):
    project = project_at(tmp_path)
    with model_server() as model:
        await run_engine(
            project,
            workshop_of(project, model),
            items=["1.1"],
            answers={"review_implementation_wanted": False},
        )
        status = project / "docs" / "stories" / "sprint-status.yaml"
        assert status.read_text() == "development_status:\n  1-1: review\n"
        await run_engine(project, workshop_of(project, model), items=["1.1"])
        assert status.read_text() == "development_status:\n  1-1: done\n"


async def waiting_for(board: MemoryBoard, flow: str, signal: str) -> None:
    """Return when the workflow waits for this signal."""
    async with asyncio.timeout(10):
        while signal not in str(await board.explain(flow)):
            await board.advance(0.01)


async def test_an_undecided_condition_waits_and_a_signal_decides_it(tmp_path: Path):
    project = project_at(tmp_path)
    roster = discover(project)
    plan = make_plan(roster, roster.workflow())
    answers = {"review_implementation_wanted": True}
    flow = to_workflow(plan, RunOptions(run="r", answers=answers, items=["1.1"]))
    with model_server() as model:
        workshop = workshop_of(project, model)
        async with memory_board(agents_of(workshop, roster.personas)) as board:
            handle = await board.run(flow)
            await asyncio.to_thread(model.wait_for, 1)
            await waiting_for(board, handle.id, "brief_is_thin")
            assert len(model.asked) == 1, "undecided is waiting"
            await board.signal(handle.id, "brief_is_thin", False)
            await handle.result(timeout=60)
    assert not any("update brief.md" in prompt for _, prompt in model.asked)


def test_stories_come_from_the_status_file_then_from_headings(tmp_path: Path):
    texts = {"prd.md": "### Story 1.1: Boiler\n\n**Story 1.2 - Wheel**\n- Story 2.1: Bell\n"}
    found = find_items(tmp_path, "for_each_epic", [], texts)
    assert [(one["id"], one["title"]) for one in found] == [
        ("1.1", "Boiler"),
        ("1.2", "Wheel"),
        ("2.1", "Bell"),
    ]
    (tmp_path / "sprint-status.yaml").write_text(
        "development_status:\n  epic-1: in-progress\n  1-1-boiler: done\n  1-2-wheel: backlog\n"
    )
    found = find_items(tmp_path, "for_each_epic", [], texts)
    assert [one["id"] for one in found] == ["1-2-wheel", "2.1"]


async def test_what_the_model_used_settles_what_each_step_had_reserved(tmp_path: Path):
    project = project_at(tmp_path)
    roster = discover(project)
    plan = make_plan(roster, roster.workflow())
    options = RunOptions(
        run="r", other_answers=True, items=["1.1"], tokens=400, budgets=["provider:local"]
    )
    # all there is: six steps reserve 2,400 and use 252
    limits = {"budgets.keys": {"provider:local": {"units": {"tokens": {"limit": 700}}}}}
    with model_server() as model:
        agents = agents_of(workshop_of(project, model), roster.personas)
        async with memory_board(agents, settings=limits) as board:
            handle = await board.run(to_workflow(plan, options))
            await handle.result(timeout=60)
        assert len(model.asked) == 6


@pytest.mark.timeout(20)
def test_a_document_made_to_be_slow_is_searched_in_time(tmp_path: Path):
    texts = {str(number): char * 200_000 for number, char in enumerate("#*- \n")}
    texts |= {"last": "Story 1.1 " + "*" * 200_000 + "\n# " + "chapter " * 20_000}
    assert [one["id"] for one in find_items(tmp_path, "for_each_epic", [], texts)] == ["1.1"]
    assert find_items(tmp_path, "per-chapter", [], texts)
