"""A host starts no more than its share of CPU and memory allows, and says so in its beats."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from callboard_agents import agent
from tests.hosts import open_stage
from tests.scraping import free_endpoint, scrape
from tests.servers import NatsServer

running: Counter[str] = Counter()
most: Counter[str] = Counter()
together: dict[str, tuple[int, asyncio.Event]] = {}


def begin(**least: int) -> None:
    """Count anew. least: the first of a name stay until so many of it run at once."""
    running.clear()
    most.clear()
    together.clear()
    together.update({name: (count, asyncio.Event()) for name, count in least.items()})


async def stay(name: str) -> str:
    running[name] += 1
    most[name] = max(most[name], running[name])
    if name in together:
        count, reached = together[name]
        if running[name] >= count:
            reached.set()
        await reached.wait()
    await asyncio.sleep(0.02)
    running[name] -= 1
    return name


@agent("small", cpu=0.5)
async def small(_payload: object) -> str:
    return await stay("small")


@agent("narrow", memory_mb=4)  # nothing of the CPU: how busy that is would count as well
async def narrow(_payload: object) -> str:
    return await stay("narrow")


@agent("large", memory_mb=700, cpu=0.5)
async def large(_payload: object) -> str:
    return await stay("large")


@agent("free")
async def free(_payload: object) -> str:
    return await stay("free")


@agent("hold", cpu=2.0)
async def hold(_payload: object) -> None:
    await asyncio.Event().wait()


@agent("block")
async def block(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251  what it must not do


async def test_promises_hold_whatever_arrives_at_once(nats: NatsServer):
    begin(free=5)
    async with (
        open_stage(nats, "small", "large", "free") as stage,
        stage.host([small, large, free], cpus=2.0, memory_mb=1024.0),
    ):
        names = ["small", "large", "free"] * 30
        dispatches = [await stage.dispatch(name) for name in names]
        assert [await stage.result(each) for each in dispatches] == names
    assert most["large"] == 1
    assert most["small"] <= 4
    assert most["free"] > 4


async def test_what_the_mailbox_brings_waits_for_room_as_well(nats: NatsServer):
    begin(narrow=2)
    async with open_stage(nats, "narrow") as stage, stage.host([narrow], memory_mb=8.0):
        dispatches = [await stage.deliver("narrow") for _ in range(20)]
        assert {await stage.result(each) for each in dispatches} == {"narrow"}
    assert most["narrow"] == 2


async def test_beats_tell_what_is_promised_and_offer_only_what_is_left(nats: NatsServer):
    async with (
        open_stage(nats, "hold", "small") as stage,
        stage.host([hold, small], cpus=2.0, drain_seconds=0.0),
    ):
        await stage.beat(lambda beat: beat.offers[0].slots == 1 and beat.allocated_cpu == 0)
        await stage.dispatch("hold")
        beat = await stage.beat(lambda beat: beat.allocated_cpu == 2.0)
        assert {offer.capability: offer.free for offer in beat.offers} == {"hold": 0, "small": 0}


async def test_a_handler_that_blocks_the_loop_is_seen_in_the_beats(nats: NatsServer):
    async with open_stage(nats, "block") as stage, stage.host([block]):
        dispatch = await stage.dispatch("block", 0.8)
        beat = await stage.beat(lambda beat: beat.blocked > 0.3)
        assert beat.blocked < 5
        await stage.outcome(dispatch)
        seen = len(stage.beats)
        await stage.seen(lambda: any(b.blocked < 0.3 for b in stage.beats[seen:]) or None)


async def test_a_host_shows_its_metrics(nats: NatsServer):
    endpoint = free_endpoint()
    async with open_stage(nats, "free") as stage, stage.host([free], metrics=endpoint):
        assert await stage.result(await stage.dispatch("free")) == "free"
        found = await scrape(endpoint)
    assert found["callboard_agent_attempts_total", "free", "succeeded"] == 1
    assert found["callboard_agent_run_seconds_count", "free"] == 1
    assert found["callboard_host_slots", "free"] >= 1
    assert found["callboard_host_memory_bytes",] > 1e6
