"""Stories are worked on epic by epic, and wait where somebody wanted to see them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from callboard.testing import MemoryBoard, memory_board
from callboard_broker.errors import BadInput, TaskFailed
from callboard_broker.handle import Handle
from callboard_integrations.bmad import (
    Answer,
    Plan,
    Request,
    RunOptions,
    Workshop,
    agents_of,
    make_plan,
    to_mermaid,
    to_svg,
    to_workflow,
)
from callboard_integrations.bmad.discovery import discover
from callboard_integrations.bmad.runner import ModelRefused
from callboard_integrations.bmad.stories import find_checkpoints, find_items, waves_of

AGENT = "```yaml\nagent: {name: N, id: ada, title: T}\npersona: {role: r, identity: i}\n```\n"
WORKFLOW = """
workflow:
  id: engine
  sequence:
    - {agent: ada, action: write_story, creates: story.md, repeats: for_each_epic}
    - {agent: ada, action: build_story, creates: code, requires: story.md}
    - {agent: ada, action: review_story, updates: code, requires: code}
    - {agent: ada, action: look_back, creates: look-back.md}
"""
LIST = """
- {id: "1-1", title: Wheel, description: d, spec_checkpoint: true}
- {id: "1-2", title: Bell, description: d, done_checkpoint: true}
- {id: "2-1", title: Lamp, description: d}
"""


def project_at(folder: Path, stories: str = "") -> Path:
    for name, text in {
        ".bmad-core/agents/ada.md": AGENT,
        ".bmad-core/workflows/engine.yaml": WORKFLOW,
        **({"docs/stories.yaml": stories} if stories else {}),
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def plan_of(project: Path) -> Plan:
    roster = discover(project)
    return make_plan(roster, roster.workflow())


class Crowd:
    """A runner that holds what it is asked back until as many stories of each epic have come."""

    name = "crowd"

    def __init__(self, wanted: dict[str, int]) -> None:
        self.wanted = wanted
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.epics = 0
        self.asked: list[str] = []
        self.prompts: list[str] = []
        self._met = not wanted
        self._came = asyncio.Condition()
        self.refused = ""

    async def run(self, request: Request) -> Answer:
        step = request.prompt.partition("\n")[0].removeprefix("Step: ")
        found = re.search(r'"id":"((\d)[^"]*)"', request.prompt)
        story, epic = (found[1], found[2]) if found else ("", "")
        self.prompts.append(request.prompt)
        if f"{step} {story}" == self.refused:
            raise ModelRefused(f"no {self.refused}")
        async with asyncio.timeout(20), self._came:
            self.asked.append(f"{step} {story}".strip())
            self.now[epic] += 1
            self.most[epic] = max(self.most[epic], self.now[epic])
            self.epics = max(self.epics, sum(count > 0 for count in self.now.values()))
            self._met = self._met or self.now >= Counter(self.wanted)
            self._came.notify_all()
            await self._came.wait_for(lambda: self._met)
            self.now[epic] -= 1
        return Answer(text="text\n")

    async def until(self, holds: Callable[[list[str]], bool]) -> None:
        async with asyncio.timeout(20), self._came:
            await self._came.wait_for(lambda: holds(self.asked))


def board_of(project: Path, crowd: Crowd) -> Any:
    return memory_board(agents_of(Workshop(project, crowd), discover(project).personas))


def status_of(project: Path) -> str:
    return (project / "docs" / "stories" / "sprint-status.yaml").read_text()


FIRST = "write_story.0"  # the first wave
SIX = [f"{epic}.{number}" for epic in (1, 2) for number in (1, 2, 3)]


async def test_each_epic_reaches_its_limit_of_stories_and_never_exceeds_it(tmp_path: Path):
    project, crowd = project_at(tmp_path), Crowd({"1": 2, "2": 2})
    options = RunOptions(run="r", at_once=2, epics_at_once=2, items=SIX)
    async with board_of(project, crowd) as board:
        await (await board.run(to_workflow(plan_of(project), options))).result(timeout=60)
    assert (crowd.most["1"], crowd.most["2"], crowd.epics) == (2, 2, 2)
    assert len(crowd.asked) == 3 * len(SIX) + 1


async def test_epics_follow_each_other_unless_several_are_wanted(tmp_path: Path):
    project, crowd = project_at(tmp_path), Crowd({"1": 3})
    options = RunOptions(run="r", at_once=5, items=SIX)
    async with board_of(project, crowd) as board:
        await (await board.run(to_workflow(plan_of(project), options))).result(timeout=60)
    assert (crowd.most["1"], crowd.epics) == (3, 1)
    second = crowd.asked.index("write_story 2.1")
    assert sum(" 1." in one for one in crowd.asked[:second]) == 9


async def waiting_for(board: MemoryBoard, flow: str, signal: str) -> str:
    """Return the workflow of one story, or wave, when it waits for this signal."""
    async with asyncio.timeout(20):
        while f"callboard signal {flow} {signal}" not in str(await board.explain(flow)):
            await board.advance(0.01)
    return flow


def test_a_plan_shows_the_checkpoints_that_stories_want(tmp_path: Path):
    plan = plan_of(project_at(tmp_path, LIST))
    assert plan.gates == ["spec_checkpoint", "done_checkpoint"]
    assert plan.checkpoints == {"spec_checkpoint": ("1-1",), "done_checkpoint": ("1-2",)}
    (gated,) = [one for one in plan.steps if one.gates]
    assert gated.id == "build_story"
    for drawn in (to_mermaid(plan), to_svg(plan)):
        assert "? spec_checkpoint" in drawn
        assert "for_each_epic ? done_checkpoint" in drawn
    (tmp_path / "sprint-status.yaml").write_text("development_status:\n  1-2: done\n")
    assert find_checkpoints(tmp_path) == {"spec_checkpoint": ("1-1",)}


async def started(board: MemoryBoard, project: Path, **options: Any) -> Handle:
    return await board.run(to_workflow(plan_of(project), RunOptions(run="r", **options)))


async def test_a_checked_story_is_built_and_the_next_wave_begins_after_a_yes(tmp_path: Path):
    project, crowd = project_at(tmp_path, LIST), Crowd({})
    async with board_of(project, crowd) as board:
        handle = await started(board, project)
        await crowd.until(lambda asked: "review_story 1-2" in asked)
        story = await waiting_for(board, f"{handle.id}.{FIRST}.epic.0.story.0", "spec_checkpoint")
        assert not {"build_story 1-1", "write_story 2-1"} & set(crowd.asked)
        assert "1-1:" not in status_of(project)
        await board.signal(story, "spec_checkpoint", True)
        await crowd.until(lambda asked: "review_story 1-1" in asked)
        wave = await waiting_for(board, f"{handle.id}.{FIRST}", "done_checkpoint")
        assert "write_story 2-1" not in crowd.asked
        await board.signal(wave, "done_checkpoint", True)
        await handle.result(timeout=60)
    assert crowd.asked[-1] == "look_back"
    assert "checkpoint" not in "".join(crowd.prompts), "they are no business of the model's"


async def test_a_story_that_was_refused_is_left_and_asked_about_again(tmp_path: Path):
    project, crowd = project_at(tmp_path, LIST), Crowd({})
    async with board_of(project, crowd) as board:
        handle = await started(board, project, answers={"done_checkpoint": True})
        await crowd.until(lambda asked: "write_story 1-1" in asked)
        story = await waiting_for(board, f"{handle.id}.{FIRST}.epic.0.story.0", "spec_checkpoint")
        await board.signal(story, "spec_checkpoint", False)
        await handle.result(timeout=60)
    assert [one for one in crowd.asked if "1-1" in one] == ["write_story 1-1"]
    assert "1-1:" not in status_of(project)
    (project / "docs" / "stories" / "1-1.story.md").write_text("a better one\n")
    again = Crowd({})
    async with board_of(project, again) as board:
        handle = await started(board, project, answers={"spec_checkpoint": True})
        await handle.result(timeout=60)
    assert again.asked[:2] == ["build_story 1-1", "review_story 1-1"]
    assert "a better one" in again.prompts[0]
    assert "1-1: done" in status_of(project)


async def test_a_no_after_a_story_stops_the_run_which_goes_on_another_time(tmp_path: Path):
    project, crowd = project_at(tmp_path, LIST), Crowd({})
    answers = {"spec_checkpoint": True, "done_checkpoint": False}
    async with board_of(project, crowd) as board:
        handle = await started(board, project, answers=answers)
        with pytest.raises(TaskFailed, match="done_checkpoint of story 1-2"):
            await handle.result(timeout=60)
        assert not {"write_story 2-1", "look_back"} & set(crowd.asked)
        handle = await started(board, project, answers=answers)
        await handle.result(timeout=60)
    assert {"write_story 2-1", "look_back"} <= set(crowd.asked)
    assert len(crowd.asked) == len(set(crowd.asked)), "nothing was asked twice"


async def test_a_story_that_fails_does_not_let_the_next_wave_begin(tmp_path: Path):
    project, crowd = project_at(tmp_path, LIST), Crowd({})
    crowd.refused = "build_story 1-1"
    answers = {"spec_checkpoint": True}
    async with board_of(project, crowd) as board:
        handle = await started(board, project, answers=answers)
        with pytest.raises(TaskFailed, match="no build_story 1-1"):
            await handle.result(timeout=60)
    assert "review_story 1-2" in crowd.asked
    assert "write_story 2-1" not in crowd.asked


def test_a_story_is_told_the_same_in_every_run_and_never_again_when_it_is_done(tmp_path: Path):
    (tmp_path / "stories.yaml").write_text(
        '- {id: "1", title: Wheel}\n- {id: "2-1", title: Bell}\n- {id: "3", title: Lamp}\n'
    )
    first = find_items(tmp_path, "for_each_story", [], {})
    assert [one["id"] for one in first] == ["1", "2-1", "3"]
    (tmp_path / "sprint-status.yaml").write_text(
        "development_status:\n  2-1: review\n  1: done\n  4-1-horn: backlog\n"
    )
    again = find_items(tmp_path, "for_each_story", [], {})
    assert again == [{"id": "4-1-horn", "epic": "4", "title": "horn"}, first[1], first[2]]
    named = find_items(tmp_path, "for_each_story", ["2-1", "9.9"], {})
    assert named == [first[1], {"id": "9.9", "title": "9.9"}]


def test_stories_are_in_waves_by_epic_in_their_order():
    stories = [{"id": "2-1"}, {"id": "1-1"}, {"id": "2-2", "done_checkpoint": True}, {"id": "5"}]
    first, second = waves_of(stories, {})
    assert [[one["item"]["id"] for one in epic["stories"]] for epic in first["epics"]] == [
        ["2-1", "2-2"],
        ["1-1"],
    ]
    assert (first["story"], first["asks"], first["decided"]) == ("2-2", ["2-2"], [])
    assert (second["story"], second["asks"], second["decided"]) == ("", [], [])
    assert waves_of(stories, {"done_checkpoint": False})[0]["decided"] == [False]
    assert waves_of([], {}) == []


def test_a_checkpoint_that_is_neither_true_nor_false_is_refused_by_name(tmp_path: Path):
    (tmp_path / "stories.yaml").write_text('- {id: "1", title: W, spec_checkpoint: "yes"}\n')
    with pytest.raises(BadInput, match="spec_checkpoint of '1'"):
        find_checkpoints(tmp_path)
