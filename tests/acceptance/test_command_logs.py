"""`callboard logs` on a running `callboard up`, as a person and as a program read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import UpBoard, running_board

AGENTS = """
import asyncio
from callboard import Context, agent

@agent("talk", slots=4)
async def talk(lines, ctx: Context):
    for number in range(lines):
        ctx.log.info("line %d \\x1b[2J", number, extra={"half": number / 2})
        await asyncio.sleep(0.02)  # it works on while it is followed

@agent("stumble")
async def stumble(_value, ctx: Context):
    if ctx.attempt == 1:
        ctx.log.warning("not yet")
        raise LookupError("not there")
    ctx.log.info("now")
"""

FLOW = """
name: talking
steps:
  one: {capability: talk, payload: 1}
  two: {capability: stumble, after: [one], retry: {attempts: 2, delay: 0}}
"""

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpBoard]:
    folder = tmp_path_factory.mktemp("logs")
    (folder / "talking.py").write_text(AGENTS)
    (folder / "flow.yaml").write_text(FLOW)
    with running_board(folder, "--agents", "talking.py", "--processes", "1") as found:
        yield found


def words(text: str) -> list[str]:
    """Its lines without the time, the id and the name of the host."""
    return [line.split("  ", 1)[1].split(" dispatched")[0].strip() for line in text.splitlines()]


def test_a_workflow_is_told_in_the_order_of_time_with_its_milestones(board: UpBoard):
    shell = board.shell
    flow = shell.json("run", "flow.yaml", "--trace", TRACE)["id"]
    told = shell.run("logs", flow)
    assert words(told.stdout) == [
        "-- attempt 1",
        "INFO     line 0 \\x1b[2J half=0.0",
        "-- attempt 1 succeeded",
        "-- attempt 1",
        "WARNING  not yet",
        told.stdout.splitlines()[5].split("  ", 1)[1],
        "-- attempt 2",
        "INFO     now",
        "-- attempt 2 succeeded",
        "-- succeeded",
    ]
    assert "attempt 1 failed: LookupError: not there; tried again" in told.stdout
    assert "\x1b" not in told.stdout

    documents = [json.loads(line) for line in shell.run("logs", flow, "--json").stdout.splitlines()]
    lines = [found for found in documents if found["kind"] == "line"]
    assert [found["message"] for found in lines] == ["line 0 \x1b[2J", "not yet", "now"]
    assert {found["trace"] for found in lines} == {TRACE}
    assert {found["workflow"] for found in lines} == {flow}
    assert len(documents) == 10

    only = shell.run("logs", f"{flow}.two.0", "--level", "warning", "--last", "5")
    assert words(only.stdout) == ["WARNING  not yet"]


def test_followed_logs_end_with_the_task_and_its_exit_code(board: UpBoard):
    shell = board.shell
    task = shell.run("submit", "talk", "60").stdout.strip()
    told = shell.run("logs", task, "--follow")
    assert told.returncode == 0
    assert [line for line in words(told.stdout) if line.startswith("INFO")] == [
        f"INFO     line {number} \\x1b[2J half={number / 2}" for number in range(60)
    ]
    assert words(told.stdout)[-1].endswith("succeeded")
    failed = shell.run("submit", "stumble").stdout.strip()
    told = shell.run("logs", failed, "--follow")
    assert told.returncode == 1
    assert "WARNING  not yet" in words(told.stdout)
    assert "failed LookupError: not there" in told.stdout or "failed: LookupError" in told.stdout


def test_a_wrong_question_is_a_users_mistake(board: UpBoard):
    shell = board.shell
    found = shell.run("logs", "999999")
    assert (found.returncode, "Traceback" in found.stderr) == (2, False)
    found = shell.run("logs", "1", "--level", "loud")
    assert found.returncode == 2
    assert "'loud' is none of debug, info, warning" in found.stderr


def test_the_files_of_the_parts_are_for_a_person_and_json_where_it_is_wanted(board: UpBoard):
    shell = board.shell
    log = (shell.folder / ".callboard" / "logs" / "ledger.log").read_text(encoding="utf-8")
    assert "INFO ledger: ready" in log
    done = shell.run(
        *("ledger", "--store", str(Path("other"))),
        CALLBOARD_NATS_URL="nats://ann:s3cr3t@127.0.0.1:1",
        CALLBOARD_LOG__FORMAT="json",
    )
    assert done.returncode == 3
    assert "s3cr3t" not in done.stderr
