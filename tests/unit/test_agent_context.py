"""What a handler hears and says through its context."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from typing import Any

import pytest

from callboard_agents import Child, Context
from callboard_agents.context import HostSide
from callboard_agents.spawn import Spawn
from callboard_broker.errors import BadInput, TooLarge


def test_the_idempotency_key_is_the_same_for_every_attempt():
    first = Context(task="17", attempt=1, tenant="acme")
    second = Context(task="17", attempt=2, tenant="acme")
    assert first.idempotency_key == second.idempotency_key == "acme/17"


async def test_progress_is_told_at_once_and_may_be_awaited():
    told: list[bytes] = []
    context = Context(task="1", tell=told.append)
    context.progress({"done": 3})
    await context.progress("half")
    assert told == [b'{"done":3}', b'"half"']


def test_a_progress_that_cannot_be_told_names_what_is_wrong():
    context = Context(task="1")
    with pytest.raises(BadInput, match=r"progress\.done: nan"):
        context.progress({"done": math.nan})
    with pytest.raises(BadInput, match="object"):
        context.progress(object())
    with pytest.raises(TooLarge):
        context.progress("x" * 70_000)


def test_a_cancelled_handler_is_no_longer_heard():
    told: list[bytes] = []
    context = Context(task="1", tell=told.append)
    assert not context.cancelled
    context.cancel()
    assert context.cancelled
    context.progress(1)
    assert told == []


def test_log_records_carry_the_attempt(caplog: pytest.LogCaptureFixture):
    context = Context(task="17", attempt=2, tenant="acme", capability="review")
    with caplog.at_level(logging.INFO, logger="callboard.agent"):
        context.log.info("seen %d files", 3)
    record = caplog.records[0]
    assert record.getMessage() == "seen 3 files"
    assert vars(record)["task"] == "17"
    assert vars(record)["attempt"] == 2


def test_what_was_used_adds_up_from_any_thread():
    context = Context(task="1")
    assert context.used == {}

    def count() -> None:
        for _ in range(1_000):
            context.use(tokens=1, cost=0.5)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert context.used == {"tokens": 4_000, "cost": 2_000}


def test_a_wrong_use_names_the_unit_and_counts_nothing():
    context = Context(task="1")
    wrong: list[tuple[str, Any]] = [
        ("tokens", -1),
        ("tokens", math.nan),
        ("tokens", "3"),
        ("tokens", True),
        ("Tokens", 1),
    ]
    for unit, amount in wrong:
        with pytest.raises(BadInput, match=unit):
            context.use(**{"cost": 1, unit: amount})
    with pytest.raises(BadInput, match="at most 16"):
        context.use(**{f"unit{number}": 1 for number in range(17)})
    assert context.used == {}


def test_heartbeats_and_progress_are_signs_of_life():
    context = Context(task="1")
    before = time.monotonic()
    context.heartbeat()
    assert before <= context.heard_at <= time.monotonic()
    context.heard_at = 0.0
    context.progress(1)
    assert context.heard_at >= before


async def test_children_are_numbered_in_the_order_of_the_calls_or_named():
    asked: list[Spawn] = []

    async def spawn(spawn: Spawn) -> Child:
        asked.append(spawn)
        raise RuntimeError("posted")

    context = Context(
        task="7.plan.0",
        attempt=2,
        tenant="acme",
        secret="s",  # noqa: S106  a test's
        host=HostSide(spawn=spawn),
    )
    calls = [context.spawn("a"), context.spawn("b", key="mine"), context.spawn("c", {"x": 1})]
    for call in reversed(calls):
        with pytest.raises(RuntimeError, match="posted"):
            await call
    assert [(spawn.capability, spawn.key(0)) for spawn in asked] == [
        ("c", "7.plan.0/1"),
        ("b", "7.plan.0/key/mine"),
        ("a", "7.plan.0/0"),
    ]
    assert asked[2].key(2) == "7.plan.0/0/again/2"
    assert {spawn.parent.secret for spawn in asked} == {"s"}


async def test_the_key_of_a_child_with_a_long_name_still_fits():
    asked: list[Spawn] = []

    async def spawn(spawn: Spawn) -> Child:
        asked.append(spawn)
        raise RuntimeError("posted")

    context = Context(task="7." + "x" * 400, host=HostSide(spawn=spawn))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="posted"):
            await context.spawn("a")
    keys = {spawn.key(again) for spawn in asked for again in (0, 1)}
    assert len(keys) == 4
    assert max(len(key) for key in keys) <= 256


async def test_a_context_made_by_hand_can_neither_spawn_nor_wait():
    context = Context(task="1")
    with pytest.raises(RuntimeError, match="nobody posts for echo"):
        await context.spawn("echo")
    with pytest.raises(RuntimeError, match="use await"):
        context.wait(asyncio.sleep(0))


async def test_a_thread_waits_on_the_hosts_loop_until_it_is_cancelled():
    context = Context(task="1", host=HostSide(loop=asyncio.get_running_loop()))
    assert await asyncio.to_thread(context.wait, asyncio.sleep(0, "done")) == "done"
    waiting = asyncio.Event()

    async def wait_for_ever() -> None:
        waiting.set()
        await asyncio.Event().wait()

    def wait() -> str:
        try:
            context.wait(wait_for_ever())
        except asyncio.CancelledError:
            return "cancelled"
        return "returned"

    thread = asyncio.create_task(asyncio.to_thread(wait))
    await waiting.wait()
    context.cancel()
    assert await thread == "cancelled"
    assert await asyncio.to_thread(wait) == "cancelled"


async def test_a_thread_hears_what_the_coroutine_it_waits_for_raises():
    context = Context(task="1", host=HostSide(loop=asyncio.get_running_loop()))

    async def fail() -> None:
        raise KeyError("no")

    with pytest.raises(KeyError):
        await asyncio.to_thread(context.wait, fail())
