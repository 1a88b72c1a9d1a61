"""Agents are found in modules and files; what is wrong is said by the place's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from callboard_agents import load
from callboard_broker.errors import BadInput

AGENTS = """
from __future__ import annotations
from dataclasses import dataclass
from callboard_agents import Context, agent

@dataclass
class Source:
    text: str

@agent("review.python")
def review(source: Source, ctx: Context) -> str:
    return source.text

@agent("plan")
async def plan() -> int:
    return 1

same = plan
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my-agents.py"
    path.write_text(AGENTS, encoding="utf-8")
    return path


def test_a_file_gives_all_its_agents_once_in_their_order(file: Path):
    assert [agent.capability for agent in load([str(file)])] == ["review.python", "plan"]
    assert len(load([str(file), str(file)])) == 2


def test_one_agent_is_chosen_by_name(file: Path):
    assert [agent.capability for agent in load([f"{file}:plan"])] == ["plan"]


def test_a_module_is_found_by_its_dotted_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
):
    file.rename(tmp_path / "agents_of_a_test.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(load(["agents_of_a_test"])) == 2
    assert len(load(["agents_of_a_test:review"])) == 1


def test_what_is_wrong_with_a_place_is_said_by_its_name(tmp_path: Path, file: Path):
    empty, broken, twice = (tmp_path / name for name in ("empty.py", "broken.py", "twice.py"))
    empty.write_text("x = 1\n", encoding="utf-8")
    broken.write_text("1 / 0\n", encoding="utf-8")
    twice.write_text(AGENTS, encoding="utf-8")
    for places, hint in [
        ([], "at least one"),
        (["no_such_module_here"], "no such module"),
        (["json.no_such"], "no such module"),
        ([str(tmp_path / "absent.py")], "no file"),
        ([str(empty)], "no agent"),
        ([str(broken)], "ZeroDivisionError"),
        ([f"{file}:absent"], "does not exist; agents there: review, plan"),
        ([f"{file}:Source"], "is no agent"),
        ([str(file), str(twice)], "offers review.python, and so does review"),
    ]:
        with pytest.raises(BadInput, match=hint) as refused:
            load(places)
        assert refused.value.field in [*places, "modules"]


def test_a_file_that_failed_can_be_loaded_once_it_is_mended(tmp_path: Path):
    path = tmp_path / "mended.py"
    path.write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(BadInput):
        load([str(path)])
    path.write_text(AGENTS, encoding="utf-8")
    assert len(load([str(path)])) == 2
