"""Dispatches to one host's mailbox: as fenced as those of a queue, and in the same slots."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from callboard_agents import Context, agent
from callboard_broker.headers import raw_headers
from callboard_broker.wire import Command, encode
from tests.hosts import open_stage
from tests.servers import NatsServer


@agent("echo")
async def echo(value: Any) -> Any:
    return value


@agent("review")
async def review(ctx: Context) -> str:
    return ctx.capability


async def test_a_dispatch_to_the_mailbox_is_run_without_any_queue(nats: NatsServer):
    async with open_stage(nats, "echo", "review") as stage, stage.host([echo, review]):
        task = await stage.deliver("echo", "to you alone")
        assert await stage.result(task) == "to you alone"
        child = await stage.deliver("review.python")
        assert await stage.result(child) == "review.python"


async def test_a_mailbox_dispatch_that_is_delivered_twice_starts_once(nats: NatsServer):
    runs: list[str] = []

    @agent("count")
    async def count(value: str) -> None:
        runs.append(value)

    async with open_stage(nats, "count") as stage, stage.host([count]):
        first = await stage.deliver("count", "a")
        await stage.outcome(first)
        await stage.deliver("count", "a", task=first.task)
        await stage.dispatch("count", "a", task=first.task)
        await stage.deliver("count", "b", task=first.task, attempt=2)
        await stage.outcome(await stage.deliver("count", "c"))
        await stage.outcome(await stage.dispatch("count", "d"))
        assert sorted(runs) == ["a", "b", "c", "d"]


async def test_a_mailbox_dispatch_past_its_start_by_is_never_started(nats: NatsServer):
    async with open_stage(nats, "echo") as stage, stage.host([echo]):
        late = stage.connection.server_now_ms() - 1_000
        refused = await stage.deliver("echo", "late", start_by=late)
        await stage.result(await stage.deliver("echo", "in time"))
        assert refused.task not in [outcome.task for outcome in stage.outcomes]


async def test_what_is_not_for_this_host_is_dropped(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
):
    async with open_stage(nats, "echo") as stage, stage.host([echo]):
        box = stage.subjects.mailbox("acme", "host")
        await stage.deliver("echo", host="other")
        await stage.deliver("echo", pool="acme")
        await stage.deliver("translate")
        await stage.publisher.put(box, b"{")
        told = f"{stage.subjects.prefix}.told.acme.host"
        dispatch = await stage.deliver("echo", "the last")
        stray = encode(msgspec.structs.replace(dispatch, attempt=9))
        stage.connection.send(told, stray)
        elsewhere = {"Nats-Subject": f"{stage.subjects.prefix}.run.acme.lost.7"}
        headers = raw_headers({**elsewhere, "Nats-Sequence": "99999"})
        stage.connection.send(told, stray, headers=headers)
        await stage.result(await stage.deliver("echo", task=dispatch.task, attempt=2))
        assert await stage.result(dispatch) == "the last"
        assert [o.task for o in stage.outcomes] == [dispatch.task] * 2
    assert "does not serve 'translate'" in caplog.text
    assert "is no dispatch" in caplog.text
    assert "is from no journal" in caplog.text


async def test_queue_and_mailbox_together_take_no_more_than_the_slots(nats: NatsServer):
    running = most = 0
    go = asyncio.Event()

    @agent("narrow", slots=2)
    async def narrow() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1

    async with open_stage(nats, "narrow") as stage, stage.host([narrow]):
        tasks = []
        for _ in range(5):
            tasks.append(await stage.deliver("narrow"))
            tasks.append(await stage.dispatch("narrow"))
        await stage.beat(lambda beat: len(beat.holds) == 2)
        go.set()
        for task in tasks:
            await stage.outcome(task)
        assert most == 2


async def test_who_waits_for_a_slot_beyond_its_start_by_is_not_started(nats: NatsServer):
    go = asyncio.Event()

    @agent("narrow", slots=1)
    async def narrow() -> None:
        await go.wait()

    async with open_stage(nats, "narrow") as stage, stage.host([narrow]):
        first = await stage.deliver("narrow")
        await stage.held(first)
        start_by = stage.connection.server_now_ms() + 100
        late = await stage.deliver("narrow", start_by=start_by)
        last = await stage.deliver("narrow")
        await stage.seen(lambda: stage.connection.server_now_ms() > start_by + 50 or None)
        go.set()
        await stage.outcome(last)
        assert [outcome.task for outcome in stage.outcomes] == [first.task, last.task]
        assert late.task not in [item["task"] for item in stage.news]


async def test_the_payload_of_a_redrive_stands_in_its_command(nats: NatsServer):
    async with open_stage(nats, "echo") as stage, stage.host([echo]):
        edited = Command("1", payload=msgspec.Raw(b'{"edited": true}'))
        seq = await stage.publisher.put(stage.subjects.flow("acme", "redrive"), encode(edited))
        task = await stage.dispatch("echo", msgspec.UNSET, post=seq)
        assert await stage.result(task) == {"edited": True}
        empty = await stage.publisher.put(
            stage.subjects.flow("acme", "redrive"), encode(Command("1"))
        )
        outcome = await stage.outcome(await stage.dispatch("echo", msgspec.UNSET, post=empty))
        assert outcome.error is not None
        assert outcome.error.type == "LookupError"
