"""Placement on a whole board: mailboxes, stay-with, avoid, and what `explain` answers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callboard import Board, connect
from callboard_agents import Agent, Host, HostOptions, agent
from callboard_broker.connection import Connection, open_link
from callboard_broker.subjects import Subjects
from tests.board import read_journal, started_processes
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def running(nats: NatsServer, name: str, *agents: Agent[..., Any]) -> AsyncIterator[Host]:
    """A host in this process, ready to work; drained at the end."""
    host = Host(agents, HostOptions(url=nats.url, prefix=nats.prefix, name=name))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(host.run())
        try:
            async with asyncio.timeout(30):
                await host.ready()
            yield host
            host.drain()
            await task
        finally:
            task.cancel()


def reviewer(name: str, **said: Any) -> Agent[..., Any]:
    """An agent that says on which host it is, and fails on request there."""

    @agent("review", **said)
    async def review(payload: dict[str, Any]) -> str:
        if payload.get("fail_on") == name:
            raise RuntimeError(f"not on {name}")
        return name

    return review


@asynccontextmanager
async def board(nats: NatsServer, folder: Path) -> AsyncIterator[tuple[Board, Connection]]:
    """Two hosts that review, of which `sql-host` knows SQL."""
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(started_processes(nats, folder))
        processes.router("router")
        await processes.says("now leader", "router")
        plain = reviewer("plain-host", version="1.4", labels={"zone": "us"})
        sql = reviewer("sql-host", version="2.1", labels={"zone": "eu"}, specialization=["sql"])
        await stack.enter_async_context(running(nats, "plain-host", plain))
        await stack.enter_async_context(running(nats, "sql-host", sql))
        link = await stack.enter_async_context(open_link(nats.url, name="asker"))
        poster = await stack.enter_async_context(connect(nats.url, prefix=nats.prefix))
        yield poster, link
        assert "Traceback" not in processes.log("router"), processes.log("router")[-3000:]


async def explained(nats: NatsServer, link: Connection, task: str) -> dict[str, Any]:
    subject = Subjects(nats.prefix).ask("default", "explain")
    reply = await link.request(subject, json.dumps({"id": task}).encode(), timeout=5)
    found: dict[str, Any] = msgspec.json.decode(reply.data)
    return found


async def until(nats: NatsServer, link: Connection, task: str, kind: str, hosts: int) -> Any:
    """What the task waits for, once it is this and the router knows so many hosts."""
    async with asyncio.timeout(20):
        while True:
            found = await explained(nats, link, task)
            for wait in found.get("waits_for", ()):
                if wait["for"] == kind and len(wait.get("candidates", ())) == hosts:
                    return wait


async def test_requirements_lead_to_the_hosts_that_fit_and_the_decision_is_stored(
    nats: NatsServer, tmp_path: Path
):
    async with board(nats, tmp_path) as (poster, _link):
        asked = [
            ({"specialization": ["sql"]}, "sql-host"),
            ({"version": "<2"}, "plain-host"),
            ({"labels": {"zone": "eu"}}, "sql-host"),
            ({"avoid": ["sql-host"]}, "plain-host"),
            ({"stay_with": "plain-host"}, "plain-host"),
        ]
        for needs, host in asked * 4:
            handle = await poster.submit("review.python", {}, needs=needs)
            assert await handle.result(30) == host
        retried = await poster.submit(
            "review", {"fail_on": "sql-host"}, needs={"specialization": ["sql"]}
        )
        with pytest.raises(Exception, match="not on sql-host"):
            await retried.result(30)
        mail = [r for r in await read_journal(nats) if ".mailbox." in r.subject]
        boxes = Counter(record.subject.rsplit(".", 1)[1] for record in mail)
        assert boxes == {"sql-host": 9, "plain-host": 12}
        why = json.loads(mail[0].data)["why"]
        assert why["host"] == why["candidates"][0]["host"] == "sql-host"
        assert why["candidates"][1]["misfits"] == ["specialization: not in sql"]


async def test_a_retry_elsewhere_finds_the_other_host(nats: NatsServer, tmp_path: Path):
    async with board(nats, tmp_path) as (poster, _link):
        for first, other in (("sql-host", "plain-host"), ("plain-host", "sql-host")):
            handle = await poster.submit(
                "review",
                {"fail_on": first},
                retry={"attempts": 4, "delay": 0, "elsewhere": True},
            )
            assert await handle.result(30) == other


async def test_what_waits_says_for_what_and_goes_when_it_has_come(nats: NatsServer, tmp_path: Path):
    async with board(nats, tmp_path) as (poster, link):
        unfit = await poster.submit("review", {}, needs={"labels": {"zone": "asia"}})
        wait = await until(nats, link, unfit.id, "fit", hosts=2)
        assert {one["host"] for one in wait["candidates"]} == {"plain-host", "sql-host"}
        unserved = await poster.submit("translate", {})
        wait = await until(nats, link, unserved.id, "agents", hosts=0)
        assert wait["capability"] == "translate"
        asia = reviewer("asia-host", labels={"zone": "asia"})

        @agent("translate")
        async def translate() -> str:
            return "bonjour"

        async with running(nats, "asia-host", asia, translate):
            assert await unfit.result(30) == "asia-host"
            assert await unserved.result(30) == "bonjour"
