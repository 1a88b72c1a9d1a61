"""Parts of a result as `submit --wait` shows them."""

from __future__ import annotations

import json

import pytest

from callboard.cli.chunks import Chunks
from callboard.cli.screen import Screen
from callboard_broker.handle import Chunk


def test_texts_are_joined_and_values_are_lines(capsys: pytest.CaptureFixture[str]):
    chunks = Chunks("7", Screen())
    for number, value in enumerate(("Hel", "lo\n", "wor", {"n": 1}, "end"), 1):
        chunks.write(Chunk("7", 1, number, value))
    chunks.close()
    out, err = capsys.readouterr()
    assert err == 'Hello\nwor\n{"n":1}\nend\n'
    assert out == "", "stdout is the result's"


def test_a_gap_and_a_new_attempt_are_said(capsys: pytest.CaptureFixture[str]):
    chunks = Chunks("7", Screen())
    for attempt, number in ((1, 1), (1, 4), (2, 2)):
        chunks.write(Chunk("7", attempt, number, f"{attempt}.{number} "))
    chunks.close()
    assert capsys.readouterr().err.splitlines() == [
        "1.1 ",
        "callboard: 2 parts were not heard",
        "1.4 ",
        "callboard: attempt 2 begins anew",
        "callboard: 1 parts were not heard",
        "2.2 ",
    ]


def test_the_steps_of_a_workflow_are_named_and_no_terminal_obeys(
    capsys: pytest.CaptureFixture[str],
):
    chunks = Chunks("7", Screen())
    chunks.write(Chunk("7.a.0", 1, 1, "one"))
    chunks.write(Chunk("7.b.0", 1, 1, "two\n\x1b[2J"))
    chunks.close()
    assert capsys.readouterr().err == "7.a.0: one\n7.b.0: two\n7.b.0: \\x1b[2J\n"


def test_for_machines_each_part_is_a_document(capsys: pytest.CaptureFixture[str]):
    Chunks("7", Screen(json=True)).write(Chunk("7", 2, 3, ["x"]))
    found = json.loads(capsys.readouterr().err)
    assert found == {"task": "7", "attempt": 2, "number": 3, "value": ["x"]}
