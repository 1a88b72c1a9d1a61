"""The status file: one writer, comments kept, and no status ever set back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.status_files import StatusFile, find_status_file

TEXT = """# kept by hand
project: engines

development_status:
  epic-1: backlog   # the first
  1-1-boiler: ready-for-dev
  1-2-wheel: backlog  # after the boiler
  epic-1-retrospective: optional

  epic-2: backlog
  2-1-whistle: review
  2-2-bell: blocked

action_items: []
"""


def file_with(project: Path, text: str = TEXT) -> StatusFile:
    path = project / "work" / "sprint-status.yaml"
    path.parent.mkdir()
    path.write_text(text)
    assert find_status_file(project) == path
    return StatusFile(path, project)


def test_only_the_line_of_the_story_and_its_epic_change(tmp_path: Path):
    file = file_with(tmp_path)
    assert file.raise_to("1-2-wheel", "in-progress") == "in-progress"
    expected = TEXT.replace(
        "1-2-wheel: backlog  # after", "1-2-wheel: in-progress  # after"
    ).replace("epic-1: backlog   # the first", "epic-1: in-progress   # the first")
    assert file.path.read_text() == expected


def test_a_status_is_never_set_back(tmp_path: Path):
    file = file_with(tmp_path)
    assert file.raise_to("2-1-whistle", "in-progress") == "review"
    assert file.raise_to("2.2", "done") == "blocked"
    assert file.path.read_text() == TEXT


def test_an_epic_is_done_with_the_last_of_its_stories(tmp_path: Path):
    file = file_with(tmp_path)
    file.raise_to("1.1", "done")
    assert file.read()["epic-1"] == "in-progress"
    file.raise_to("1.2", "done")
    assert file.read()["epic-1"] == "done"


def test_many_at_once_lose_no_status(tmp_path: Path):
    file = StatusFile(find_status_file(tmp_path), tmp_path)
    keys = [f"{epic}-{number}" for epic in range(1, 5) for number in range(1, 9)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: file.raise_to(key, "review"), keys))
    assert file.read() == dict.fromkeys(keys, "review")
    assert file.path.read_text().startswith("development_status:\n")


def test_a_file_that_cannot_be_read_is_refused_and_left_alone(tmp_path: Path):
    broken = "development_status:\n  1-1: [\n"
    file = file_with(tmp_path, broken)
    with pytest.raises(BadInput, match="left out"):
        file.raise_to("1-1", "done")
    assert file.path.read_text() == broken


def test_a_key_that_is_none_is_refused(tmp_path: Path):
    file = file_with(tmp_path)
    for key in ("a: b", "../x", "x\ny", ""):
        with pytest.raises(BadInput):
            file.raise_to(key, "done")
    with pytest.raises(BadInput, match="none of"):
        file.raise_to("1-1", "finished")
