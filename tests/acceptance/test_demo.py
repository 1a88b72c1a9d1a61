"""`callboard demo`: the main job on real input, with one agent killed, and nothing left behind."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.commands import Shell

SECRET = "AKIA" + "IOSFODNN7EXAMPLQ"  # put together here, so that this file holds none
PLANTED = f'''"""Planted."""
from tree import other

KEY = "{SECRET}"


def run(text, found=[]):
    """Do what nobody should."""
    try:
        found.append(eval(text))
    except:
        pass
    return found, other
'''
OTHER = '''"""Other."""
from tree import planted


def five(value):
    return value is 5, planted
'''
EXPECTED = {
    ("aws-access-key", "planted.py", 4),
    ("mutable-default", "planted.py", 7),
    ("dynamic-code", "planted.py", 10),
    ("bare-except", "planted.py", 11),
    ("is-literal", "other.py", 6),
    ("undocumented-function", "other.py", 5),
}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(folder=tmp_path)


def plant(folder: Path, *, plain_files: int) -> Path:
    """A package with known defects, among files without any."""
    tree = folder / "tree"
    tree.mkdir()
    (tree / "__init__.py").write_text('"""Tree."""\n')
    (tree / "planted.py").write_text(PLANTED)
    (tree / "other.py").write_text(OTHER)
    for number in range(plain_files):
        body = "".join(
            f'\n\ndef f{n}(value: int) -> int:\n    """Add."""\n    return value + {n}\n'
            for n in range(120)
        )
        (tree / f"plain{number}.py").write_text(f'"""Plain."""\n{body}')
    return tree


def found_in(document: dict[str, Any]) -> set[tuple[str, str, int]]:
    findings = document["report"]["findings"]
    return {(each["rule"], each["file"], each["line"]) for each in findings}


def test_planted_defects_are_found_and_the_figures_hold(shell: Shell):
    plant(shell.folder, plain_files=3)
    done = shell.run("demo", "tree", "--json", "--agents", "2", "--output", "review.md")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert found_in(document) >= EXPECTED
    assert any(rule == "import-cycle" for rule, _, _ in found_in(document))
    run = document["run"]
    assert run["tasks"] == 1 + 6 * 6 + 1
    assert run["audit_verified"] is True
    assert run["attempts_lost"] == 0
    assert 1 <= run["parallelism"] <= run["budget_high_water"] <= run["budget_limit"]
    assert run["handoff_p99_ms"] < 2000
    assert document["report"]["missing"] == []
    report = (shell.folder / "review.md").read_text()
    assert all(process in report for process in run["processes"])
    assert SECRET not in report + done.stdout + done.stderr
    assert shell.processes() == []
    assert list(shell.folder.glob("callboard-demo-*")) == []


def test_with_one_agent_killed_the_findings_are_the_same(shell: Shell):
    plant(shell.folder, plain_files=40)
    document = shell.json("demo", "tree", "--kill-one", "--agents", "3")
    assert document["same_findings"] is True
    assert found_in(document) >= EXPECTED
    killed = document["killed"]
    assert 0 < killed["done"] < killed["total"]
    assert not psutil.pid_exists(killed["pid"])
    assert document["run"]["audit_verified"] is True
    assert document["report"]["missing"] == []
    assert shell.processes() == []


def test_the_default_review_takes_less_than_a_minute_and_warns_of_nothing(shell: Shell):
    done = shell.run("demo")
    assert done.returncode == 0
    assert "verified" in done.stdout
    assert (shell.folder / "callboard-report.md").exists()
    for word in ("arning", "Traceback", "\x1b", "callboard: "):
        assert word not in done.stderr


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("agent processes", signal.SIGINT),
        ("board: ready", signal.SIGINT),
        ("board: ready", signal.SIGTERM),
    ],
)
def test_an_interrupted_demo_exits_with_130_and_leaves_nothing(
    shell: Shell, word: str, number: signal.Signals
):
    process = shell.start("demo")
    wait_for(process, word)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert shell.processes() == []
    assert list(shell.folder.glob("callboard-demo-*")) == []


def test_a_killed_demo_leaves_no_process(shell: Shell):
    process = shell.start("demo")
    wait_for(process, "board: ready")
    left = shell.processes()
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(left, timeout=20)
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if word in line:
            return
    raise AssertionError(f"the demo never said {word!r}")
