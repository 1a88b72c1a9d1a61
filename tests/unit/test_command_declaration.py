"""Command agents as declared in Python and in YAML; what is wrong is said by its place."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from callboard_agents import command_agent, load
from callboard_broker.errors import BadInput


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    def _write(text: str) -> str:
        path = tmp_path / "my_agents.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return _write


def script(folder: Path, name: str, text: str, *, mode: int = 0o755) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_program_is_found_on_the_path_when_it_is_declared():
    agent = command_agent("list", ["ls", "-l"])
    assert agent.command is not None
    assert os.path.isabs(agent.command.words[0])  # noqa: PTH117
    assert agent.command.words[1:] == ("-l",)
    assert (agent.name, agent.isolation, agent.is_async) == ("ls", "process", False)


def test_a_program_of_the_running_python_is_found_without_its_environment_being_active(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    agent = command_agent("check", ["pytest", "-q"])
    assert agent.command is not None
    assert agent.command.words[0] == str(Path(sys.executable).parent / "pytest")


def test_a_missing_program_is_refused_with_a_hint():
    with pytest.raises(BadInput, match=r"command: .*'no-such-thing' on PATH: install it"):
        command_agent("x", ["no-such-thing"])


def test_a_word_with_a_dot_is_a_file_beside_and_may_be_read(tmp_path: Path):
    path = script(tmp_path, "run.sh", "#!/bin/bash\n")
    (tmp_path / "suite").mkdir()
    agent = command_agent("x", ["./run.sh", "./suite", "-x", "/etc/hostname"], folder=tmp_path)
    assert agent.command is not None
    assert agent.command.words == (str(path), str(tmp_path / "suite"), "-x", "/etc/hostname")
    assert agent.command.read == (
        str(path),
        "/bin/bash",
        str(tmp_path / "suite"),
        "/etc/hostname",
    )


def test_a_folder_that_is_named_absolutely_is_not_opened_by_that():
    agent = command_agent("x", ["du", "/"])
    assert agent.command is not None
    assert "/" not in agent.command.read


@pytest.mark.parametrize(
    ("words", "options", "field"),
    [
        ("pytest -q", {}, "command"),
        ([], {}, "command"),
        (["ls", "a\0b"], {}, "command"),
        (["ls", 3], {}, "command"),
        (["ls", "./absent"], {}, "command"),
        (["./plain.txt"], {}, "command"),
        (["./absent"], {}, "command"),
        (["ls"], {"output": "xml"}, "output"),
        (["ls"], {"env": {"A-B": "1"}}, "env"),
        (["ls"], {"env": {"A": 1}}, "env.A"),
        (["ls"], {"env": {"CALLBOARD_TASK": "1"}}, "env.CALLBOARD_TASK"),
        (["ls"], {"timeout": -1}, "timeout"),
        (["ls"], {"slots": 0}, "slots"),
    ],
)
def test_a_wrong_declaration_is_refused_by_its_field(
    tmp_path: Path, words: Any, options: dict[str, Any], field: str
):
    script(tmp_path, "plain.txt", "text", mode=0o644)
    with pytest.raises(BadInput) as found:
        command_agent("x", words, folder=tmp_path, **options)
    assert found.value.field == field


def test_a_refusal_never_shows_the_value_of_a_variable():
    with pytest.raises(BadInput) as found:
        command_agent("x", ["ls"], env={"TOKEN": "s3cret\0"})
    assert "s3cret" not in str(found.value)


def test_only_a_host_runs_a_command():
    with pytest.raises(RuntimeError, match="only a host runs it"):
        command_agent("x", ["ls"])({})


def test_a_file_declares_all_that_an_agent_may_say(write: Callable[[str], str]):
    (agent,) = load(
        [
            write(
                """
agents:
  - capability: test.run
    command: [sh, -c, "exit 0"]
    output: text
    timeout: 60
    slots: 2
    memory_mb: 512
    cpu: 1.5
    name: tester
    version: "1.2"
    specialization: [python]
    labels: {region: eu}
    env: {MODE: "no"}
    limits: {processes: 8, cpu_seconds: 30, disk_mb: 5, output_mb: 2, files: 64,
             read: [/srv], network: true}
"""
            )
        ]
    )
    assert (agent.capability, agent.timeout, agent.slots) == ("test.run", 60, 2)
    assert (agent.memory_mb, agent.cpu, agent.name, agent.version) == (512, 1.5, "tester", "1.2")
    assert (agent.specialization, agent.labels) == (("python",), {"region": "eu"})
    assert (agent.limits.processes, agent.limits.read) == (8, ("/srv",))
    assert agent.limits.network
    assert agent.command is not None
    assert (agent.command.output, agent.command.env) == ("text", {"MODE": "no"})


def test_one_agent_of_a_file_may_be_named(write: Callable[[str], str]):
    place = write("agents: [{capability: a, command: [ls]}, {capability: b.c, command: [ls, -l]}]")
    assert [agent.capability for agent in load([place])] == ["a", "b.c"]
    assert [agent.capability for agent in load([f"{place}:b.c"])] == ["b.c"]
    with pytest.raises(BadInput, match="no agent of 'd'"):
        load([f"{place}:d"])


def test_a_file_and_a_module_may_be_loaded_together(write: Callable[[str], str], tmp_path: Path):
    module = tmp_path / "mine.py"
    module.write_text(
        "from callboard import agent, command_agent\n"
        "@agent('one')\ndef one(): ...\n"
        "two = command_agent('two', ['ls'])\n"
    )
    place = write("agents: [{capability: three, command: [ls]}]")
    assert [agent.capability for agent in load([str(module), place])] == ["one", "two", "three"]
    with pytest.raises(BadInput, match="one host serves a capability once"):
        load([place, write("agents: [{capability: three, command: [ls]}]") + ":three"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"agents: Field required \(.*my_agents.yaml, line 1\)"),
        ("agents: []", "holds no agent"),
        ("agents:\n- {capability: a}", r"agents\[0\].command: Field required .* line 2\)"),
        (
            "agents:\n- {capability: a, comand: [a]}",
            r"agents\[0\].comand: Extra inputs .* line 2\)",
        ),
        (
            "agents:\n- capability: a\n  command: [ls]\n  colour: red\n",
            r"agents\[0\].colour: Extra inputs .* line 4\)",
        ),
        (
            "agents:\n- capability: a\n  command: ls -l\n",
            r"agents\[0\].command: Input should be a valid list .* line 3\)",
        ),
        (
            "agents:\n- capability: a\n  command: [ls]\n- capability: B!\n  command: [ls]\n",
            r"agents\[1\].capability: .* line 4\)",
        ),
        (
            "agents:\n- capability: a\n  command: [ls]\n  limits:\n    files: 3\n",
            r"agents\[0\].limits.files: 3 is not .* line 5\)",
        ),
        (
            "agents:\n- capability: a\n  command:\n  - no-such-thing\n",
            r"agents\[0\].command: .*no-such-thing.* line 3\)",
        ),
        (
            "agents:\n- capability: a\n  command: [ls]\n  env:\n    A: 1\n",
            r"agents\[0\].env.A: Input should be a valid string .* line 5\)",
        ),
        ("agents: &a []\nmore: *a", "line 1: aliases and anchors"),
        ("agents: {", "line 1"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_field_file_and_line(
    write: Callable[[str], str], text: str, said: str
):
    with pytest.raises(BadInput, match=said):
        load([write(text)])


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="cannot be read"):
        load([str(tmp_path / "absent.yaml")])
