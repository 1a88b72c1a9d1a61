"""What a person does with a running board: cancel, pause, resume, approve, redrive, explain, ...

Every test runs the real command against a real `callboard up`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard import connect
from tests.commands import UpBoard, running_board

AGENTS = """
import asyncio
from pathlib import Path

from callboard import Context, agent

@agent("echo")
async def echo(value):
    with Path("calls").open("a") as calls:
        calls.write(f"{value}\\n")
    return value

@agent("slow", slots=4)
async def slow(value, ctx: Context):
    try:
        while True:
            await ctx.progress("begun")
            await asyncio.sleep(0.1)  # said again and again: who listens later hears it too
    except asyncio.CancelledError:
        Path(f"stopped-{value}").touch()
        raise

@agent("needs.file")
async def needs_file(value):
    if not Path(value["file"]).exists():
        raise LookupError(f"no {value['file']}")
    return value["file"]
"""

GATE = """
name: release
steps:
  build: {capability: echo, payload: built}
  ask: {gate: Ship it, after: [build]}
  pay: {signal: payment, prompt: Who pays}
  maybe: {capability: echo, payload: never, when: {value: {from: build}, equals: other}}
  ship: {capability: echo, payload: {by: {from: ask, path: approved}, paid: {from: pay}}}
output: {from: ship}
"""

BROKEN = """
name: broken
inputs: {file: missing}
steps:
  first: {capability: echo, payload: first-step}
  second:
    capability: needs.file
    payload: {file: {from: inputs, path: file}}
    after: [first]
  third: {capability: echo, payload: {got: {from: second}}}
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpBoard]:
    folder = tmp_path_factory.mktemp("board")
    (folder / "my_agents.py").write_text(AGENTS)
    (folder / "gate.yaml").write_text(GATE)
    (folder / "broken.yaml").write_text(BROKEN)
    with running_board(folder, "--agents", "my_agents.py", "--processes", "1") as running:
        yield running


def ended(board: UpBoard, task: str, tenant: str = "default") -> str:
    """The state in which it ends."""

    async def wait() -> str:
        async with asyncio.timeout(60), connect(board.started["url"], tenant=tenant) as client:
            return await (await client.handle(task)).wait()

    return asyncio.run(wait())


def said(board: UpBoard, *arguments: str) -> str:
    """What a command prints; it succeeds, without colours and complaints."""
    done = board.shell.run(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert "\x1b" not in done.stdout
    return done.stdout


def started(board: UpBoard, task: str, tenant: str = "default") -> None:
    """Its handler runs."""

    async def wait() -> None:
        async with asyncio.timeout(30), connect(board.started["url"], tenant=tenant) as client:
            async for update in await client.handle(task):
                if update.progress == "begun":
                    return

    asyncio.run(wait())


def test_cancel_reaches_a_handler_that_runs(board: UpBoard):
    task = said(board, "submit", "slow", "1").strip()
    started(board, task)
    assert said(board, "cancel", task, "--reason", "wrong branch") == f"{task} to be cancelled\n"
    assert ended(board, task) == "cancelled"
    assert (board.shell.folder / "stopped-1").exists()
    status = board.shell.run("status", task)
    assert status.returncode == 1
    assert "wrong branch" in status.stdout


def test_what_is_over_or_never_was_cannot_be_cancelled(board: UpBoard):
    task = board.shell.json("submit", "echo", "1", "--wait")["id"]
    done = board.shell.run("cancel", task)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"callboard: cancel {task}: ")
    for arguments in (["cancel", "999999"], ["pause", "999999"], ["approve", "999999"]):
        done = board.shell.run(*arguments)
        assert done.returncode == 2
        assert "has no task or workflow 999999" in done.stderr
    assert "is no id such as 17" in board.shell.run("cancel", "x", "--tenant", "acme").stderr


def test_a_gate_waits_for_an_approval_and_a_signal(board: UpBoard):
    flow = said(board, "run", "gate.yaml", "--no-wait").strip()
    said(board, "signal", flow, "payment", '{"by": "acme"}')
    assert said(board, "approve", flow, "--reason", "green") == f"{flow} approved\n"
    assert ended(board, flow) == "succeeded"
    view = board.shell.json("status", flow)
    assert view["result"] == {"by": True, "paid": {"by": "acme"}}
    steps = {step["id"]: step for step in view["steps"]}
    assert steps["maybe"]["skipped"] == 1
    assert "skipped" in said(board, "status", flow)
    again = board.shell.run("approve", f"{flow}.ask.0")
    assert (again.returncode, again.stdout) == (2, "")


def test_status_lists_what_waits_for_somebody_and_how_to_say_it(board: UpBoard):
    flow = said(board, "run", "gate.yaml", "--no-wait").strip()
    asyncio.run(gate_is_open(board.started["url"], flow))
    shown = said(board, "status", flow)
    assert f"{flow}.ask.0 waits for approval: callboard approve {flow}.ask.0" in shown
    assert f"callboard signal {flow} payment JSON" in shown
    assert "(Ship it)" in shown
    why = said(board, "explain", f"{flow}.ask.0")
    assert f"callboard approve {flow}.ask.0" in why
    said(board, "approve", flow, "--reject", "--reason", "not on a Friday")
    said(board, "signal", flow, "payment")  # other branches go on to their end
    assert ended(board, flow) == "failed"
    assert "not on a Friday" in board.shell.run("status", flow).stdout


async def gate_is_open(url: str, flow: str) -> None:
    async with asyncio.timeout(30), connect(url) as client:
        async for update in await client.handle(flow):
            view = json.loads(await client.ask("status", {"id": flow, "fresh": True}))
            if f"{flow}.ask.0" in view.get("waits", {}) or update.task.endswith(".build.0"):
                return


def test_a_paused_task_waits_until_it_is_resumed(board: UpBoard):
    task = said(board, "submit", "echo", "5", "--delay", "3").strip()
    assert said(board, "pause", task) == f"{task} paused\n"
    assert "paused" in said(board, "status", task)
    assert "paused" in said(board, "explain", task)
    twice = board.shell.run("pause", task)
    assert (twice.returncode, "paused already" in twice.stderr) == (2, True)
    assert said(board, "resume", task) == f"{task} resumed\n"
    assert ended(board, task) == "succeeded"


def test_resume_runs_only_what_failed_and_what_depends_on_it(board: UpBoard):
    calls = board.shell.folder / "calls"
    failed = board.shell.run("run", "broken.yaml", "--json")
    assert failed.returncode == 1
    flow = json.loads(failed.stdout)["id"]
    assert said(board, "resume", flow, "--inputs", '{"file": "calls"}') == f"{flow} resumed\n"
    assert ended(board, flow) == "succeeded"
    assert board.shell.json("status", flow)["result"] == {"third": {"got": "calls"}}
    assert calls.read_text().count("first-step") == 1
    done = board.shell.run("resume", flow)
    assert done.returncode == 2


def test_a_dead_letter_is_listed_shown_edited_and_run_again(board: UpBoard):
    posted = board.shell.json("submit", "needs.file", '{"file": "no"}', "--retry", "2", "--wait")
    task = posted["id"]
    assert posted["error"]["type"] == "LookupError"
    assert task in said(board, "dead", "list", "--capability", "needs.file")
    assert task in said(board, "list", "--dead")
    shown = board.shell.json("dead", "show", task)
    assert shown["letter"]["payload"] == {"file": "no"}
    assert [attempt["attempt"] for attempt in shown["history"]["attempts"]] == [1, 2]
    assert "LookupError" in said(board, "dead", "show", task)
    assert said(board, "dead", "redrive", task, "--edit", '{"file": "calls"}').endswith("again\n")
    assert ended(board, task) == "succeeded"
    assert task not in board.shell.run("list", "--dead").stdout
    alive = board.shell.run("dead", "show", task)
    assert (alive.returncode, "is succeeded" in alive.stderr) == (2, True)
    assert board.shell.run("dead", "redrive", task).returncode == 2


def test_explain_says_what_a_task_waits_for_and_why_it_went_where_it_went(board: UpBoard):
    waiting = board.shell.run("submit", "nobody.does.this", "1", "--queue-timeout", "1h")
    task = waiting.stdout.strip()
    assert "nobody serves nobody.does.this" in said(board, "explain", task)
    router = board.shell.json("explain", task)["router"]
    assert [wait["for"] for wait in router["waits_for"]] == ["agents"]
    assert "no agent offers it" in said(board, "list", "--capability", "nobody.does.this")
    assert board.shell.json("status")["unserved"] == {"nobody.does.this": 1}
    picky = said(board, "submit", "echo", "1", "--need", "label=gpu:a100").strip()
    assert "gpu is not set, must be a100" in said(board, "explain", picky)
    done = board.shell.json("submit", "echo", "1", "--wait")["id"]
    told = board.shell.json("explain", done)
    assert (told["router"], told["task"]["state"]) == (None, "succeeded")
    assert told["task"]["why"]["reason"]
    assert "succeeded" in said(board, "explain", done)
    assert board.shell.run("explain", "999999").returncode == 2


def test_a_budget_is_changed_on_the_running_board(board: UpBoard):
    said(board, "budget", "set", "tenant/slim", "concurrency=1", "rate=120/m", "units.tokens=10/60")
    limit = board.shell.json("budget", "show", "tenant/slim")["limits"]["tenant/slim"]
    assert (limit["concurrency"], limit["rate"]) == (1, 2)
    assert limit["units"] == {"tokens": {"limit": 10, "per": 60}}
    said(board, "budget", "set", "tenant/slim", "rate=none", "waiting=2")
    limit = board.shell.json("budget", "show")["limits"]["tenant/slim"]
    assert limit.get("rate") is None
    assert limit["waiting"] == 2
    tasks = [said(board, "submit", "slow", "9", "-t", "slim", "--unit", "tokens=1").strip()]
    started(board, tasks[0], "slim")
    (budget,) = board.shell.json("budget", "used", "tenant/slim")["items"]
    assert (budget["in_use"], budget["reserved"]) == (1, {"tokens": 1})
    assert "tokens 1" in board.shell.run("budget", "used").stdout
    held = json.loads(said(board, "agents", "held", "-t", "slim", "--json"))
    assert (held["task"], held["capability"]) == (tasks[0], "slow")
    assert tasks[0] in said(board, "agents", "held")
    tasks += [said(board, "submit", "slow", str(n), "--tenant", "slim").strip() for n in (1, 2)]
    assert "budget tenant/slim is used up: 1 of 1 run" in said(board, "explain", tasks[1])
    refused = board.shell.run("submit", "slow", "3", "--tenant", "slim", "--wait")
    assert refused.returncode == 1
    assert "Overloaded" in refused.stderr
    said(board, "cancel", *tasks)
    assert {ended(board, task, "slim") for task in tasks} == {"cancelled"}
    assert "nothing is held" in board.shell.run("agents", "held", "-t", "slim").stderr
    held = json.loads(said(board, "agents", "held", "--all", "-t", "slim", "--json"))
    assert (held["ending"], held["end_seq"] > held["seq"]) == ("failed", True)
    said(board, "budget", "set", "tenant/slim", "--unset")
    assert "tenant/slim" not in board.shell.json("budget", "show")["limits"]


def test_a_schedule_is_listed_shown_paused_and_ended(board: UpBoard):
    task = said(board, "submit", "echo", "1", "--cron", "0 6 * * 1-5", "--zone", "Asia/Tokyo")
    task = task.strip()
    assert "echo at 0 6 * * 1-5" in said(board, "list", "--kind", "schedule")
    assert "0 6 * * 1-5 (Asia/Tokyo)" in said(board, "status", task)
    said(board, "pause", task)
    said(board, "resume", task)
    said(board, "cancel", task)
    assert ended(board, task) == "cancelled"


def test_a_workflow_expires_as_a_whole(board: UpBoard, tmp_path: Path):
    file = tmp_path / "waits.yaml"
    file.write_text("name: waits\nsteps: {ask: {gate: Go on}}\n")
    done = board.shell.run("run", str(file), "--timeout", "1s")
    assert done.returncode == 1
    flow = board.shell.json("list", "--kind", "flow", "--limit", "1")
    assert flow["state"] == "expired"


def test_stats_and_failures_tell_what_ran_and_what_failed_alike(board: UpBoard) -> None:
    for number in range(3):
        board.shell.run("submit", "needs.file", json.dumps({"file": f"f{number}"}), "--wait")
    board.shell.run("submit", "echo", '"counted"', "--wait")
    stats = board.shell.json("stats", "--by", "agent", "--by", "capability", "--since", "1h")
    rows = {row["capability"]: row for row in stats["items"]}
    assert rows["echo"]["agent"] == "echo"
    assert rows["echo"]["success_rate"] == 1
    assert rows["echo"]["run"]["p99"] < 60_000
    assert rows["needs.file"]["failed"] >= 3
    found = board.shell.json("failures", "--capability", "needs.file", "--example")
    kinds = [item for item in found["items"] if item["message"].startswith("no f")]
    assert kinds, found
    assert kinds[0]["type"] == "LookupError"
    assert found["histories"][kinds[0]["example"]]["attempts"][0]["state"] == "failed"
    plain = board.shell.run("failures", "--type", "LookupError").stdout
    assert "LookupError: no" in plain
    assert board.shell.run("failures", "--type", "Nothing").stderr.strip() == "nothing like that"


def test_what_is_followed_is_told_until_its_end(board: UpBoard) -> None:
    task = board.shell.json("submit", "echo", '"followed"', "--delay", "1")["id"]
    listed = board.shell.start("list", "--follow", "--json")
    assert listed.stdout is not None
    states = []
    for line in listed.stdout:
        row = json.loads(line)
        if row["id"] == task:
            states.append(row["state"])
        if states and states[-1] == "succeeded":
            break
    listed.terminate()
    listed.communicate(timeout=10)
    assert states[-1] == "succeeded"
    assert states.count("succeeded") == 1
    done = board.shell.run("status", task, "--follow", "--json")
    assert json.loads(done.stdout)["result"] == "followed"
