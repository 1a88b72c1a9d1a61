"""Where a board is: what the command line, the environment or the running board say."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import psutil
import pytest

from callboard.board_note import FOLDER, find_note, leave_note, read_note, remove_note
from callboard.connecting import locate

URL = "nats://127.0.0.1:4999"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a board of this very process."""
    for name in list(os.environ):
        if name.startswith("CALLBOARD_"):
            monkeypatch.delenv(name)
    (tmp_path / FOLDER).mkdir()
    leave_note(tmp_path / FOLDER, url=URL, prefix="stage", ledger=tmp_path / "ledger")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def alter(project: Path, **facts: object) -> None:
    path = project / FOLDER / "board.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_the_nearest_board_is_found_from_below(project: Path, monkeypatch: pytest.MonkeyPatch):
    below = project / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    note = find_note()
    assert note is not None
    assert (note.url, note.pid) == (URL, os.getpid())


def test_a_note_is_for_its_owner_only(project: Path):
    mode = (project / FOLDER / "board.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_a_note_whose_process_is_gone_counts_for_nothing(project: Path):
    gone = next(pid for pid in range(2**22 - 1, 0, -1) if not psutil.pid_exists(pid))
    alter(project, pid=gone)
    assert find_note(project) is None


def test_another_process_with_the_same_number_is_not_the_board(project: Path):
    alter(project, started=1.0)
    assert find_note(project) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"url": 5}', b"\xff", b'{"pid": -1}'])
def test_a_damaged_note_counts_for_nothing(project: Path, content: bytes):
    (project / FOLDER / "board.json").write_bytes(content)
    assert read_note(project / FOLDER) is None


def test_only_the_own_note_is_removed(project: Path):
    alter(project, pid=os.getppid(), started=psutil.Process(os.getppid()).create_time())
    remove_note(project / FOLDER)
    assert find_note(project) is not None
    leave_note(project / FOLDER, url=URL, prefix="cb", ledger=project)
    remove_note(project / FOLDER)
    assert find_note(project) is None


@pytest.mark.usefixtures("project")
def test_the_running_board_is_used_with_its_prefix():
    place = locate()
    assert (place.url, place.prefix) == (URL, "stage")
    assert "callboard up" in place.origin


def test_the_environment_and_then_the_command_line_win(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    assert (project / FOLDER).is_dir()
    monkeypatch.setenv("CALLBOARD_NATS_URL", "nats://elsewhere:4222")
    assert locate().url == "nats://elsewhere:4222"
    assert locate().prefix == "cb"
    assert locate("nats://here:4222", "mine").url == "nats://here:4222"
    assert locate("nats://here:4222", "mine").prefix == "mine"


def test_without_any_word_it_is_the_local_server(project: Path):
    remove_note(project / FOLDER)
    place = locate()
    assert (place.url, place.origin, place.note) == ("nats://127.0.0.1:4222", "default", None)
