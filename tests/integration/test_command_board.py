"""Command agents on a whole board: as their file declares them, with the limits of any child."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from callboard import Board, TaskCancelled, TaskFailed, connect
from tests.board import started_processes
from tests.commands import running_board
from tests.open_folders import open_folder, write_script
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(90)

EXAMPLE = Path(__file__).parents[2] / "examples" / "command_agents"
PYTEST = """#!/usr/bin/env python3
import sys
sys.path.insert(0, {site!r})
from pytest import console_main
sys.exit(console_main())
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example where every user may go, with a pytest on PATH that every user may run."""
    with open_folder() as found:
        folder = found / "example"
        shutil.copytree(EXAMPLE, folder)
        site = found / "site"
        for name in ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"):
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.submodule_search_locations
            shutil.copytree(spec.submodule_search_locations[0], site / name)
        shim = importlib.util.find_spec("py")  # pytest's own, for old plugins
        assert shim is not None
        assert shim.origin is not None
        shutil.copy(shim.origin, site)
        programs = found / "bin"
        programs.mkdir()
        write_script(programs, "pytest", PYTEST.format(site=str(site)))
        monkeypatch.setenv("PATH", f"{programs}:/usr/local/bin:/usr/bin:/bin")
        monkeypatch.setenv("CALLBOARD_ISOLATION__READ", f'["{site}"]')
        yield folder


async def failure(board: Board, capability: str, payload: Any = None) -> TaskFailed:
    with pytest.raises(TaskFailed) as found:
        await (await board.submit(capability, payload)).result(30)
    return found.value


async def test_the_example_works_with_bash_awk_and_pytest(
    nats: NatsServer, tmp_path: Path, folder: Path
) -> None:
    with started_processes(nats, tmp_path) as processes:
        processes.router("router")
        processes.ledger()
        processes.host("host", str(folder / "my_agents.yaml"))
        await processes.says("is ready", "host")
        async with connect(nats.url, prefix=nats.prefix) as board:
            handle = await board.submit("text.upper", {"a": ["b"]}, tenant="acme")
            told = [update.progress async for update in handle if update.progress]
            assert await handle.result(30) == {"A": ["B"]}
            assert told == [{"read": 0}]
            logged = [json.loads(line) for line in processes.log("host").splitlines()]
            said = [line for line in logged if line.get("task") == handle.id]
            assert f"task {handle.id} of acme" in [line["message"] for line in said]
            counted = await board.submit("text.count", {"text": "one two  three"})
            assert await counted.result(30) == {"words": 3}
            said = (await failure(board, "text.count", {"txt": 1})).error
            assert said is not None
            assert (said.type, said.message) == (
                "CommandFailed",
                "awk exited with 2: the payload has no text",
            )
            assert said.trace == "the payload has no text\n"
            assert "2 passed" in await (await board.submit("test.run")).result(60)


def test_up_runs_a_file_of_commands(folder: Path) -> None:
    with running_board(folder, "--agents", "my_agents.yaml", "--processes", "1") as board:
        done = board.shell.run("submit", "text.upper", '{"a": "b"}', "--wait")
        assert (done.returncode, json.loads(done.stdout)) == (0, {"A": "B"}), done.stderr
        board.end(signal.SIGTERM)


OWN = """
agents:
  - capability: fork.late
    command: [bash, -c, "trap '' TERM; for n in 1 2 3; do sleep {mark} & done; sleep {mark}"]
    timeout: 0.5
    limits: {{processes: 8}}
  - capability: fork.long
    command: [bash, -c, "bash -c \\"echo '::progress 1' >&2; sleep {mark}\\" {mark} & wait"]
  - capability: flood
    command: ["yes"]
    output: text
    limits: {{output_mb: 1}}
  - capability: peek
    command: [sh, -c, "cat /etc/shadow"]
    output: text
  - capability: words
    command: [echo, no json]
"""


async def test_what_a_command_starts_ends_with_its_attempt(
    nats: NatsServer, tmp_path: Path, folder: Path
) -> None:
    mark = f"97{time.monotonic_ns() % 10**8}"
    (folder / "own.yaml").write_text(OWN.format(mark=mark))

    def sleepers() -> list[psutil.Process]:
        found = psutil.process_iter(["cmdline"])
        return [each for each in found if mark in (each.info["cmdline"] or ())]

    with started_processes(nats, tmp_path) as processes:
        processes.router("router")
        processes.ledger()
        processes.start(
            "host", "agents", "run", str(folder / "own.yaml"), "isolated_agents.py", "--name=host"
        )
        await processes.says("is ready", "host")
        async with connect(nats.url, prefix=nats.prefix) as board:
            assert "TimedOut" in str(await failure(board, "fork.late"))
            assert not psutil.wait_procs(sleepers(), timeout=5)[1]
            handle = await board.submit("fork.long")
            async for update in handle:
                if update.progress:
                    assert len(sleepers()) >= 1
                    await handle.cancel("enough")
            with pytest.raises(TaskCancelled, match="enough"):
                await handle.result(30)
            assert not psutil.wait_procs(sleepers(), timeout=5)[1]
            for capability, words in (
                ("flood", "OutputExceeded: it had printed 1."),
                ("peek", "CommandFailed: sh exited with 1: cat: /etc/shadow: Permission denied"),
                ("words", "BadResult: result: is no JSON"),
            ):
                assert words in str(await failure(board, capability)), capability
            assert await (await board.submit("iso.sum", {"a": 2, "b": 3})).result(30) == 5
        assert "Traceback" not in processes.log("host")


@pytest.mark.parametrize("through", ["callboard agents run", "callboard_agents"])
def test_what_is_wrong_is_said_in_a_line_before_any_server_is_asked(
    tmp_path: Path, through: str
) -> None:
    (tmp_path / "my.yaml").write_text("agents:\n- capability: a\n  command: [no-such-thing]\n")
    done = subprocess.run(
        [sys.executable, "-m", *through.split(), "my.yaml"],
        cwd=tmp_path,
        env={"CALLBOARD_NATS_URL": "nats://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "agents[0].command: there is no program 'no-such-thing' on PATH" in done.stderr
    assert "my.yaml, line 3" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("through", ["callboard agents run", "callboard_agents"])
def test_a_lifespan_that_fails_ends_the_host_with_its_name(tmp_path: Path, through: str) -> None:
    (tmp_path / "mine.py").write_text(
        "from callboard import agent, lifespan\n"
        "@lifespan\nasync def database():\n    raise OSError('nobody is there')\n    yield\n"
        "@agent('a')\ndef a(): ...\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", *through.split(), "mine.py"],
        cwd=tmp_path,
        env={"CALLBOARD_NATS_URL": "nats://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert ": mine.database does not start: OSError: nobody is there" in done.stderr
    assert "Traceback" not in done.stderr
