"""Checkpoints of one host: stored in order, patiently, as signs of life, never without a lease."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from callboard_agents import Context, agent
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.wire import Checkpoint, decode_event, encode
from tests.hosts import SECRET, Stage, open_stage
from tests.servers import NatsServer


@agent("count")
async def count(steps: int, ctx: Context) -> Any:
    begun = ctx.restored
    for step in range(steps):
        await ctx.checkpoint({"step": step})
    return begun


@agent("count.plain")
def count_plain(steps: int, ctx: Context) -> Any:
    begun = ctx.restored
    for step in range(steps):
        ctx.wait(ctx.checkpoint({"step": step}))
    return begun


async def stored(stage: Stage) -> list[Checkpoint]:
    """The checkpoints that stand in the journal."""
    found: list[Checkpoint] = []

    def take(records: list[Record]) -> None:
        for record in records:
            if stage.subjects.parse(record.subject).kind == "checkpoint":
                event = decode_event("checkpoint", record.data)
                assert isinstance(event, Checkpoint)
                found.append(event)

    last = await stage.publisher.put(stage.subjects.run("acme", "answered", 9), b"{}")
    async with Reader(stage.connection, stage.topology.journal, start=1, callback=take) as reader:
        await reader.reached(last)
    return found


async def test_each_stands_in_the_journal_when_its_call_returns(nats: NatsServer):
    async with (
        open_stage(nats, "count", "count.plain") as stage,
        stage.host([count, count_plain]),
    ):
        for capability in ("count", "count.plain"):
            task = await stage.dispatch(capability, 3, attempt=2)
            assert await stage.result(task) is None
            found = [event for event in await stored(stage) if event.task == task.task]
            assert [(event.number, event.attempt, event.host) for event in found] == [
                (1, 2, "host"),
                (2, 2, "host"),
                (3, 2, "host"),
            ]
            assert {event.secret for event in found} == {SECRET}
            assert found[2].value == msgspec.Raw(b'{"step":2}')


async def test_an_attempt_begins_with_what_its_dispatch_carries_or_names(nats: NatsServer):
    async with open_stage(nats, "count") as stage, stage.host([count]):
        state = msgspec.Raw(b'{"at":7}')
        assert await stage.result(await stage.dispatch("count", 0, restored=state)) == {"at": 7}
        event = Checkpoint("900", 1, SECRET, "other", 1, state)
        seq = await stage.publisher.put(stage.subjects.run("acme", "checkpoint", 3), encode(event))
        task = await stage.dispatch("count", 0, task="900", attempt=2, restored_at=seq)
        assert await stage.result(task) == {"at": 7}
        foreign = await stage.dispatch("count", 0, task="901", restored_at=seq)
        error = (await stage.outcome(foreign)).error
        assert error is not None
        assert "no checkpoint of task 901" in error.message


async def test_a_long_one_is_a_blob_and_comes_back(nats: NatsServer):
    @agent("long")
    async def long(ctx: Context) -> int:
        if ctx.restored is None:
            await ctx.checkpoint("x" * 2_000_000)
        return len(ctx.restored or "")

    async with open_stage(nats, "long") as stage, stage.host([long]):
        first = await stage.dispatch("long")
        assert await stage.result(first) == 0
        (event,) = await stored(stage)
        assert event.blob is not None
        assert event.value is msgspec.UNSET
        seq = await stage.publisher.put(stage.subjects.run("acme", "checkpoint", 3), encode(event))
        again = await stage.dispatch("long", task=first.task, attempt=2, restored_at=seq)
        assert await stage.result(again) == 2_000_000


async def test_checkpoints_are_signs_of_life(nats: NatsServer):
    @agent("alive")
    async def alive(ctx: Context) -> str:
        for step in range(10):
            await asyncio.sleep(0.05)  # the work itself: longer in all than its heartbeat timeout
            await ctx.checkpoint(step)
        return "done"

    async with open_stage(nats, "alive") as stage, stage.host([alive]):
        assert await stage.result(await stage.dispatch("alive", heartbeat=0.4)) == "done"


async def test_one_waits_for_a_server_that_is_away(nats: NatsServer):
    asked, away = asyncio.Event(), asyncio.Event()

    @agent("patient")
    async def patient(ctx: Context) -> str:
        await ctx.checkpoint(1)
        asked.set()
        await away.wait()
        await ctx.checkpoint(2)
        return "stored"

    assert nats.own is not None
    async with open_stage(nats, "patient") as stage, stage.host([patient]):
        task = await stage.dispatch("patient")
        await asked.wait()
        await asyncio.to_thread(nats.own.kill)
        away.set()
        await asyncio.to_thread(nats.own.restart)
        assert await stage.result(task) == "stored"
        numbers = [event.number for event in await stored(stage)]
        assert sorted(set(numbers)) == [1, 2]


async def test_none_is_stored_without_a_lease(nats: NatsServer):
    late = asyncio.Event()
    errors: list[str] = []

    @agent("zombie")
    async def zombie(ctx: Context) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # the lease has ended
            try:
                await ctx.checkpoint("late")
            except RuntimeError as error:
                errors.append(type(error).__name__)
            late.set()

    async with open_stage(nats, "zombie") as stage:
        async with stage.host([zombie], lease_seconds=1.0) as host:
            task = await stage.dispatch("zombie")
            await stage.held(task)
            host.lease_ended(host.attempts.life)
            host.attempts.end_lease(float("inf"))
            async with asyncio.timeout(10):
                await late.wait()
        assert errors == ["LeaseEnded"]
        assert await stored(stage) == []
