"""Attempts that end before their time: cancelled by a request, or silent for too long."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from callboard_agents import Context, GiveUp, agent
from callboard_agents.attempts import Life
from callboard_agents.lane import Lane
from callboard_broker.wire import Dispatch, Failure
from tests.hosts import Stage, open_stage
from tests.servers import NatsServer


@agent("echo")
async def echo(value: Any) -> Any:
    return value


@agent("forever")
async def forever() -> None:
    await asyncio.Event().wait()


async def failure(stage: Stage, dispatch: Dispatch) -> Failure:
    error = (await stage.outcome(dispatch)).error
    assert error is not None
    return error


async def test_a_stop_request_cancels_a_coroutine_for_good(nats: NatsServer):
    async with open_stage(nats, "forever") as stage, stage.host([forever]):
        task = await stage.dispatch("forever")
        other = await stage.dispatch("forever")
        await stage.held(other)
        stage.stop(task, why="cancelled by ada: too dear")
        error = await failure(stage, task)
        assert (error.type, error.message) == ("Cancelled", "cancelled by ada: too dear")
        assert error.final
        await stage.beat(lambda beat: beat.holds == [(other.task, 1)])
        stage.stop(other)


async def test_a_handler_in_a_thread_sees_that_it_is_cancelled(nats: NatsServer):
    @agent("poll")
    def poll(ctx: Context) -> str:
        ctx.progress("begun")
        while not ctx.cancelled:
            threading.Event().wait(0.005)
        return "half of it"

    async with open_stage(nats, "poll") as stage, stage.host([poll]):
        task = await stage.dispatch("poll")
        await stage.seen(lambda: [item for item in stage.news if "progress" in item] or None)
        stage.stop(task)
        assert (await failure(stage, task)).type == "Cancelled"
        await stage.beat(lambda beat: not beat.holds and beat.offers[0].free == 8)


async def test_a_thread_that_waits_for_the_loop_is_woken_by_its_cancellation(nats: NatsServer):
    ended: list[str] = []

    @agent("waiter")
    def waiter(ctx: Context) -> None:
        ctx.progress("begun")
        try:
            ctx.wait(asyncio.sleep(60))
        except asyncio.CancelledError:
            ended.append(ctx.task)
            raise

    async with open_stage(nats, "waiter") as stage, stage.host([waiter]):
        task = await stage.dispatch("waiter")
        await stage.seen(lambda: [item for item in stage.news if "progress" in item] or None)
        stage.stop(task)
        assert (await failure(stage, task)).type == "Cancelled"
        assert ended == [task.task]


async def test_a_coroutine_that_ignores_its_cancellation_is_reported_and_keeps_its_slot(
    nats: NatsServer,
):
    go, refused = asyncio.Event(), asyncio.Event()
    refusals: list[str] = []

    @agent("deaf", slots=1)
    async def deaf() -> str:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                refusals.append("no")
                refused.set()
        return "late"

    async with open_stage(nats, "deaf", "forever") as stage, stage.host([deaf, forever]):
        first, other = await stage.dispatch("deaf"), await stage.dispatch("forever")
        await stage.held(first)
        await stage.held(other)
        stage.stop(first)
        await refused.wait()
        stage.stop(first, other)  # the router repeats it
        assert (await failure(stage, other)).type == "Cancelled"
        assert (await failure(stage, first)).type == "Cancelled"
        await stage.beat(lambda beat: not beat.holds and beat.offers[0].free == 0)
        second = await stage.dispatch("deaf")
        go.set()
        assert await stage.result(second) == "late"
        assert refusals == ["no"]
        assert [o.task for o in stage.outcomes] == [other.task, first.task, second.task]


async def test_a_thread_that_ignores_its_cancellation_is_reported_and_keeps_its_slot(
    nats: NatsServer,
):
    go = threading.Event()

    @agent("deaf", slots=1)
    def deaf() -> str:
        go.wait(20)
        return "late"

    async with open_stage(nats, "deaf") as stage, stage.host([deaf]):
        first = await stage.dispatch("deaf")
        await stage.held(first)
        stage.stop(first)
        assert (await failure(stage, first)).type == "Cancelled"
        await stage.beat(lambda beat: not beat.holds and beat.offers[0].free == 0)
        go.set()
        assert await stage.result(await stage.dispatch("deaf")) == "late"


async def test_a_stop_request_for_another_attempt_stops_nothing(nats: NatsServer):
    go = asyncio.Event()

    @agent("wait")
    async def wait() -> str:
        await go.wait()
        return "done"

    async with open_stage(nats, "wait", "forever") as stage, stage.host([wait, forever]):
        task = await stage.dispatch("wait", attempt=2)
        await stage.held(task)
        older = Dispatch(task.task, 1, "", 1, 3, 0, 20.0)
        stage.connection.send(stage.subjects.stop("shared"), b'{"stop": [["1"')
        stage.connection.send(stage.subjects.stop("shared"), b"\xff")
        stage.stop(older)
        last = await stage.dispatch("forever")
        await stage.held(last)
        stage.stop(last)
        assert (await failure(stage, last)).type == "Cancelled"  # so the others were read
        go.set()
        assert await stage.result(task) == "done"


async def test_an_attempt_that_is_stopped_before_its_first_step_gives_its_slot_back(
    nats: NatsServer,
):
    @agent("narrow", slots=1)
    async def narrow(value: str) -> str:
        return value

    async with open_stage(nats, "narrow") as stage, stage.host([narrow]) as host:
        running = host._running
        assert running is not None
        start = running.start

        def start_and_stop(lane: Lane, dispatch: Dispatch, tenant: str, life: Life) -> None:
            start(lane, dispatch, tenant, life)
            if dispatch.attempt == 1:
                running.cancel({(dispatch.task, 1)}, "in the same turn of the loop")

        running.start = start_and_stop  # type: ignore[method-assign]  # what one packet can do
        first = await stage.dispatch("narrow", "a")
        assert (await failure(stage, first)).message == "in the same turn of the loop"
        assert await stage.result(await stage.dispatch("narrow", "b", attempt=2)) == "b"


async def test_a_long_result_that_is_being_stored_is_no_longer_cancelled(nats: NatsServer):
    @agent("long")
    async def long(ctx: Context) -> str:
        await ctx.progress("nearly")
        return "x" * 3_000_000

    async with open_stage(nats, "long") as stage, stage.host([long]):
        task = await stage.dispatch("long")
        await stage.seen(lambda: [item for item in stage.news if "progress" in item] or None)
        stage.stop(task)
        outcome = await stage.outcome(task)
        assert outcome.blob is not None or (outcome.error or Failure("", "")).type == "Cancelled"


async def test_a_handler_that_gives_no_sign_of_life_has_missed_its_heartbeat(nats: NatsServer):
    async with open_stage(nats, "forever") as stage, stage.host([forever]):
        task = await stage.dispatch("forever", heartbeat=0.05)
        error = await failure(stage, task)
        assert error.type == "HeartbeatMissed"
        assert "0.05 s" in error.message
        assert not error.final


async def test_heartbeats_and_progress_keep_a_handler_alive(nats: NatsServer):
    @agent("slow")
    async def slow(sign: str, ctx: Context) -> str:
        for step in range(10):
            await asyncio.sleep(0.05)  # the work itself: longer in all than its heartbeat timeout
            if sign == "heartbeat":
                ctx.heartbeat()
            else:
                await ctx.progress(step)
        return "done"

    @agent("slow.thread")
    def slow_in_thread(ctx: Context) -> str:
        for _ in range(10):
            threading.Event().wait(0.05)
            ctx.heartbeat()
        return "done"

    async with (
        open_stage(nats, "slow", "slow.thread") as stage,
        stage.host([slow, slow_in_thread]),
    ):
        tasks = [
            await stage.dispatch("slow", "heartbeat", heartbeat=0.4),
            await stage.dispatch("slow", "progress", heartbeat=0.4),
            await stage.dispatch("slow.thread", heartbeat=0.4),
        ]
        assert [await stage.result(task) for task in tasks] == ["done"] * 3


async def test_what_an_attempt_has_used_is_reported_also_when_it_fails(nats: NatsServer):
    @agent("ask")
    async def ask(what: str, ctx: Context) -> None:
        ctx.settle(tokens=1000, cost=0.25)
        ctx.settle(tokens=500)
        if what == "fail":
            raise KeyError(what)
        if what == "wait":
            await asyncio.Event().wait()

    async with open_stage(nats, "ask", "echo") as stage, stage.host([ask, echo]):
        used = {"tokens": 1500, "cost": 0.25}
        assert (await stage.outcome(await stage.dispatch("ask", ""))).used == used
        assert (await stage.outcome(await stage.dispatch("ask", "fail"))).used == used
        task = await stage.dispatch("ask", "wait")
        await stage.held(task)
        stage.stop(task)
        assert (await stage.outcome(task)).used == used
        assert (await stage.outcome(await stage.dispatch("echo"))).used == {}


async def test_an_error_says_whether_another_attempt_could_help(nats: NatsServer):
    class Throttled(Exception):
        retry_after = 7

    @agent("broken")
    async def broken(what: str) -> None:
        if what == "give up":
            raise GiveUp("the account is closed")
        raise Throttled(what)

    async with open_stage(nats, "broken") as stage, stage.host([broken]):
        error = await failure(stage, await stage.dispatch("broken", "give up"))
        assert (error.type, error.message, error.final) == ("GiveUp", "the account is closed", True)
        error = await failure(stage, await stage.dispatch("broken", "slow down"))
        assert (error.type, error.final, error.retry_after) == ("Throttled", False, 7)
