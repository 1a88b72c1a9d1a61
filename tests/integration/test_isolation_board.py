"""Agents in child processes on a whole board: what they can do, and what becomes of bad ones."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callboard import Board, TaskCancelled, TaskFailed, connect
from tests.board import Processes, started_processes
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(90)


@asynccontextmanager
async def opened(
    nats: NatsServer, folder: Path, **more: Any
) -> AsyncIterator[tuple[Board, Processes]]:
    with started_processes(nats, folder, **more) as processes:
        processes.router("router")
        processes.ledger()
        processes.host("host", "isolated_agents.py")
        await processes.says("is ready", "host")
        await processes.says("ready", "ledger")
        async with connect(nats.url, prefix=nats.prefix) as board:
            yield board, processes


async def failure(board: Board, capability: str, payload: Any = None) -> str:
    with pytest.raises(TaskFailed) as found:
        await (await board.submit(capability, payload)).result(30)
    return str(found.value)


async def test_a_child_works_talks_and_spawns_as_any_handler(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path) as (board, processes):
        first = await board.submit("iso.sum", {"a": 2, "b": 3})
        assert [update.state async for update in first][-1] == "succeeded"  # and news is heard now
        assert await first.result(30) == 5
        handle = await board.submit("iso.talk", {"sum": {"a": 40, "b": 2}})
        told = [update.progress async for update in handle if update.progress]
        assert await handle.result(30) == 42
        assert told == [{"at": 1}]
        assert (
            await (await board.submit("iso.plain.talk", {"x": 1})).result(30) == "no loop: True 1"
        )
        assert "a: Expected `int`" in await failure(board, "iso.sum", {"a": "2", "b": 3})
        assert (await failure(board, "iso.broken")).endswith("GiveUp: for good")
        assert "Traceback" not in processes.log("host")


async def test_each_limit_is_a_failure_of_its_own_and_the_host_lives(
    nats: NatsServer, tmp_path: Path
) -> None:
    more = {
        "AGENTS__CPU_SECONDS": 1,
        "AGENTS__DISK_MB": 8,
        "AGENTS__OUTPUT_MB": 4,
        "AGENTS__FILES": 64,
    }
    async with opened(nats, tmp_path, **more) as (board, processes):
        pid = processes.pid("host")
        for capability, payload, words in (
            ("iso.memory", None, "MemoryExceeded: more than the 64 MiB"),
            ("iso.spin", None, "s of CPU, of 1 that are granted"),
            ("iso.disk", 20, "DiskExceeded: more than the 8 MiB"),
            ("iso.fork", None, "ProcessesExceeded: more than the 1 processes"),
            ("iso.output", 10, "OutputExceeded: the result has 10.0 MiB, of 4"),
            ("iso.files", None, "FilesExceeded: more than the 64 open files"),
            ("iso.exit", 3, "Crashed: it exited with 3"),
            ("iso.deaf", None, "TimedOut: the handler ran for more than 0.5 s"),
        ):
            assert words in await failure(board, capability, payload), capability
        assert await (await board.submit("iso.sum", {"a": 2, "b": 3})).result(30) == 5
        assert processes.pid("host") == pid
        os.kill(pid, 0)
        assert "Traceback" not in processes.log("host")


async def test_no_task_finds_what_another_has_left(nats: NatsServer, tmp_path: Path) -> None:
    async with opened(nats, tmp_path) as (board, _):
        for _ in range(40):
            assert await (await board.submit("iso.left")).result(30) == []


async def test_a_cancelled_child_ends(nats: NatsServer, tmp_path: Path) -> None:
    async with opened(nats, tmp_path) as (board, _):
        handle = await board.submit("iso.wait")
        async for update in handle:
            if update.state == "running":
                await handle.cancel("enough")
        with pytest.raises(TaskCancelled, match="enough"):
            await handle.result(30)


async def test_a_tenant_may_be_kept_apart_also_where_the_agent_is_not(
    nats: NatsServer, tmp_path: Path
) -> None:
    policy = '{"mallory": {"isolation": "process"}}'
    async with opened(nats, tmp_path, ISOLATION__TENANTS=policy) as (board, processes):
        host = processes.pid("host")
        assert await (await board.submit("iso.where")).result(30) == host
        apart = await (await board.submit("iso.where", tenant="mallory")).result(30)
        assert apart != host


async def test_a_layer_that_nobody_knows_is_refused_with_the_settings(
    nats: NatsServer, tmp_path: Path
) -> None:
    policy = '{"strict": {"require": ["moat"]}}'
    with started_processes(nats, tmp_path, ISOLATION__TENANTS=policy) as processes:
        processes.host("host", "isolated_agents.py")
        await processes.says("isolation.tenants.strict.require", "host")
