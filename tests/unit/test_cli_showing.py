"""What `callboard status ID` tells a person of a task."""

from __future__ import annotations

from typing import Any

import pytest

from callboard.cli.screen import Screen
from callboard.cli.showing import show_view
from callboard_broker.wire import Failure, Usage
from callboard_ledger.views import TaskView


def shown(capsys: pytest.CaptureFixture[str], **fields: Any) -> str:
    given = {"id": "7", "tenant": "acme", "capability": "x", "state": "succeeded", "attempt": 1}
    show_view(Screen(json=False), TaskView(**given, lost=0, priority=5, **fields))
    return capsys.readouterr().out


def test_a_task_shows_what_its_last_attempt_took_and_what_kept_it_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = shown(capsys, usage=Usage(0.97, 60.5, 1.02), layers=["landlock", "seccomp"])
    assert "  usage      0.97 s of CPU, 60.5 MiB, in 1.02 s\n" in told
    assert "  layers     landlock, seccomp\n" in told


def test_what_nobody_measured_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "0.50 s of CPU, in 1.00 s" in shown(capsys, usage=Usage(0.5, 0.0, 1.0))
    told = shown(capsys)
    assert "usage" not in told
    assert "layers" not in told


def test_the_field_that_must_change_is_named_before_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = shown(capsys, error=Failure("BadInput", "must be text", field="files[0].path"))
    assert "BadInput: files[0].path: must be text" in told
