"""The help pages: every command explains itself, with examples, and in a pipe without boxes."""

from __future__ import annotations

import re

import pytest

from callboard.cli.entry import main

COMMANDS = [
    "demo",
    "up",
    "submit",
    "run",
    "status",
    "list",
    "explain",
    "cancel",
    "pause",
    "resume",
    "approve",
    "signal",
    "dead list",
    "dead show",
    "dead redrive",
    "budget show",
    "budget set",
    "agents run",
    "agents list",
    "audit checkpoint",
    "audit export",
    "audit prove",
    "audit verify",
    "audit replay",
    "audit timeline",
    "bmad lint",
    "bmad list",
    "bmad merge",
    "bmad plan",
    "bmad run",
    "caef plan",
    "caef run",
    "cerebral migrate",
    "cerebral check",
    "cerebral mirror",
    "cerebral pull",
    "config show",
    "router",
    "ledger",
    "projector",
    "projector migrate",
    "projector restore",
    "projector parked",
    "projector forget",
    "stats",
    "failures",
]


def page(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_page_with_an_example(
    capsys: pytest.CaptureFixture[str], command: str
):
    text = page(capsys, *command.split(), "--help")
    assert f"\n  callboard {command}" in text
    assert "│" not in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_first_page_names_every_command_and_the_exit_codes(
    capsys: pytest.CaptureFixture[str],
):
    text = page(capsys, "--help")
    for command in COMMANDS:
        assert re.search(rf"\n  {command.split()[0]} +\w", text), command
    for said in ("Exit codes: 0", "CALLBOARD_DEBUG", "NO_COLOR", "callboard demo"):
        assert said in text


def test_every_command_that_shows_something_can_show_it_as_json(
    capsys: pytest.CaptureFixture[str],
):
    changes_only = {"router", "ledger", "agents run", "projector", "projector forget"}
    changes_only.add("cerebral mirror")
    for command in COMMANDS:
        if command not in changes_only:
            assert "--json" in page(capsys, *command.split(), "--help"), command


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]):
    assert page(capsys, "--version").startswith("callboard 0.")


def test_a_group_without_a_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["audit"])
    assert ended.value.code == 2
    assert "verify" in capsys.readouterr().err
