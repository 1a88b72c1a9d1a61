"""The log of a process: JSON for programs, text for people, and no secret in either."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from callboard_broker.logs import LogFormat, masked, start_logging

SECRET = "s3cr3t"  # noqa: S105  of a test


class Terminal(io.StringIO):
    """Somebody looks at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The handlers of pytest are there again afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    for handler in handlers:
        root.removeHandler(handler)  # `basicConfig(force=True)` would close them
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(form: LogFormat, *, terminal: bool = False, level: str = "info") -> io.StringIO:
    stream = Terminal() if terminal else io.StringIO()
    start_logging("router", form=form, level=level, stream=stream)
    return stream


def test_a_json_line_carries_what_the_record_is_about():
    stream = lines("json")
    facts: dict[str, Any] = {"tenant": "acme", "task": "7.a.0", "workflow": "7", "attempt": 2}
    facts |= {"trace": "1" * 32, "fields": {"files": 3}}
    logging.getLogger("callboard.host").warning("late by %d s", 3, extra=facts)
    found = json.loads(stream.getvalue())
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "warning",
        "component": "router",
        "logger": "callboard.host",
        "message": "late by 3 s",
        "tenant": "acme",
        "task": "7.a.0",
        "workflow": "7",
        "attempt": 2,
        "trace": "1" * 32,
        "fields": {"files": 3},
    }


def test_an_exception_stays_on_its_one_line_of_json():
    stream = lines("json")
    try:
        raise ValueError("what\nwent wrong")
    except ValueError:
        logging.getLogger("x").exception("no")
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["error"].endswith("ValueError: what\nwent wrong")


def test_a_line_for_a_person_is_one_line_without_control_characters():
    stream = lines("console")
    logging.getLogger("x").info("red \x1b[31m and\nmore", extra={"task": "7", "fields": {"a": 1}})
    [line] = stream.getvalue().splitlines()
    assert line.endswith("INFO router: red \\x1b[31m and\\nmore task=7 a=1")


def test_auto_is_for_a_person_on_a_terminal_and_json_elsewhere():
    stream = lines("auto", terminal=True)
    logging.getLogger("x").error("no")
    assert stream.getvalue().startswith("\x1b[31m")
    stream = lines("auto")
    logging.getLogger("x").error("no")
    assert json.loads(stream.getvalue())["message"] == "no"


def test_nothing_is_said_below_the_level():
    stream = lines("json", level="error")
    logging.getLogger("x").warning("no")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_password_of_a_url_gets_into_a_line(form: LogFormat):
    stream = lines(form)
    url = f"nats://ann:{SECRET}@a:4222,nats://ann:{SECRET}@b:4222"
    try:
        raise OSError(f"cannot reach tls://{SECRET}@c:4222")
    except OSError:
        logging.getLogger("x").exception("not %s, see %s", url, "a@b.c", extra={"fields": [url]})
    written = stream.getvalue()
    assert SECRET not in written
    assert "nats://ann:***@a:4222,nats://ann:***@b:4222" in written
    assert "tls://***@c:4222" in written
    assert "a@b.c" in written


def test_masking_leaves_what_is_no_secret():
    text = '{"url": "nats://host:4222", "mail": "ann@example.org", "path": "https://x/@scope"}'
    assert masked(text) == text


def test_what_cannot_be_written_as_json_is_said_all_the_same():
    stream = lines("json")
    logging.getLogger("x").info("odd \ud800", extra={"fields": {"self": object()}})
    assert "odd" in json.loads(stream.getvalue())["message"]


def test_by_default_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]):
    start_logging("ledger", form="json")
    logging.getLogger("x").info("here")
    assert json.loads(capsys.readouterr().err)["component"] == "ledger"
    assert sys.stdout is not sys.stderr
