"""The life of a host: what it refuses, its beats, its lease, its drain, and outages."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from callboard_agents import agent
from callboard_broker import child
from callboard_broker.streams import ensure_streams
from tests.hosts import open_stage
from tests.servers import NatsServer


@agent("echo")
async def echo(value: Any) -> Any:
    return value


class Pipe:
    """A handler that reads the pipe waits for `write`, whichever of the two comes first."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._end = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def write(self) -> None:
        os.write(self._end, b"done\n")

    def close(self) -> None:
        os.close(self._end)


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[list[Pipe]]:
    opened = [Pipe(tmp_path / name) for name in ("first", "second")]
    yield opened
    for pipe in opened:
        pipe.close()


async def test_a_dispatch_past_its_start_by_is_never_started(nats: NatsServer):
    async with open_stage(nats, "echo") as stage, stage.host([echo]):
        late = stage.connection.server_now_ms() - 1_000
        refused = await stage.dispatch("echo", "late", start_by=late)
        await stage.result(await stage.dispatch("echo", "in time"))
        assert refused.task not in [outcome.task for outcome in stage.outcomes]


async def test_an_attempt_that_is_dispatched_twice_runs_once(nats: NatsServer):
    runs: list[str] = []

    @agent("count")
    async def count(value: str) -> None:
        runs.append(value)

    async with open_stage(nats, "count") as stage, stage.host([count]):
        first = await stage.dispatch("count", "a")
        await stage.outcome(first)
        await stage.dispatch("count", "a", task=first.task)
        await stage.dispatch("count", "b", task=first.task, attempt=2)
        await stage.outcome(await stage.dispatch("count", "c"))
        assert runs == ["a", "b", "c"]


async def test_a_dispatch_from_before_the_connection_starts_only_on_the_routers_word(
    nats: NatsServer,
):
    async with open_stage(nats, "echo") as stage:
        stage.word = {"go": False, "why": "it is held elsewhere"}
        old = await stage.dispatch("echo", "old")
        async with stage.host([echo]) as host:
            question = await stage.seen(lambda: stage.asked[0] if stage.asked else None)
            assert question["task"] == old.task
            assert question["secret"] == old.secret
            assert question["incarnation"] == host.incarnation
            await stage.result(await stage.dispatch("echo", "new"))
        assert old.task not in [outcome.task for outcome in stage.outcomes]


async def test_a_router_that_cannot_tell_yet_is_asked_again_until_it_says_go(nats: NatsServer):
    async with open_stage(nats, "echo") as stage:
        stage.word = {"wait": True}
        old = await stage.dispatch("echo", "old")
        async with stage.host([echo]):
            await stage.seen(lambda: stage.asked[1:] or None)
            stage.word = {"go": True}
            assert await stage.result(old) == "old"


async def test_a_blocked_handler_does_not_stop_the_beats(nats: NatsServer, pipes: list[Pipe]):
    async with open_stage(nats, "block") as stage, stage.process(lease_seconds=1.0):
        task = await stage.dispatch("block", pipes[0].path)
        await stage.held(task)
        already = len(stage.beats)
        await stage.seen(lambda: stage.beats[already + 20 :] or None)  # two leases long
        pipes[0].write()
        assert await stage.result(task) == "done"


async def test_sigterm_lets_running_handlers_finish_and_takes_no_more(
    nats: NatsServer, pipes: list[Pipe]
):
    first, second = pipes
    async with open_stage(nats, "wait", "thread") as stage, stage.process() as process:
        tasks = [await stage.dispatch("wait", first.path)]
        tasks.append(await stage.dispatch("thread", second.path))
        for task in tasks:
            await stage.held(task)
        await stage.seen(lambda: [item for item in stage.news if "progress" in item] or None)
        process.send_signal(signal.SIGTERM)
        await stage.beat(lambda beat: bool(beat.holds) and not any(o.free for o in beat.offers))
        refused = await stage.dispatch("wait", first.path)
        first.write()
        second.write()
        assert [await stage.result(task) for task in tasks] == ["done", "done"]
        last = await stage.beat(lambda beat: beat.gone)
        assert last.incarnation == stage.beats[0].incarnation
        assert await child.wait(process) == 0
        assert refused.task not in [item["task"] for item in stage.news]


async def test_what_does_not_finish_in_the_drain_is_left_unreported(nats: NatsServer):
    async with open_stage(nats, "forever") as stage, stage.process(drain_seconds=0.1) as process:
        task = await stage.dispatch("forever")
        await stage.held(task)
        process.send_signal(signal.SIGTERM)
        assert await child.wait(process) == 0
        assert (await stage.beat(lambda beat: beat.gone)).incarnation == stage.beats[0].incarnation
        assert stage.outcomes == []


async def test_a_thread_that_never_ends_does_not_hold_the_drained_process(
    nats: NatsServer, pipes: list[Pipe]
):
    async with open_stage(nats, "stubborn") as stage, stage.process(drain_seconds=0.1) as process:
        await stage.held(await stage.dispatch("stubborn", pipes[0].path))
        process.send_signal(signal.SIGTERM)
        assert await child.wait(process) == 0
        assert stage.outcomes == []
        # The handler may still have been at work when the last beat went out.
        assert not any(beat.gone for beat in stage.beats)


async def test_a_second_signal_ends_the_process_at_once(nats: NatsServer, pipes: list[Pipe]):
    async with open_stage(nats, "wait") as stage, stage.process() as process:
        await stage.held(await stage.dispatch("wait", pipes[0].path))
        process.send_signal(signal.SIGTERM)
        await stage.beat(lambda beat: bool(beat.holds) and not any(o.free for o in beat.offers))
        process.send_signal(signal.SIGTERM)
        assert await child.wait(process) == 130


async def test_a_host_that_slept_past_its_lease_reports_nothing_and_is_another_one(
    nats: NatsServer, pipes: list[Pipe]
):
    inline, thread = pipes
    queues = ("wait", "thread", "echo")
    async with open_stage(nats, *queues) as stage, stage.process(lease_seconds=1.0) as process:
        void = [await stage.dispatch("wait", inline.path)]
        void.append(await stage.dispatch("thread", thread.path))
        for task in void:
            await stage.held(task)
        await stage.seen(lambda: [item for item in stage.news if "progress" in item] or None)
        first = stage.beats[0].incarnation
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)  # the fault itself: longer than the lease
        inline.write()
        thread.write()
        process.send_signal(signal.SIGCONT)
        beat = await stage.beat(lambda beat: beat.incarnation != first)
        assert beat.incarnation == f"{first}.1"
        assert beat.holds == []
        assert await stage.result(await stage.dispatch("echo", "awake")) == "awake"
        assert [outcome.task for outcome in stage.outcomes] == [str(len(void) + 1)]


async def test_an_outcome_is_sent_again_until_a_restarted_server_has_stored_it(nats: NatsServer):
    go = asyncio.Event()

    @agent("wait")
    async def wait() -> str:
        await go.wait()
        return "after the outage"

    async with open_stage(nats, "wait") as stage, stage.host([wait], lease_seconds=30.0) as host:
        task = await stage.dispatch("wait")
        await stage.held(task)
        await asyncio.to_thread(nats.kill)
        go.set()
        await stage.seen(lambda: None if stage.connection.connected else True)
        await asyncio.to_thread(nats.embedded.start)
        await ensure_streams(stage.connection, stage.topology)
        assert await stage.result(task) == "after the outage"
        await stage.beat(lambda beat: not beat.holds)
        assert host.incarnation == stage.beats[0].incarnation


async def test_an_outage_longer_than_the_lease_stops_the_handlers_for_good(nats: NatsServer):
    stopped = asyncio.Event()

    @agent("wait")
    async def wait() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
        return "too late"

    async with (
        open_stage(nats, "wait", "echo") as stage,
        stage.host([wait, echo], lease_seconds=0.5) as host,
    ):
        await stage.held(await stage.dispatch("wait"))
        await asyncio.to_thread(nats.kill)
        await stopped.wait()
        assert host.incarnation == f"{stage.beats[0].incarnation}.1"
        await asyncio.to_thread(nats.embedded.start)
        await ensure_streams(stage.connection, stage.topology)
        await stage.beat(lambda beat: beat.incarnation == host.incarnation and not beat.holds)
        second = await stage.dispatch("echo", "after the outage")
        assert await stage.result(second) == "after the outage"
        assert [outcome.task for outcome in stage.outcomes] == [second.task]


async def test_refused_dispatches_give_their_slots_back_at_once(nats: NatsServer):
    async with open_stage(nats, "echo") as stage, stage.host([echo], beat_seconds=4.0):
        late = stage.connection.server_now_ms() - 1_000
        async with asyncio.timeout(3):  # less than a beat
            for _ in range(250):
                await stage.dispatch("echo", "late", start_by=late)
            await stage.result(await stage.dispatch("echo", "in time"))


async def test_a_host_that_cannot_beat_stops_working(nats: NatsServer):
    def broken(_slots: int) -> Any:
        raise RuntimeError("no offers")

    async def work_until_it_fails() -> None:
        async with open_stage(nats, "echo") as stage, stage.host([echo]) as host:
            host._lanes[0].offer = broken  # type: ignore[method-assign]  # a planted defect
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as raised:
        await work_until_it_fails()
    assert raised.group_contains(RuntimeError, match="no offers")
