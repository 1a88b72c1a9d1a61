"""What a user does with the client, against a whole board."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from callboard import (
    Board,
    CommandRefused,
    Retry,
    TaskCancelled,
    TaskExpired,
    TaskFailed,
    Update,
    Workflow,
    connect,
)
from tests.board import Processes, started_processes
from tests.servers import EVERY_SOURCE, NatsServer


@asynccontextmanager
async def opened(nats: NatsServer, folder: Path) -> AsyncIterator[tuple[Board, Processes]]:
    with started_processes(nats, folder) as processes:
        processes.router("router")
        processes.ledger()
        processes.host("host", "client_agents.py")
        await processes.says("is ready", "host")
        await processes.says("ready", "ledger")
        async with connect(nats.url, prefix=nats.prefix) as board:
            yield board, processes


async def test_updates_tell_of_the_start_the_progress_and_the_end(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        flag = tmp_path / "flag"
        handle = await board.submit("wait.for", {"file": str(flag)})
        seen: list[Update] = []
        async for update in handle:
            seen.append(update)
            if update.state == "running":
                flag.touch()
            if len(seen) == 1 and update.state == "waiting":
                continue
        assert seen[-1].state == "succeeded"
        talk = await board.submit("talk.slowly", {"steps": 3})
        assert await talk.result(20) == "told"
        again = [update.state async for update in talk]
        assert again == ["succeeded"]


async def test_one_key_gives_one_task_and_its_result_to_every_poster(
    nats: NatsServer, tmp_path: Path
):
    async with opened(nats, tmp_path) as (board, _):
        first = await board.submit("square", {"n": 5}, key="five")
        assert await first.result(20) == 25
        second = await board.submit("square", {"n": 6}, key="five")
        assert await second.result(20) == 25
        assert second.id == first.id
        other = await board.submit("square", {"n": 6}, key="five", tenant="acme")
        assert await other.result(20) == 36


async def test_what_is_too_long_for_a_message_goes_by_the_blob_store(
    nats: NatsServer, tmp_path: Path
):
    async with opened(nats, tmp_path) as (board, _):
        text = "y" * 5_000_000
        assert await (await board.submit("count.bytes", {"text": text})).result(30) == len(text)
        middle = "y" * 100_000  # by reference: above what the router keeps, below a blob
        assert await (await board.submit("count.bytes", {"text": middle})).result(30) == 100_000
        result = await (await board.submit("long.result", {"bytes": 3_000_000})).result(30)
        assert len(result) == 3_000_000


async def test_a_handle_of_an_earlier_task_is_found_by_its_id(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        task = (await board.submit("square", {"n": 7})).id
        async with connect(nats.url, prefix=nats.prefix) as elsewhere:
            handle = await elsewhere.handle(task)
            assert await handle.result(20) == 49


async def test_a_result_that_was_told_while_the_poster_was_cut_off_is_learnt_afterwards(
    nats: NatsServer, tmp_path: Path
):
    async with opened(nats, tmp_path) as (board, processes):
        flag = tmp_path / "flag"
        handle = await board.submit("wait.for", {"file": str(flag)})
        async with connect(nats.url, prefix=nats.prefix) as other:
            watched = await other.handle(handle.id)
            await board.connection.link.close()  # this poster hears nothing until it is rebuilt
            flag.touch()
            assert await watched.result(20) == str(flag)
        assert await handle.result(30) == str(flag)
        assert "Traceback" not in processes.log("host")


@pytest.mark.parametrize("nats", EVERY_SOURCE, indirect=True)
async def test_a_workflow_runs_without_a_barrier_and_its_data_arrive(
    nats: NatsServer, tmp_path: Path
):
    async with opened(nats, tmp_path) as (board, _):
        flow = Workflow("squares")
        listed = flow.step("listed", "list.numbers", {"upto": flow.inputs["upto"]})
        once = flow.step("once", "square", flow.item, each=listed)
        twice = flow.step("twice", "square", {"n": flow.item}, each=once)
        flow.step("sum", "add.up", {"numbers": twice})
        flow.returns({"sum": {"from": "sum"}, "first": once[0], "all": twice})
        run = await board.run(flow, {"upto": 5})
        assert await run.result(30) == {"sum": 354, "first": 0, "all": [0, 1, 16, 81, 256]}


async def test_a_failed_step_ends_the_workflow_after_its_siblings(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        flow = Workflow("unlucky")
        listed = flow.step("listed", "list.numbers", {"upto": 15})
        squares = flow.step("squares", "square", flow.item, each=listed)
        flow.step("sum", "add.up", {"numbers": squares})
        run = await board.run(flow)
        updates = [update async for update in run]
        ended = [u for u in updates if u.task.startswith(f"{run.id}.squares.") and u.state]
        assert sum(u.state == "succeeded" for u in ended) == 14
        with pytest.raises(TaskFailed, match="step squares: 13 is out of luck"):
            await run.result(20)
        empty = await board.run(flow.__class__.load(_written(tmp_path)))
        assert await empty.result(20) == {"sum": 0}


async def test_a_task_is_tried_again_as_often_as_its_post_says(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        handle = await board.submit("square", {"n": 13}, retry=Retry(attempts=3, delay=0.05))
        updates = [update async for update in handle]
        assert [each.retry_at is not None for each in updates].count(True) == 2
        with pytest.raises(TaskFailed, match="out of luck"):
            await handle.result()


async def test_a_cancelled_task_ends_and_its_handler_is_stopped(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        handle = await board.submit("wait.for", {"file": str(tmp_path / "never")})
        async for update in handle:
            if update.state == "running":
                await handle.cancel("enough")
        with pytest.raises(TaskCancelled, match="enough"):
            await handle.result(20)
        await handle.cancel("again")  # it has ended: nothing to do
        with pytest.raises(CommandRefused):
            await board.cancel(handle.id)


async def test_a_redriven_task_has_a_handle_of_its_new_run(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        failed = await board.submit("square", {"n": 13})
        with pytest.raises(TaskFailed):
            await failed.result(20)
        await board.redrive(failed.id, {"n": 12})
        again = await board.handle(failed.id)
        assert await again.result(20) == 144
        assert failed.state == "failed"


async def test_a_workflow_waits_for_its_gates_and_can_be_resumed(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        flow = Workflow("asks", inputs={"n": 13})
        asked = flow.gate("ask", prompt="Really?")
        flow.step("square", "square", {"n": flow.inputs["n"]}, after=[asked])
        run = await board.run(flow)
        await board.approve(run.id, reason="why not")
        with pytest.raises(TaskFailed, match="out of luck"):
            await run.result(20)
        await board.resume(run.id, inputs={"n": 4})
        again = await board.handle(run.id)
        assert await again.result(20) == {"square": 16}
        rejected = await board.run(flow)
        await board.approve(rejected.id, approved=False)
        with pytest.raises(TaskFailed, match="Rejected"):
            await rejected.result(20)


async def test_a_workflow_gets_its_signal_also_if_it_comes_early(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        flow = Workflow("paid")
        listed = flow.step("listed", "list.numbers", {"upto": 1})
        paid = flow.signal("payment", after=[listed])
        flow.step("square", "square", {"n": paid["amount"]})
        run = await board.run(flow, timeout=60)
        await board.signal(run.id, "payment", {"amount": 5})
        assert await run.result(20) == {"square": 25}


async def test_a_paused_task_starts_only_when_it_is_resumed(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        handle = await board.submit("square", {"n": 3}, delay=0.5)
        await board.pause(handle.id)
        with pytest.raises(TimeoutError):
            await handle.result(1.0)
        await board.resume(handle.id)
        assert await handle.result(20) == 9


async def test_a_task_that_nobody_starts_in_time_expires(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        handle = await board.submit("nobody.does.this", 1, timeouts={"queue": 0.3})
        with pytest.raises(TaskExpired):
            await handle.result(20)


def _written(folder: Path) -> Path:
    path = folder / "empty.yaml"
    path.write_text(
        """
name: empty
inputs: {upto: 0}
steps:
  listed: {capability: list.numbers, payload: {upto: {from: inputs, path: upto}}}
  squares: {capability: square, each: listed, payload: {from: item}}
  sum: {capability: add.up, payload: {numbers: {from: squares}}}
"""
    )
    return path


async def test_who_follows_a_task_late_learns_that_it_runs(nats: NatsServer, tmp_path: Path):
    async with opened(nats, tmp_path) as (board, _):
        flag = tmp_path / "flag"
        handle = await board.submit("wait.for", {"file": str(flag)})
        async for update in await board.handle(handle.id):
            if update.state == "running":
                break
        async for update in handle:  # its host has said so, and does not say it again
            if update.state == "running":
                flag.touch()
        assert await handle.result(20) == str(flag)
