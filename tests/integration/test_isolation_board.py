"""Agents in child processes on a whole board: what they can do, and what becomes of bad ones."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callboard import Board, TaskCancelled, TaskFailed, connect
from callboard.cli.asking import ask_status
from callboard_agents.sandbox import available
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Outcome, decode_event
from callboard_ledger.views import TaskView
from tests.board import Processes, read_journal, started_processes
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
        number = r"([\d.]+)"
        for capability, payload, words, least, most in (
            ("iso.memory", None, f"MemoryExceeded: .* 64 MiB .*its peak was {number} MiB", 32, 96),
            ("iso.spin", None, f"CpuExceeded: {number} s of CPU, of 1 that are granted", 0.8, 3),
            ("iso.disk", 20, f"DiskExceeded: {number} MiB in one file, of 8 that are", 7.9, 8),
            ("iso.fork", None, f"ProcessesExceeded: {number} process, of 1 that is granted", 1, 1),
            ("iso.output", 10, f"OutputExceeded: the result has {number} MiB, of 4", 10, 10.1),
            ("iso.files", None, f"FilesExceeded: {number} open files, of 64 that are", 64, 64),
            ("iso.exit", 3, f"Crashed: it exited with {number}", 3, 3),
            ("iso.deaf", None, f"TimedOut: it ran {number} s, of 0.5 that are granted", 0.5, 30),
        ):
            said = await failure(board, capability, payload)
            found = re.search(words, said)
            assert found is not None, said
            assert least <= float(found[1]) <= most, said
        assert await (await board.submit("iso.sum", {"a": 2, "b": 3})).result(30) == 5
        assert processes.pid("host") == pid
        os.kill(pid, 0)
        assert "Traceback" not in processes.log("host")


async def test_an_outcome_says_what_its_child_used_and_what_kept_it_apart(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path) as (board, _):
        worked = await board.submit("iso.work", {"mb": 40, "cpu_s": 0.2})
        assert await worked.result(30) == 40
        status = await ask_status(board, worked.id, board.options.tenant)
        broken = await board.submit("iso.exit", 3)
        assert await broken.wait() == "failed"
        of_broken = await ask_status(board, broken.id, board.options.tenant)
    layers = sorted(layer for layer, why in available().items() if not why)
    assert isinstance(status, TaskView)
    assert isinstance(of_broken, TaskView)
    assert status.layers == of_broken.layers == layers
    assert status.usage is not None
    assert 0.2 <= status.usage.cpu_s < 2
    assert of_broken.usage is not None
    assert of_broken.usage.wall_s > 0
    outcome, _ = [
        decode_event("outcome", record.data)
        for record in await read_journal(nats)
        if Subjects(nats.prefix).parse(record.subject).kind == "outcome"
    ]
    assert isinstance(outcome, Outcome)
    assert outcome.usage is not None
    assert 0.2 <= outcome.usage.cpu_s < 2
    assert 38 <= outcome.usage.memory_mb < 70
    assert 0.2 < outcome.usage.wall_s < 30
    assert outcome.layers == layers


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


async def test_a_child_runs_several_tasks_where_its_agent_and_its_tenant_allow_that(
    nats: NatsServer, tmp_path: Path
) -> None:
    policy = '{"strict": {"require": ["fresh"]}}'
    async with opened(nats, tmp_path, ISOLATION__TENANTS=policy) as (board, _):
        found = [await (await board.submit("iso.kept", n)).result(30) for n in range(10)]
        last = await board.submit("iso.kept", 10)
        assert await last.result(30) == [*range(11)]
        status = await ask_status(board, last.id, board.options.tenant)
        alone = [
            await (await board.submit("iso.kept", n, tenant="strict")).result(30) for n in range(3)
        ]
    assert found == [[*range(n + 1)] for n in range(10)]
    assert alone == [[0], [1], [2]]
    assert isinstance(status, TaskView)
    layers = {layer for layer, why in available().items() if not why}
    assert {*status.layers} == layers - {"fresh"}


async def test_a_layer_that_nobody_knows_is_refused_with_the_settings(
    nats: NatsServer, tmp_path: Path
) -> None:
    policy = '{"strict": {"require": ["moat"]}}'
    with started_processes(nats, tmp_path, ISOLATION__TENANTS=policy) as processes:
        processes.host("host", "isolated_agents.py")
        await processes.says("isolation.tenants.strict.require", "host")
