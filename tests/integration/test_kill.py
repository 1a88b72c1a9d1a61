"""Every party is killed, or stopped past its lease, in the middle of 2,000 tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from callboard import Board, connect
from tests.board import Processes, check_history, read_journal, started_processes
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(180)

TASKS = 2000
BUDGET = 40
LEASE_SECONDS = 4
SETTINGS = {
    "BUDGETS__GLOBAL_CONCURRENCY": BUDGET,
    "LEASE__BEAT_SECONDS": 0.5,
    "LEASE__SUSPECT_SECONDS": 1.5,
    "LEASE__LEASE_SECONDS": LEASE_SECONDS,
    "LEASE__START_SECONDS": 2,
    "LEASE__LOST_LIMIT": 10,
}

Fault = Callable[[Processes, NatsServer], Awaitable[None]]


async def run_through(nats: NatsServer, folder: Path, fault: Fault) -> dict[str, Any]:
    """Post the tasks, let `fault` happen when a quarter is done, and check the history."""
    with started_processes(nats, folder, **SETTINGS) as board:
        board.router("router-a")
        board.router("router-b")
        board.ledger()
        for number in range(3):
            board.host(f"host-{number}")
        await active(board)
        for number in range(3):
            await board.says("is ready", f"host-{number}")
        async with connect(nats.url, prefix=nats.prefix) as poster:
            await _post_all(poster, lambda: fault(board, nats))
            found = check_history(await read_journal(nats), board.table)
        for name in ("router-a", "router-b", "ledger", "host-1", "host-2"):
            assert "Traceback" not in board.log(name), board.log(name)[-3000:]
    print(found)
    return found


async def _post_all(poster: Board, fault: Callable[[], Awaitable[None]]) -> None:
    numbers = iter(range(TASKS))
    results: dict[int, int] = {}
    quarter = asyncio.Event()

    async def post() -> None:
        for number in numbers:
            handle = await poster.submit("mark.work", {"n": number})
            results[number] = await handle.result(120)
            if len(results) >= TASKS // 4:
                quarter.set()

    async def disturb() -> None:
        await quarter.wait()
        await fault()

    async with asyncio.TaskGroup() as group:
        group.create_task(disturb())
        for _ in range(200):
            group.create_task(post())
    assert results == {number: number for number in range(TASKS)}


async def active(board: Processes) -> str:
    return await board.says("now leader", "router-a", "router-b")


async def test_a_router_that_is_killed_is_replaced_by_its_standby(nats: NatsServer, tmp_path: Path):
    async def fault(board: Processes, _nats: NatsServer) -> None:
        first = await active(board)
        other = {"router-a": "router-b", "router-b": "router-a"}[first]
        board.kill(first)
        await board.says("now leader", other)
        board.router(first)

    found = await run_through(nats, tmp_path, fault)
    assert found["epoch"] >= 2


async def test_a_router_that_sleeps_past_its_time_can_write_nothing_more(
    nats: NatsServer, tmp_path: Path
):
    async def fault(board: Processes, _nats: NatsServer) -> None:
        first = await active(board)
        other = {"router-a": "router-b", "router-b": "router-a"}[first]
        board.pause(first)
        await board.says("now leader", other)
        board.resume(first)
        await board.says("now follower", first)

    found = await run_through(nats, tmp_path, fault)
    assert found["epoch"] >= 2


async def test_the_work_of_a_killed_host_is_done_by_another(nats: NatsServer, tmp_path: Path):
    async def fault(board: Processes, _nats: NatsServer) -> None:
        board.kill("host-0")

    found = await run_through(nats, tmp_path, fault)
    assert found["lost"] >= 1
    assert found["starts"] > TASKS


async def test_a_host_that_sleeps_past_its_lease_reports_nothing(nats: NatsServer, tmp_path: Path):
    async def fault(board: Processes, _nats: NatsServer) -> None:
        board.pause("host-0")
        await asyncio.sleep(LEASE_SECONDS + 1)  # the fault itself: its lease has to run out
        board.resume("host-0")

    found = await run_through(nats, tmp_path, fault)
    assert found["lost"] >= 1


async def test_a_killed_server_comes_back_and_nothing_is_lost_or_run_twice(
    nats: NatsServer, tmp_path: Path
):
    async def fault(_board: Processes, nats: NatsServer) -> None:
        for _ in range(3):
            nats.kill()
            nats.restart()
            await asyncio.sleep(1.5)  # the fault itself: the next kill comes into the recovery

    found = await run_through(nats, tmp_path, fault)
    assert found["epoch"] >= 2


async def test_a_restarted_router_and_ledger_know_what_was_before(nats: NatsServer, tmp_path: Path):
    async def fault(board: Processes, _nats: NatsServer) -> None:
        for name in ("router-a", "router-b", "ledger"):
            board.kill(name)
        board.router("router-a")
        board.ledger()

    await run_through(nats, tmp_path, fault)
