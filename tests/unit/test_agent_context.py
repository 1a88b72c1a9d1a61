"""What a handler hears and says through its context."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from typing import Any

import msgspec
import pytest

from callboard_agents import Child, Context
from callboard_agents.context import HostSide
from callboard_agents.spawn import Spawn
from callboard_broker.errors import BadInput, TooLarge
from callboard_broker.wire import BlobRef, encode


def test_the_idempotency_key_is_the_same_for_every_attempt():
    first = Context(task="17", attempt=1, tenant="acme")
    second = Context(task="17", attempt=2, tenant="acme")
    assert first.idempotency_key == second.idempotency_key == "acme/17"


async def test_progress_is_told_at_once_and_may_be_awaited():
    told: list[tuple[str, bytes]] = []
    context = Context(task="1", tell=lambda *said: told.append(said))
    context.progress({"done": 3})
    await context.progress("half")
    await context.output(["a", "part"])
    assert told == [
        ("progress", b'{"done":3}'),
        ("progress", b'"half"'),
        ("output", b'["a","part"]'),
    ]


def test_a_progress_that_cannot_be_told_names_what_is_wrong():
    context = Context(task="1")
    with pytest.raises(BadInput, match=r"progress\.done: nan"):
        context.progress({"done": math.nan})
    with pytest.raises(BadInput, match="object"):
        context.progress(object())
    with pytest.raises(BadInput, match=r"output\.part: nan"):
        context.output({"part": math.nan})
    for say in (context.progress, context.output):
        with pytest.raises(TooLarge):
            say("x" * 70_000)


def test_a_cancelled_handler_is_no_longer_heard():
    told: list[str] = []
    context = Context(task="1", tell=lambda kind, _value: told.append(kind))
    assert not context.cancelled
    context.cancel()
    assert context.cancelled
    context.progress(1)
    context.output("x")
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
            context.settle(tokens=1, cost=0.5)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert context.used == {"tokens": 4_000, "cost": 2_000}


def test_a_wrong_amount_names_the_unit_and_counts_nothing():
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
            context.settle(**{"cost": 1, unit: amount})
    with pytest.raises(BadInput, match="at most 16"):
        context.settle(**{f"unit{number}": 1 for number in range(17)})
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


async def test_a_checkpoint_is_asked_for_and_is_a_sign_of_life():
    asked: list[tuple[str, bytes]] = []

    async def ask(kind: str, data: bytes) -> bytes:
        asked.append((kind, data))
        context.heard_at = 0.0
        return b"null"

    context = Context(task="1", ask=ask)
    state = {"done": [1]}
    leaving = context.checkpoint(state)
    state["done"].append(2)
    await leaving
    assert asked == [("checkpoint", b'{"done":[1]}')], "the state is that of the call"
    assert context.heard_at > 0
    with pytest.raises(BadInput, match=r"checkpoint\.at: inf"):
        context.checkpoint({"at": math.inf})
    with pytest.raises(TooLarge, match="checkpoint"):
        context.checkpoint("x" * (17 << 20))


async def test_a_context_made_by_hand_takes_checkpoints_and_has_what_it_is_given():
    context = Context(task="1", restored=b'{"done":[1]}')
    context.restored["done"].append(2)
    assert context.restored == {"done": [1]}
    await context.checkpoint({"done": [1, 2]})
    assert Context(task="1").restored is None
    with pytest.raises(RuntimeError, match="no host"):
        await context.blob.put(b"x")


async def test_a_blob_is_named_by_plain_json_and_bounded_when_it_is_read():
    stored: dict[str, bytes] = {}

    async def ask(kind: str, data: bytes) -> bytes:
        if kind == "blob_put":
            name = f"{len(data):064x}"
            stored[name] = data
            return encode(BlobRef(name, len(data), name))
        return stored[msgspec.json.decode(data)["name"]]

    context = Context(task="1", ask=ask)
    ref = await context.blob.put(memoryview(b"content"))
    assert await context.blob.get(ref) == b"content"
    plain = msgspec.to_builtins(ref)
    assert await context.blob.get(plain) == b"content"
    with pytest.raises(TooLarge, match="7 bytes; at most 6"):
        await context.blob.get(plain, max_bytes=6)
    wrong: list[Any] = [{"name": "x"}, plain | {"size": -1}, plain | {"more": 1}, "x", None]
    for value in wrong:
        with pytest.raises(BadInput, match="not a reference"):
            await context.blob.get(value)
    text: Any = "text"
    with pytest.raises(BadInput, match="a str is not bytes"):
        await context.blob.put(text)
