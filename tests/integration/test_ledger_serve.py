"""The ledger as its askers meet it: answers, isolation of tenants, bad questions, outages."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from callboard_broker.errors import BadInput, StoreLocked
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.wire import (
    Answered,
    BlobRef,
    Command,
    Cron,
    Dispatch,
    Failure,
    Fired,
    FlowRun,
    Gate,
    Lost,
    Merged,
    Post,
    Retrying,
    Settled,
    Step,
)
from callboard_ledger.serve import run_ledger
from callboard_ledger.trust import trust_of
from callboard_ledger.verify import verify_board
from tests.asked_board import opened, options_of, running
from tests.servers import NatsServer

_BLOB = BlobRef("b1", 100_000, "0" * 64)


async def test_a_task_is_told_with_its_result_and_on_demand_its_payload(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(options_of(nats, tmp_path)), opened(nats) as board:
        task = await board.run_task()
        answer = await board.status(task)
        assert answer["kind"] == "task"
        assert (answer["state"], answer["host"], answer["attempt"]) == ("succeeded", "host-1", 1)
        assert answer["result"] == {"ok": True}
        assert answer["posted_at"] <= answer["dispatched_at"] <= answer["ended_at"]
        assert "payload" not in answer
        assert (await board.status(task, payload=True))["payload"] == {"file": "a.py"}
        assert "result" not in await board.status(task, result=False)


async def test_what_is_long_is_told_as_a_reference(nats: NatsServer, tmp_path: Path) -> None:
    async with running(options_of(nats, tmp_path)), opened(nats) as board:
        task = str(await board.put(board.subjects.task("acme", "review"), Post(blob=_BLOB)))
        await board.dispatch(task)
        await board.outcome(task, blob=_BLOB)
        answer = await board.status(task, payload=True)
        assert answer["result_blob"] == answer["payload_blob"] == msgspec.to_builtins(_BLOB)
        assert "result" not in answer
        assert "payload" not in answer


async def test_a_workflow_is_told_with_its_steps_and_each_step_is_a_task(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(options_of(nats, tmp_path)), opened(nats) as board:
        steps = [
            Step(id="plan", capability="review"),
            Step(id="ok", gate=Gate(prompt="ship it?"), after=["plan"]),
            Step(id="report", capability="review", after=["ok"]),
        ]
        run = FlowRun("nightly", steps)
        flow = str(await board.put(board.subjects.flow("acme", "run"), run))
        step = f"{flow}.plan.0"
        await board.dispatch(step, payload=msgspec.Raw(b"[1,2]"))
        answer = await board.status(flow)
        assert (answer["kind"], answer["state"], answer["name"]) == ("flow", "running", "nightly")
        assert [(s["id"], s["state"], s["running"]) for s in answer["steps"]] == [
            ("plan", "running", 1),
            ("ok", "waiting", 0),
            ("report", "waiting", 0),
        ]
        assert [s["waits"] for s in answer["steps"]] == [None, "steps plan", "steps ok"]
        pending = await board.status(f"{flow}.ok.0")
        assert (pending["state"], pending["prompt"]) == ("waiting", "ship it?")
        assert (await board.status(f"{flow}.ok.1"))["error"]["type"] == "UnknownTask"
        await board.outcome(step, result=msgspec.Raw(b"3"))
        answer = await board.status(step, payload=True)
        assert (answer["payload"], answer["result"], answer["flow"]) == ([1, 2], 3, flow)
        assert (await board.status(flow))["waits"] == {f"{flow}.ok.0": "approval"}
        assert (await board.status(f"{flow}.ok.0"))["waits"] == "approval"
        approved = Settled(
            f"{flow}.ok.0", board.epoch, "succeeded", result=msgspec.Raw(b'{"approved":true}')
        )
        await board.put(board.subjects.run("acme", "settled", 3), approved)
        assert (await board.status(f"{flow}.ok.0"))["result"] == {"approved": True}
        settled = Settled(flow, board.epoch, "succeeded", result=msgspec.Raw(b"[3]"))
        await board.put(board.subjects.run("acme", "settled", 3), settled)
        answer = await board.status(flow, payload=True)
        assert (answer["state"], answer["result"], answer["payload"]) == ("succeeded", [3], {})


async def test_a_repeated_post_is_answered_with_the_task_that_it_repeats(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(options_of(nats, tmp_path)), opened(nats) as board:
        first, again = await board.run_task(), await board.post()
        merged = Merged(again, first, board.epoch)
        await board.put(board.subjects.run("acme", "merged", 3), merged)
        answer = await board.status(again)
        assert (answer["id"], answer["same_as"], answer["result"]) == (first, first, {"ok": True})


async def test_a_tenant_sees_its_own_rows_and_an_operator_sees_all(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(options_of(nats, tmp_path)), opened(nats) as board:
        mine, theirs = await board.run_task("acme"), await board.run_task("globex")
        assert (await board.status(theirs, "acme"))["error"]["type"] == "UnknownTask"
        assert (await board.status("404404", "acme"))["error"]["type"] == "UnknownTask"
        assert (await board.status(theirs, "all"))["state"] == "succeeded"
        listed = {
            tenant: [row["id"] for row in (await board.ask("list", {}, tenant))["items"]]
            for tenant in ("acme", "globex", "all")
        }
        assert listed == {"acme": [mine], "globex": [theirs], "all": [theirs, mine]}


async def test_a_list_is_filtered_and_paged(nats: NatsServer, tmp_path: Path) -> None:
    async with running(options_of(nats, tmp_path)), opened(nats) as board:
        done = [await board.run_task() for _ in range(5)]
        waiting = await board.post()
        answer = await board.ask("list", {"fresh": True, "limit": 3})
        assert [row["id"] for row in answer["items"]] == [waiting, done[4], done[3]]
        answer = await board.ask("list", {"before": done[3], "limit": 1000})
        assert [row["id"] for row in answer["items"]] == [done[2], done[1], done[0]]
        answer = await board.ask("list", {"state": "waiting", "kind": "task"})
        assert [row["id"] for row in answer["items"]] == [waiting]
        assert answer["position"] == int(waiting)


async def test_what_was_asked_of_a_task_and_how_it_went_is_told_from_the_journal(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(options_of(nats, tmp_path)), opened(nats) as board:
        task = await board.post()
        await board.dispatch(task, why={"reason": "least load"})
        error = Failure("Boom", "it broke", trace="Traceback ...")
        await board.outcome(task, error=error, used={"tokens": 3.0})
        run = board.subjects.run("acme", "retrying", 3)
        await board.put(run, Retrying(task, 1, board.epoch, 77))
        second = Dispatch(task, 2, "s2", board.epoch, 3, 0, 20.0)
        await board.put(board.subjects.dispatch("acme", "shared", "review"), second)
        await board.put(
            board.subjects.run("acme", "lost", 3), Lost(task, 2, board.epoch, "gone", "host-1")
        )
        failed = Settled(task, board.epoch, "failed", Failure("Lost", "too often"))
        await board.put(board.subjects.run("acme", "settled", 3), failed)
        command = Command(task, by="ann", payload=msgspec.Raw(b'{"file":"b.py"}'))
        redrive = str(await board.put(board.subjects.flow("acme", "redrive"), command))
        assert (await board.status(redrive))["state"] == "waiting"
        assert (await board.status(task))["state"] == "failed"
        assert [row["id"] for row in (await board.ask("list", {"dead": True}))["items"]] == [task]
        answered = Answered(redrive, board.epoch)
        await board.put(board.subjects.run("acme", "answered", 3), answered)
        answer = await board.status(redrive)
        assert (answer["kind"], answer["verb"], answer["state"]) == (
            "command",
            "redrive",
            "succeeded",
        )
        third = Dispatch(task, 3, "s3", board.epoch, 3, 0, 20.0, why={"reason": "again"})
        await board.put(board.subjects.dispatch("acme", "shared", "review"), third)
        answer = await board.status(task, payload=True, why=True)
        assert (answer["state"], answer["generation"], answer["attempt"]) == ("running", 1, 3)
        assert (answer["payload"], answer["why"]) == ({"file": "b.py"}, {"reason": "again"})
        assert answer["used"] == {"tokens": 3.0}
        assert (await board.ask("list", {"dead": True}))["items"] == []
        history = await board.ask("history", {"id": task, "fresh": True})
        first, lost, last = history["attempts"]
        assert (first["state"], first["host"], first["retry_at"]) == ("failed", "host-1", 77)
        assert first["error"]["trace"] == "Traceback ..."
        assert first["why"] == {"reason": "least load"}
        assert (lost["state"], lost["reason"]) == ("lost", "gone")
        assert last["state"] == "running"
        assert [(end["state"], end["error"]["type"]) for end in history["ends"]] == [
            ("failed", "Lost")
        ]
        asked = [(said["verb"], said["by"], said["state"]) for said in history["commands"]]
        assert asked == [("redrive", "ann", "succeeded")]
        assert history["complete"]
        elsewhere = await board.ask("history", {"id": task}, "globex")
        assert elsewhere["error"]["type"] == "UnknownTask"


async def test_a_resumed_workflow_is_told_with_its_edited_inputs(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats) as board:
        run = FlowRun(
            "nightly",
            [Step(id="plan", capability="review")],
            inputs=msgspec.Raw(b'{"a":1,"b":2}'),
        )
        async with running(options_of(nats, tmp_path)):
            flow = str(await board.put(board.subjects.flow("acme", "run"), run))
            await board.dispatch(f"{flow}.plan.0")
            await board.outcome(f"{flow}.plan.0", error=Failure("Boom", "it broke"))
            for name in (f"{flow}.plan.0", flow):
                failed = Settled(name, board.epoch, "failed", Failure("Boom", "it broke"))
                await board.put(board.subjects.run("acme", "settled", 3), failed)
            assert (await board.status(flow))["state"] == "failed"
        async with running(options_of(nats, tmp_path)):  # it is known after a restart, too
            command = Command(flow, payload=msgspec.Raw(b'{"b":3}'))
            resume = str(await board.put(board.subjects.flow("acme", "resume"), command))
            answered = Answered(resume, board.epoch)
            await board.put(board.subjects.run("acme", "answered", 3), answered)
            answer = await board.status(flow, payload=True)
            assert (answer["state"], answer["generation"]) == ("running", 1)
            assert answer["payload"] == {"a": 1, "b": 3}
            step = await board.status(f"{flow}.plan.0")
            assert (step["state"], step["attempt"], step["generation"]) == ("waiting", 1, 1)


async def test_a_schedule_is_told_with_its_times_and_its_tasks(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with running(options_of(nats, tmp_path)), opened(nats) as board:
        post = Post(payload=msgspec.Raw(b"5"), cron=Cron("0 3 * * *", "Europe/Berlin"))
        schedule = str(await board.put(board.subjects.task("acme", "review"), post))
        for number in (0, 1):
            fired = Fired(schedule, board.epoch, number, 99 + number)
            await board.put(board.subjects.run("acme", "fired", 3), fired)
        answer = await board.status(schedule, payload=True)
        assert (answer["kind"], answer["expression"]) == ("schedule", "0 3 * * *")
        assert (answer["number"], answer["next_at"], answer["payload"]) == (1, 100, 5)
        task = await board.status(answer["last"], payload=True)
        assert (task["schedule"], task["state"], task["payload"]) == (schedule, "waiting", 5)
        listed = await board.ask("list", {"kind": "schedule"})
        assert [row["id"] for row in listed["items"]] == [schedule]
        listed = await board.ask("list", {"flow": schedule, "capability": "review"})
        assert [row["id"] for row in listed["items"]] == [f"{schedule}.cron.1"]


async def test_a_fresh_answer_knows_everything_that_was_stored_before_the_question(
    nats: NatsServer, tmp_path: Path
) -> None:
    options = options_of(nats, tmp_path, flush_seconds=5, batch=100_000)
    async with running(options), opened(nats) as board:
        for _ in range(20):
            for _ in range(50):
                board.publisher.publish(board.subjects.task("acme", "review"), b"{}")
            task = await board.post()
            assert (await board.status(task))["state"] == "waiting"


@pytest.mark.parametrize(
    ("verb", "question", "field"),
    [
        ("status", b"", "id"),
        ("status", b"\xff\x00", "question"),
        ("status", b"[" * 50_000, "question"),
        ("status", b'{"id": 17}', "id"),
        ("status", b'{"id": "1", "frehs": true}', "frehs"),
        ("list", b'{"limit": 100000}', "limit"),
        ("list", b'{"state": "done"}', "state"),
        ("list", b'{"before": "\' OR 1=1 --"}', "before"),
    ],
)
async def test_a_bad_question_is_answered_with_the_field_that_is_wrong_and_stops_nothing(
    nats: NatsServer, tmp_path: Path, verb: str, question: bytes, field: str
) -> None:
    async with running(options_of(nats, tmp_path)), opened(nats) as board:
        answer = await board.ask(verb, question)
        assert answer["error"]["type"] == "BadInput"
        assert field in answer["error"]["field"] + answer["error"]["message"]
        assert (await board.status(await board.run_task()))["state"] == "succeeded"


async def test_rubbish_in_the_journal_stops_nothing(nats: NatsServer, tmp_path: Path) -> None:
    async with running(options_of(nats, tmp_path)), opened(nats) as board:
        prefix = board.subjects.prefix
        refused = str(await board.put(f"{prefix}.task.acme.review", b"\xff{"))
        for subject in ("task.ACME.x", "run.acme.outcome.9", "run.epoch", "flow.acme.run", "run.x"):
            await board.put(f"{prefix}.{subject}", b"[" * 1_000)
        await board.begin_epoch()  # an epoch that nobody can read ends the one before it, too
        assert (await board.status(await board.run_task()))["state"] == "succeeded"
        assert (await board.status(refused, payload=True))["error"]["type"] == "BadInput"
        assert (await board.position())["malformed"] == 6


async def test_everything_is_saved_and_audited_when_it_stops(
    nats: NatsServer, tmp_path: Path
) -> None:
    options = options_of(nats, tmp_path, flush_seconds=30, batch=100_000)
    async with opened(nats) as board:
        async with running(options):
            task = await board.run_task()
            assert (await board.status(task))["state"] == "succeeded"
        trust = trust_of(options.store)
        report = await verify_board(board.link, Topology(board.subjects), trust)
        assert (report.ok, report.anchored, report.unaudited_tail) == (True, True, 0)
        async with running(options):
            position = await board.position()
            assert position["position"] == position["last"] == position["audited"] == 4
            assert (await board.status(task))["result"] == {"ok": True}


async def test_a_killed_server_costs_no_event_and_no_answer_afterwards(
    nats: NatsServer, tmp_path: Path
) -> None:
    options = options_of(nats, tmp_path)
    async with running(options), opened(nats) as board:
        for _ in range(3):
            before = await board.run_task()
            restored = asyncio.Event()
            forget = board.link.at_restore(restored.set)
            nats.kill()
            nats.restart()
            await restored.wait()
            forget()
            after = await board.run_task()
            assert (await board.status(before))["state"] == "succeeded"
            assert (await board.status(after))["state"] == "succeeded"
        last = (await board.position())["last"]
        await board.position(audited=last)
        report = await verify_board(board.link, Topology(board.subjects))
        assert report.ok
        assert report.audited == last


async def test_two_ledgers_share_a_board_but_not_a_directory(
    nats: NatsServer, tmp_path: Path
) -> None:
    first = options_of(nats, tmp_path / "a", flush_seconds=0.002, batch=3)
    second = options_of(nats, tmp_path / "b", flush_seconds=0.003, batch=5)
    async with running(first), running(second), opened(nats) as board:
        with pytest.raises(StoreLocked):
            await run_ledger(first, stop=asyncio.Event())
        for _ in range(100):
            await board.run_task()
        await board.position(audited=301)
        report = await verify_board(board.link, Topology(board.subjects))
        assert report.ok
        assert report.audited == 301


async def test_an_audit_log_that_refused_writes_for_long_covers_every_event_afterwards(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_ledger.audit._MOST_WAITING", 40)
    async with opened(nats) as board, running(options_of(nats, tmp_path)):
        topology = Topology(board.subjects)
        info = await board.link.api(f"STREAM.INFO.{topology.audit}")
        verb = f"STREAM.UPDATE.{topology.audit}"
        await board.link.api(verb, info["config"] | {"max_msg_size": 10})
        for _ in range(50):
            task = await board.run_task()
        assert (await board.status(task))["state"] == "succeeded"
        assert (await board.position())["audited"] < 100
        await board.link.api(verb, info["config"])
        await board.run_task()
        await board.position(audited=154)
        report = await verify_board(board.link, topology)
        assert report.ok
        assert report.audited == 154


async def test_an_audit_log_that_was_replaced_while_it_ran_is_not_extended(
    nats: NatsServer, tmp_path: Path
) -> None:
    options = options_of(nats, tmp_path)
    async with opened(nats) as board:
        topology = Topology(board.subjects)
        async with running(options):
            await board.run_task()
            await board.position(audited=4)
            await board.link.api(f"STREAM.DELETE.{topology.audit}")
            await ensure_streams(board.link, topology)
            task = await board.run_task()
            assert "was cut" in (await board.position(problem=True))["audit_problem"]
            assert (await board.status(task))["state"] == "succeeded"
        async with running(options):
            problem = (await board.position(problem=True))["audit_problem"]
            assert "move" in problem
        trust = trust_of(options.store)
        for name in ("audit.key", "checkpoints", "audit-journal"):
            assert str(options.store / name) in problem
            (options.store / name).rename(tmp_path / name)
        async with running(options):
            await board.position(audited=7)
        assert (await verify_board(board.link, topology, trust_of(options.store))).ok
        assert not (await verify_board(board.link, topology, trust)).ok


async def test_a_journal_that_was_replaced_is_folded_from_its_beginning(
    nats: NatsServer, tmp_path: Path
) -> None:
    options = options_of(nats, tmp_path)
    async with opened(nats) as board:
        async with running(options):
            task = await board.run_task()
            assert (await board.status(task))["state"] == "succeeded"
        topology = Topology(board.subjects)
        await board.link.api(f"STREAM.DELETE.{topology.journal}")
        await ensure_streams(board.link, topology)
        await board.begin_epoch()
        await board.post("globex")
        async with running(options):
            assert (await board.status("2", "globex"))["state"] == "waiting"
            assert len((await board.ask("list", {}, "all"))["items"]) == 1
            problem = (await board.position(problem=True))["audit_problem"]
            assert "replaced" in problem


async def test_rows_are_built_anew_on_demand_unless_the_journal_has_lost_its_beginning(
    nats: NatsServer, tmp_path: Path
) -> None:
    options = options_of(nats, tmp_path)
    async with opened(nats) as board:
        async with running(options):
            task = await board.run_task()
            assert (await board.position(audited=4))["position"] == 4
        with closing(sqlite3.connect(options.store / "ledger.db")) as database:
            database.execute("UPDATE tasks SET state = 'failed'")
            database.commit()
        async with running(options):
            assert (await board.status(task))["state"] == "failed"
        again = replace(options, rebuild=True)
        async with running(again):
            assert (await board.status(task))["state"] == "succeeded"
            report = await verify_board(
                board.link, Topology(board.subjects), trust_of(options.store)
            )
            assert (report.ok, report.audited) == (True, 4)
        journal = Topology(board.subjects).journal
        await board.link.api(f"STREAM.PURGE.{journal}", {"seq": 3})
        with pytest.raises(BadInput, match="begins at 3"):
            await run_ledger(again)
        async with running(options):
            assert (await board.status(task))["state"] == "succeeded"
