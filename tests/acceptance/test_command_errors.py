"""What a user can get wrong: one line that names it, a code, and never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Shell

NOWHERE = "nats://127.0.0.1:1"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "No such command 'nonsense'"),
        (["submit"], 2, "Missing argument"),
        (["submit", "echo", "{bad"], 2, "payload: {bad is not JSON"),
        (["submit", "echo", "hello"], 2, "text must be quoted"),
        (["submit", "echo", "@missing.json"], 2, "missing.json: No such file"),
        (["submit", "echo", "[" * 100 + "]" * 100], 2, "nested deeper than 64 levels"),
        (["submit", "echo", "1", "--priority", "10"], 2, "--priority"),
        (["submit", "echo", "1", "--timeout", "soon"], 2, "is not a duration"),
        (["submit", "echo", "1", "--nats", "http://x"], 2, "not a NATS address"),
        (["submit", "echo", "1", "--nats", NOWHERE], 3, "no NATS server answers"),
        (["submit", "echo", "1", "--retry", "often"], 2, "retry: 'often' is neither"),
        (["submit", "echo", "1", "--retry", "0", "--nats", NOWHERE], 3, "no NATS server answers"),
        (["submit", "echo", "1", "--need", "gpu=1"], 2, "need: 'gpu' is none of"),
        (["submit", "echo", "1", "--unit", "tokens"], 2, "unit: 'tokens' is not UNIT=N"),
        (
            ["submit", "echo", "1", "--cron", "* * * * *", "--wait"],
            2,
            "wait: a schedule has no end",
        ),
        (["submit", "echo", "1", "--zone", "UTC+1"], 2, "zone: says nothing without --cron"),
        (["resume", "17", "--inputs", "{"], 2, "inputs: { is not JSON"),
        (["signal", "17", "go", "now"], 2, "value: now is not JSON"),
        (["signal", "17"], 2, "Missing argument"),
        (["cancel"], 2, "Missing argument"),
        (["cancel", "17", "--nats", NOWHERE], 3, "no NATS server answers"),
        (["budget", "set", "acme", "rate=1"], 2, "key: 'acme' is no budget"),
        (["budget", "set", "global"], 2, "fields: name what changes"),
        (["budget", "set", "global", "--unset", "rate=1"], 2, "fields: name what changes"),
        (["budget", "set", "global", "speed=2"], 2, "speed: is none of concurrency"),
        (["budget", "show", "tenant/all"], 2, "key: 'all' is reserved"),
        (["dead", "redrive", "17", "--edit", "@missing.json"], 2, "missing.json: No such file"),
        (["status", "--nats", NOWHERE], 3, "callboard up"),
        (["list", "--state", "asleep"], 2, "asleep"),
        (["list", "--follow", "--before", "17"], 2, "before: it has no place beside --follow"),
        (["router", "--nats", NOWHERE], 3, "no NATS server answers"),
        (["ledger", "--nats", NOWHERE], 3, "no NATS server answers"),
        (["agents", "run", "no_such_module"], 2, "no such module"),
        (["run", "missing.yaml"], 2, "missing.yaml"),
        (["audit", "replay", "--until", "yesterday"], 2, "neither an event's number nor a time"),
        (["audit", "verify", "--checkpoint", "missing"], 2, "checkpoint: missing cannot be read"),
        (["audit", "verify", "missing", "--key", "a+b+c"], 2, "key: not a public key"),
        (["audit", "verify", "missing"], 2, "key: a file proves nothing without"),
        (["audit", "verify", "missing", "--key", "nowhere"], 2, "key: nowhere cannot be read"),
        (["audit", "verify", "--archive", "nowhere"], 2, "archive: nowhere is no folder"),
        (["audit", "export"], 2, "Missing option"),
        (["audit", "export", "-o", "x", "--since", "soon"], 2, "since: 'soon' is no time"),
        (["audit", "prove", "0"], 2, "Invalid value"),
        (["config", "show", "--prefix", "A.B"], 2, "board.prefix"),
        (["demo", "missing"], 2, "missing does not exist"),
        (["demo", "."], 2, "nothing to review"),
        (["demo", "--kill-one", "--agents", "1"], 2, "at least 2"),
        (["demo", "--output", "no/such/folder.md"], 2, "output"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_a_code(
    tmp_path: Path, arguments: list[str], code: int, said: str
):
    done = Shell(folder=tmp_path).run(*arguments)
    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("callboard: ")
    assert "Traceback" not in done.stderr


def test_a_setting_that_is_wrong_names_its_source(tmp_path: Path):
    done = Shell(folder=tmp_path).run("config", "show", CALLBOARD_LEASE__LEASE_SECONDS="long")
    assert done.returncode == 2
    assert "lease.lease_seconds (environment CALLBOARD_LEASE__LEASE_SECONDS)" in done.stderr


def test_a_traceback_is_shown_to_whoever_asks_for_it(tmp_path: Path):
    done = Shell(folder=tmp_path).run("submit", "echo", "{", CALLBOARD_DEBUG="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
