"""A host on a whole board: the router dispatches to it, stops it, and fences what it spawns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callboard import Board, connect
from callboard_agents import Agent, Context, GiveUp, Host, HostOptions, agent
from callboard_broker.connection import NoResponder
from callboard_broker.errors import TaskCancelled, TaskFailed
from tests.board import read_journal, started_processes
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def running_host(
    nats: NatsServer, name: str, *agents: Agent[..., Any]
) -> AsyncIterator[Host]:
    """A host in this process, ready to work; drained at the end."""
    host = Host(agents, HostOptions(url=nats.url, prefix=nats.prefix, name=name))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(host.run())
        try:
            async with asyncio.timeout(30):
                await host.ready()
            yield host
            host.drain()
            await running
        finally:
            running.cancel()


@asynccontextmanager
async def whole_board(
    nats: NatsServer, folder: Path, *agents: Agent[..., Any]
) -> AsyncIterator[Board]:
    """A router and a ledger in processes of their own, and `the-host` here; its poster."""
    with started_processes(nats, folder) as processes:
        processes.router("router")
        processes.ledger()
        await processes.says("now leader", "router")
        async with (
            running_host(nats, "the-host", *agents),
            connect(nats.url, prefix=nats.prefix) as poster,
        ):
            await ledger_answers(poster)
            yield poster
        assert "Traceback" not in processes.log("router"), processes.log("router")[-3000:]


async def ledger_answers(poster: Board) -> None:
    """Return once it does: it is a process that may have begun after all others."""
    async with asyncio.timeout(30):
        while True:
            try:
                await poster.ask("position", {}, tenant="all")
            except NoResponder:
                await asyncio.sleep(0.05)  # nobody tells when a question will be heard
            else:
                return


async def hosts_known(nats: NatsServer) -> int:
    """How many hosts of its queue the router knew when it last chose the shared one."""
    dispatches = [r for r in await read_journal(nats) if ".dispatch." in r.subject]
    return msgspec.json.decode(dispatches[-1].data)["why"]["hosts"] if dispatches else 0


@agent("part")
async def part(value: Any, ctx: Context) -> Any:
    return {"value": value, "task": ctx.task}


async def test_a_second_attempt_finds_the_child_of_the_first_and_its_result(
    nats: NatsServer, tmp_path: Path
):
    children: list[str] = []

    @agent("whole")
    async def whole(ctx: Context) -> Any:
        child = await ctx.spawn("part", {"n": 1})
        result = await child.result()
        children.append(child.id)
        if ctx.attempt == 1:
            raise RuntimeError("once more")
        return result

    async with whole_board(nats, tmp_path, whole, part) as poster:
        handle = await poster.submit("whole", retry={"attempts": 2, "delay": 0})
        result = await handle.result(30)
        assert result["value"] == {"n": 1}
        assert children == [result["task"]] * 2


async def test_a_cancelled_task_stops_its_handler_and_its_children(
    nats: NatsServer, tmp_path: Path
):
    started, child_stopped, parent_stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @agent("child")
    async def child() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            child_stopped.set()

    @agent("parent")
    async def parent(ctx: Context) -> None:
        try:
            await (await ctx.spawn("child")).result()
        finally:
            parent_stopped.set()

    async with whole_board(nats, tmp_path, parent, child) as poster:
        handle = await poster.submit("parent")
        await started.wait()
        await handle.cancel("changed my mind")
        with pytest.raises(TaskCancelled):
            await handle.result(30)
        async with asyncio.timeout(10):
            await child_stopped.wait()
            await parent_stopped.wait()


async def test_giving_up_is_not_retried(nats: NatsServer, tmp_path: Path):
    attempts: list[int] = []

    @agent("hopeless")
    async def hopeless(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise GiveUp("the account is closed")

    async with whole_board(nats, tmp_path, hopeless) as poster:
        handle = await poster.submit("hopeless", retry={"attempts": 5, "delay": 0})
        with pytest.raises(TaskFailed, match="account is closed"):
            await handle.result(30)
        assert attempts == [1]


async def test_a_silent_handler_is_tried_again_after_its_heartbeat(
    nats: NatsServer, tmp_path: Path
):
    @agent("silent")
    async def silent(ctx: Context) -> int:
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        return ctx.attempt

    async with whole_board(nats, tmp_path, silent) as poster:
        handle = await poster.submit(
            "silent", timeouts={"heartbeat": 0.2}, retry={"attempts": 2, "delay": 0}
        )
        assert await handle.result(30) == 2


async def test_a_task_that_singles_an_agent_out_comes_by_its_hosts_mailbox(
    nats: NatsServer, tmp_path: Path
):
    @agent("review", labels={"region": "eu"}, version="1.4.0", specialization=["sql"])
    async def review(ctx: Context) -> str:
        return ctx.task

    @agent("review")
    async def another() -> str:
        return "not the one"

    needs = {"labels": {"region": "eu"}, "version": ">=1.4", "specialization": ["sql"]}
    async with (
        whole_board(nats, tmp_path, review) as poster,
        running_host(nats, "another-host", another),
    ):
        while await hosts_known(nats) < 2:
            await (await poster.submit("review")).result(30)
        for wanted in ({"stay_with": "the-host"}, needs):
            handle = await poster.submit("review", needs=wanted)
            assert await handle.result(30) == handle.id
        subjects = [record.subject for record in await read_journal(nats)]
        assert subjects.count(f"{nats.prefix}.run.default.mailbox.the-host") == 2


async def test_a_redriven_task_gets_the_edited_payload(nats: NatsServer, tmp_path: Path):
    @agent("picky")
    async def picky(value: int) -> int:
        return value

    async with whole_board(nats, tmp_path, picky) as poster:
        handle = await poster.submit("picky", "seven")
        with pytest.raises(TaskFailed):
            await handle.result(30)
        await poster.redrive(handle.id, 7)
        again = await poster.handle(handle.id)
        assert await again.result(30) == 7
