"""What a host makes of a dispatch: the outcome that is stored, the news, what a beat says."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest

from callboard_agents import Context, Host, agent
from callboard_broker.blobs import Blobs
from callboard_broker.errors import BadInput
from callboard_broker.wire import NULL, Outcome, encode
from tests.hosts import SECRET, open_stage
from tests.servers import NatsServer


class File(msgspec.Struct):
    path: str


@dataclass
class Source:
    files: list[File]


class Review(pydantic.BaseModel):
    verdict: str


@agent("echo")
async def echo(value: Any) -> Any:
    return value


@agent("review.python")
async def review(source: Source, ctx: Context) -> Review:
    await ctx.progress({"seen": len(source.files)})
    return Review(verdict=f"{source.files[0].path} for {ctx.idempotency_key}")


@agent("plain")
def plain(review: Review, ctx: Context) -> dict[str, str]:
    ctx.progress("in a thread")
    return {"verdict": review.verdict, "thread": threading.current_thread().name}


@agent("broken")
async def broken(what: str) -> Any:
    if what == "nan":
        return {"score": [1.0, math.nan]}
    if what == "object":
        return {"lock": threading.Lock()}
    if what == "exit":
        raise SystemExit(3)
    if what == "cancelled":
        raise asyncio.CancelledError
    raise KeyError(what)


@agent("broken.plain")
def broken_plain(what: str) -> None:
    raise SystemExit(what)


@agent("late", timeout=0.05)
async def late() -> None:
    await asyncio.Event().wait()


async def failure(stage: Any, capability: str, payload: object) -> Any:
    return (await stage.outcome(await stage.dispatch(capability, payload))).error


async def test_a_typed_payload_becomes_a_typed_result(nats: NatsServer):
    async with open_stage(nats, "review.python", "plain") as stage, stage.host([review, plain]):
        first = await stage.dispatch("review.python", {"files": [{"path": "a.py"}]})
        assert await stage.result(first) == {"verdict": f"a.py for acme/{first.task}"}
        second = await stage.dispatch("plain", {"verdict": "good"})
        assert (await stage.result(second))["verdict"] == "good"
        assert (await stage.result(second))["thread"].startswith("plain-")
        news = [(item["task"], item.get("state"), item.get("progress")) for item in stage.news]
        assert (first.task, "running", None) in news
        assert (first.task, None, {"seen": 1}) in news
        assert (second.task, None, "in a thread") in news


async def test_an_outcome_says_whose_it_is_and_when_it_ran(nats: NatsServer):
    async with open_stage(nats, "echo") as stage, stage.host([echo]):
        before = stage.connection.server_now_ms()
        outcome = await stage.outcome(await stage.dispatch("echo", 1, attempt=4))
        assert (outcome.attempt, outcome.secret, outcome.host) == (4, SECRET, "host")
        assert before - 50 <= outcome.started_at <= outcome.ended_at
        assert outcome.ended_at <= stage.connection.server_now_ms() + 50


async def test_a_wrong_payload_is_a_failure_that_names_the_field(nats: NatsServer):
    async with open_stage(nats, "review.python", "plain") as stage, stage.host([review, plain]):
        error = await failure(stage, "review.python", {"files": [{"path": 3}]})
        assert (error.type, error.field) == ("BadInput", "files[0].path")
        error = await failure(stage, "plain", {"verdict": 3})
        assert (error.type, error.field) == ("BadInput", "verdict")


async def test_whatever_a_handler_raises_is_its_outcome_and_the_host_goes_on(nats: NatsServer):
    async with (
        open_stage(nats, "broken", "broken.plain", "echo") as stage,
        stage.host([broken, broken_plain, echo]),
    ):
        error = await failure(stage, "broken", "key")
        assert (error.type, error.message) == ("KeyError", "'key'")
        assert "in broken" in error.trace
        assert (await failure(stage, "broken", "exit")).type == "SystemExit"
        assert (await failure(stage, "broken", "cancelled")).type == "CancelledError"
        assert (await failure(stage, "broken.plain", "out")).type == "SystemExit"
        assert await stage.result(await stage.dispatch("echo", "still here")) == "still here"


async def test_a_result_that_json_cannot_hold_is_named(nats: NatsServer):
    async with open_stage(nats, "broken") as stage, stage.host([broken]):
        error = await failure(stage, "broken", "nan")
        assert (error.type, error.field) == ("BadResult", "result.score[1]")
        error = await failure(stage, "broken", "object")
        assert error.type == "BadResult"
        assert "lock" in error.message


async def test_a_handler_that_takes_too_long_has_timed_out(nats: NatsServer):
    async with open_stage(nats, "late") as stage, stage.host([late]):
        error = await failure(stage, "late", None)
        assert error.type == "TimedOut"
        assert error.message.endswith(" s, of 0.05 that are granted")
        assert 0.05 <= float(error.message.split()[2]) < 10
        shorter = await stage.dispatch("late", timeout=0.01)
        outcome = await stage.outcome(shorter)
        assert outcome.error is not None
        assert "of 0.01 that" in outcome.error.message


async def test_a_thread_that_ignores_its_timeout_is_reported_and_keeps_its_slot(nats: NatsServer):
    go = threading.Event()
    heard: list[bool] = []

    @agent("deaf", timeout=0.05, slots=1)
    def deaf(ctx: Context) -> str:
        go.wait(20)
        heard.append(ctx.cancelled)
        return "late"

    async with open_stage(nats, "deaf") as stage, stage.host([deaf]):
        first = await stage.dispatch("deaf", timeout=0.05)
        outcome = await stage.outcome(first)
        assert outcome.error is not None
        assert outcome.error.type == "TimedOut"
        await stage.beat(lambda beat: not beat.holds and beat.offers[0].free == 0)
        second = await stage.dispatch("deaf", timeout=20.0)
        go.set()
        assert await stage.result(second) == "late"
        assert heard == [True, False]
        assert [o.task for o in stage.outcomes] == [first.task, second.task]


async def test_a_thread_says_what_it_used_of_the_cpu(nats: NatsServer):
    @agent("compute")
    def compute(seconds: float, ctx: Context) -> str:
        begun = time.thread_time()
        while time.thread_time() - begun < seconds:
            sum(range(1_000))
        ctx.wait(asyncio.sleep(0.2))
        return "computed"

    async with open_stage(nats, "compute", "echo") as stage, stage.host([compute, echo]):
        computed = [await stage.dispatch("compute", seconds) for seconds in (0.1, 0.0)]
        first, second = [(await stage.outcome(each)).usage for each in computed]
        assert first is not None
        assert second is not None
        assert 0.1 <= first.cpu_s < 0.2
        assert second.cpu_s < 0.1
        assert min(first.wall_s - first.cpu_s, second.wall_s) > 0.1
        assert (await stage.outcome(await stage.dispatch("echo", 1))).usage is None


async def test_a_result_over_the_limit_becomes_a_blob(nats: NatsServer):
    async with open_stage(nats, "echo") as stage, stage.host([echo], blob_bytes=1_000):
        short = await stage.outcome(await stage.dispatch("echo", "x" * 998))
        assert short.blob is None
        long = await stage.outcome(await stage.dispatch("echo", "x" * 999))
        assert long.blob is not None
        assert isinstance(long.result, msgspec.UnsetType)
        stored = await Blobs(stage.connection, stage.topology).get(long.blob)
        assert msgspec.json.decode(stored) == "x" * 999


async def test_a_payload_may_stand_in_the_post_or_in_a_blob(nats: NatsServer):
    async with open_stage(nats, "echo", "plain") as stage, stage.host([echo, plain]):
        blob = await Blobs(stage.connection, stage.topology).put(b'{"verdict":"from a blob"}')
        first = await stage.dispatch("echo", msgspec.UNSET, blob=blob)
        assert await stage.result(first) == {"verdict": "from a blob"}
        body = encode({"payload": {"verdict": "from a post"}, "priority": 3})
        post = await stage.publisher.put(stage.subjects.task("acme", "plain"), body)
        second = await stage.dispatch("plain", msgspec.UNSET, post=post)
        assert (await stage.result(second))["verdict"] == "from a post"
        assert await stage.result(await stage.dispatch("echo", msgspec.UNSET)) is None
        gone = await stage.outcome(await stage.dispatch("echo", msgspec.UNSET, post=1_000_000))
        assert gone.error is not None
        assert gone.error.type == "LookupError"


async def test_a_host_takes_no_more_than_its_slots(nats: NatsServer):
    running = most = 0
    go = asyncio.Event()

    @agent("narrow", slots=3)
    async def narrow() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1

    async with open_stage(nats, "narrow") as stage, stage.host([narrow]):
        tasks = [await stage.dispatch("narrow") for _ in range(10)]
        beat = await stage.beat(lambda beat: len(beat.holds) == 3)
        assert [(offer.slots, offer.free) for offer in beat.offers] == [(3, 0)]
        go.set()
        for task in tasks:
            await stage.outcome(task)
        assert most == 3


async def test_a_beat_says_what_the_host_offers_and_uses(nats: NatsServer):
    async with open_stage(nats, "echo") as stage, stage.host([echo], slots_inline=7) as host:
        beat = await stage.beat(lambda beat: beat.memory_mb > 0)
        assert (beat.host, beat.pool, beat.incarnation) == ("host", "shared", host.incarnation)
        assert [(o.capability, o.slots, o.free) for o in beat.offers] == [("echo", 7, 7)]
        assert beat.pid > 0
        assert 0 < beat.cpus <= (os.cpu_count() or 1)
        assert beat.free_mb > 0
        assert beat.node


async def test_a_queue_that_is_made_only_after_the_first_beat_is_served(nats: NatsServer):
    async with open_stage(nats) as stage, asyncio.TaskGroup() as group:
        host = Host([echo], stage.options())
        group.create_task(host.run())
        await stage.beat(lambda beat: beat.offers[0].capability == "echo")
        await stage.queue("echo")
        assert await stage.result(await stage.dispatch("echo", 1)) == 1
        host.drain()


async def test_a_dispatch_that_cannot_be_read_is_passed_over(nats: NatsServer):
    async with open_stage(nats, "echo") as stage, stage.host([echo]):
        subject = stage.subjects.dispatch("acme", "shared", "echo")
        await stage.publisher.put(subject, b"{")
        await stage.publisher.put(subject, encode(Outcome("1", 1, SECRET, "h", 1, 1, NULL)))
        assert await stage.result(await stage.dispatch("echo", 1)) == 1


async def test_two_agents_of_one_capability_are_refused(nats: NatsServer):
    async with open_stage(nats) as stage:
        with pytest.raises(BadInput, match="echo"):
            Host([echo, echo], stage.options())
