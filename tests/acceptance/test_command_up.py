"""`callboard up` and the commands that find it: the loop a new user walks through."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.commands import Shell, UpBoard, free_port, running_board

AGENTS = """
import asyncio

from callboard import Context, agent

@agent("echo")
async def echo(value):
    return value

@agent("slow")
async def slow(value, ctx: Context):
    await ctx.progress("begun")
    await asyncio.sleep(600)

@agent("boom")
def boom(value):
    raise ValueError("no \\x1b[31mway")
"""

WORKFLOW = """
name: sums
inputs: {numbers: [1, 2, 3]}
steps:
  each: {capability: echo, payload: {n: {from: item}}, each: inputs.numbers}
  all: {capability: echo, payload: {each: {from: each}}}
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpBoard]:
    folder = tmp_path_factory.mktemp("board")
    (folder / "my_agents.py").write_text(AGENTS)
    (folder / "sums.yaml").write_text(WORKFLOW)
    with running_board(folder, "--agents", "my_agents.py", "--processes", "1") as running:
        yield running


def test_a_submitted_task_comes_back_with_its_result(board: UpBoard):
    done = board.shell.run("submit", "echo", '{"a": [1, 2]}', "--wait")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, {"a": [1, 2]}, "")


def test_a_payload_comes_from_a_file_or_from_stdin(board: UpBoard):
    (board.shell.folder / "in.json").write_text('"from a file"')
    assert board.shell.run("submit", "echo", "@in.json", "-w").stdout == "from a file\n"
    assert board.shell.run("submit", "echo", "-", "-w", stdin='"piped"').stdout == "piped\n"


def test_the_board_is_found_from_a_folder_below(board: UpBoard):
    below = board.shell.folder / "deep" / "down"
    below.mkdir(parents=True, exist_ok=True)
    found = Shell(folder=below).json("status")
    assert found["url"] == board.started["url"]
    assert found["routers"]
    assert found["hosts"] == 1
    assert found["budgets"]["global"] == board.started["budgets"]["global"]


def test_a_failed_task_exits_with_1_and_its_error_cannot_touch_the_terminal(board: UpBoard):
    done = board.shell.run("submit", "boom", "1", "--wait")
    assert done.returncode == 1
    assert "ValueError: no \\x1b[31mway" in done.stderr
    failed = board.shell.run("list", "--state", "failed")
    assert "\x1b" not in failed.stdout
    assert "\\x1b[31mway" in failed.stdout


def test_the_status_of_a_task_says_what_became_of_it(board: UpBoard):
    task = board.shell.json("submit", "echo", "7", "--tenant", "acme")["id"]
    board.shell.run("submit", "echo", "8", "--wait")
    view = board.shell.json("status", task)
    assert (view["capability"], view["tenant"], view["payload"]) == ("echo", "acme", 7)
    assert board.shell.run("status", task, "--tenant", "other").returncode == 2


def test_a_list_goes_on_where_the_page_before_ended(board: UpBoard):
    tasks = [board.shell.json("submit", "echo", "1", "--tenant", "pages")["id"] for _ in range(3)]
    page = ("list", "--tenant", "pages", "--json", "--limit", "2")
    first = [json.loads(row)["id"] for row in board.shell.run(*page).stdout.splitlines()]
    after = board.shell.run(*page, "--before", first[-1]).stdout.splitlines()
    assert [*first, *(json.loads(row)["id"] for row in after)] == tasks[::-1]
    done = board.shell.run("list", "--before", "nothing")
    assert (done.returncode, "before: 'nothing' is not the id" in done.stderr) == (2, True)


def test_a_key_makes_two_posts_one_task(board: UpBoard):
    first = board.shell.json("submit", "echo", "1", "--key", "once", "--wait")
    again = board.shell.json("submit", "echo", "2", "--key", "once", "--wait")
    assert again["result"] == first["result"] == 1


def test_a_workflow_file_runs_with_its_inputs(board: UpBoard):
    done = board.shell.run("run", "sums.yaml", "--input", "numbers=[4,5]")
    assert json.loads(done.stdout) == {"all": {"each": [{"n": 4}, {"n": 5}]}}
    flows = board.shell.run("list", "--kind", "flow", "--json").stdout.splitlines()
    assert json.loads(flows[0])["name"] == "sums"
    steps = board.shell.json("status", json.loads(flows[0])["id"])["steps"]
    assert [(step["id"], step["succeeded"]) for step in steps] == [("each", 2), ("all", 1)]


def test_a_workflow_with_a_cycle_is_refused_before_it_is_posted(board: UpBoard):
    steps = "{a: {capability: x, after: [b]}, b: {capability: x, after: [a]}}"
    (board.shell.folder / "cycle.yaml").write_text(f"name: c\nsteps: {steps}\n")
    done = board.shell.run("run", "cycle.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("callboard: steps: a cycle: ")
    assert done.stderr.count("\n") == 1


def test_a_task_that_nobody_can_do_says_so_and_waits(board: UpBoard):
    done = board.shell.run("submit", "nobody.does.this", "1")
    assert done.returncode == 0
    assert "no agent offers nobody.does.this" in done.stderr
    assert board.shell.json("status", done.stdout.strip())["state"] == "waiting"


def test_a_workflow_names_who_is_missing_also_inside_of_steps_and_to_undo_them(board: UpBoard):
    inner = "{steps: {c: {capability: nobody.inside, compensate: {capability: nobody.undoes}}}}"
    steps = f"{{a: {{capability: nobody.first}}, b: {{flow: {inner}, after: [a]}}}}"
    (board.shell.folder / "missing.yaml").write_text(f"name: missing\nsteps: {steps}\n")
    done = board.shell.run("run", "missing.yaml", "--no-wait")
    assert done.returncode == 0
    assert "no agent offers nobody.first, nobody.inside, nobody.undoes at" in done.stderr
    board.shell.run("cancel", done.stdout.strip())


def test_the_hosts_are_listed_with_what_they_offer(board: UpBoard):
    (host,) = board.shell.json("agents", "list")["hosts"]
    assert {offer["capability"] for offer in host["offers"]} == {"echo", "boom", "slow"}
    assert psutil.pid_exists(host["pid"])
    assert host["allocated_cpu"] == host["allocated_mb"] == 0
    assert 0 <= host["blocked_seconds"] < 60
    (known,) = board.shell.json("agents", "list", "--all")["hosts"]
    assert (known["host"], known["state"]) == (host["host"], "here")
    assert known["offers"] == host["offers"]


def test_the_audit_log_verifies_and_replays_to_what_the_ledger_says(board: UpBoard):
    task = board.shell.json("submit", "echo", "1", "--wait")["id"]
    report = board.shell.json("audit", "verify")
    assert report["ok"]
    assert report["anchored"]
    lines = board.shell.run("audit", "replay", "--task", task, "--json").stdout.splitlines()
    *story, state = map(json.loads, lines)
    assert [event["event"] for event in story] == ["post", "dispatch", "outcome"]
    assert {event["verdict"] for event in story} == {"accepted"}
    assert state["state"] == "succeeded"
    before = story[-1]["seq"] - 1
    done = board.shell.run("audit", "replay", "--until", str(before), "--task", task, "--json")
    assert json.loads(done.stdout.splitlines()[-1])["state"] == "running"


def test_an_export_and_a_proof_verify_where_there_is_no_board(board: UpBoard, tmp_path: Path):
    task = board.shell.json("submit", "echo", "1", "--wait")["id"]
    key = str(board.shell.folder / ".callboard" / "ledger" / "audit.pub")
    deadline = time.monotonic() + 30
    while board.shell.json("audit", "checkpoint")["size"] < int(task):
        assert time.monotonic() < deadline
    checkpoint = board.shell.run("audit", "checkpoint")
    (tmp_path / "checkpoints").write_text(checkpoint.stdout)
    proof = board.shell.run("audit", "prove", task)
    (tmp_path / "proof").write_text(proof.stdout)
    exported = ("audit", "export", "--output", str(tmp_path / "events"), "--task", task)
    assert board.shell.json(*exported)["events"] >= 1
    elsewhere = Shell(folder=tmp_path)
    for file in ("proof", "events"):
        report = elsewhere.json("audit", "verify", file, "--key", key)
        assert (report["ok"], report["signed"], report["findings"]) == (True, True, [])
    (tmp_path / "events").write_text((tmp_path / "events").read_text().replace("echo", "ohce"))
    done = elsewhere.run("audit", "verify", "events", "--key", key)
    assert done.returncode == 1
    assert f"event {task}" in done.stdout
    again = ("audit", "verify", "--checkpoint", str(tmp_path / "checkpoints"))
    assert board.shell.json(*again)["anchored"]


def test_a_workflow_is_drawn_as_text_and_as_a_picture(board: UpBoard):
    task = board.shell.json("submit", "echo", "1", "--wait")["id"]
    text = board.shell.run("audit", "timeline", task).stdout
    assert "succeeded" in text
    assert "\u2588" in text
    (lane,) = board.shell.json("audit", "timeline", task)["lanes"]
    assert [bar["state"] for bar in lane["bars"]] == ["succeeded"]
    board.shell.run("audit", "timeline", task, "--svg", "task.svg")
    assert (board.shell.folder / "task.svg").read_text().startswith("<svg")
    done = board.shell.run("audit", "timeline", "999999")
    assert done.returncode == 2
    assert "no task or workflow 999999" in done.stderr


def test_a_part_that_is_killed_is_started_again(board: UpBoard):
    os.kill(board.started["parts"]["router"], signal.SIGKILL)
    event = board.next_event()
    assert event["part"] == "router"
    assert "it starts again" in event["text"]
    assert board.shell.run("submit", "echo", "1", "--wait").stdout == "1\n"


def test_a_second_board_in_the_same_folder_is_refused(board: UpBoard):
    done = board.shell.run("up", "--port", "4999")
    assert done.returncode == 2
    assert "runs here already" in done.stderr


def test_a_taken_port_is_refused_with_what_to_do(board: UpBoard, tmp_path: Path):
    port = board.started["url"].rpartition(":")[2]
    done = Shell(folder=tmp_path).run("up", "--port", port)
    assert done.returncode == 2
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_board_that_is_told_to_stop_leaves_no_process_and_no_note(
    tmp_path: Path, number: signal.Signals
):
    (tmp_path / "my_agents.py").write_text(AGENTS)
    with running_board(tmp_path, "--agents", "my_agents.py", "--processes", "1") as running:
        assert (tmp_path / ".callboard" / "board.json").exists()
        assert running.end(number) == 0
        assert running.shell.processes() == []
        assert not (tmp_path / ".callboard" / "board.json").exists()


def test_a_second_interrupt_ends_what_still_runs_at_once(tmp_path: Path):
    (tmp_path / "my_agents.py").write_text(AGENTS)
    with running_board(tmp_path, "--agents", "my_agents.py", "--processes", "1") as running:
        task = running.shell.json("submit", "slow")["id"]
        while (state := running.shell.json("status", task)["state"]) != "running":
            assert state == "waiting"
        begun = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        wait_until_draining(running)
        assert running.end(signal.SIGINT) == 130
        assert time.monotonic() - begun < 20
        assert running.shell.processes() == []


def wait_until_draining(running: UpBoard) -> None:
    log = running.shell.folder / ".callboard" / "logs" / "agents.log"
    while "draining" not in log.read_text():
        assert running.process.poll() is None


def test_a_board_that_is_killed_takes_its_processes_with_it(tmp_path: Path):
    (tmp_path / "my_agents.py").write_text(AGENTS)
    with running_board(tmp_path, "--agents", "my_agents.py") as running:
        left = running.shell.processes()
        assert len(left) >= 4
        running.process.kill()
        _, alive = psutil.wait_procs(left, timeout=20)
        assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []
        # Its note is still there, and counts for nothing.
        assert running.shell.run("status").returncode == 3


def test_agents_that_cannot_be_loaded_stop_the_board_with_their_reason(tmp_path: Path):
    (tmp_path / "bad.py").write_text("import no_such_module\n")
    shell = Shell(folder=tmp_path)
    done = shell.run("up", "--port", str(free_port()), "--agents", "bad.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert "bad.py: cannot be imported" in done.stderr
    assert "Traceback" not in done.stderr
    assert shell.processes() == []
