"""What commands print: safe, plain in a pipe, and JSON that a machine can read."""

from __future__ import annotations

import json

import pytest
import typer

from callboard.cli.options import seconds
from callboard.cli.screen import Screen, clock_time, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größer 中", "größer 中"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\t", "two\\nlines\\t"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("no\u00a0break", "no\u00a0break"),
    ],
)
def test_no_terminal_obeys_what_strangers_wrote(text: str, shown: str):
    assert visible(text) == shown


def test_a_table_in_a_pipe_is_aligned_and_has_no_colours(capsys: pytest.CaptureFixture[str]):
    rows = [["a", 1, "x" * 300], ["long name", 22, "[bold]not markup[/]"]]
    Screen().table(("name", "n#", "what"), rows, title="Title")
    assert capsys.readouterr().out.splitlines() == [
        "Title",
        "name        n  what",
        "a           1  " + "x" * 300,
        "long name  22  [bold]not markup[/]",
    ]


def test_json_is_one_line_without_anything_else(capsys: pytest.CaptureFixture[str]):
    Screen(json=True).document({"text": "a\nb", "n": None})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"text": "a\nb", "n": None}


def test_a_note_stands_beside_the_result(capsys: pytest.CaptureFixture[str]):
    Screen().note("by the way\x07")
    assert capsys.readouterr() == ("", "by the way\\x07\n")


def test_a_time_of_another_day_has_its_date():
    assert clock_time(0).startswith(("1970-01-01 ", "1969-12-31 "))
    assert clock_time(None) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("1.5m", 90), ("2h", 7200), ("250ms", 0.25), ("1d", 86_400), (" 3s ", 3)],
)
def test_a_duration_is_written_as_people_write_it(text: str, expected: float):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "-1", "1w", "1 2", "nan", "1e9"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(typer.BadParameter, match="is not a duration"):
        seconds(text)
