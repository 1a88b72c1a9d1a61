"""What the active router answers, what it fetches, and what it asks of hosts."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from callboard_broker.wire import (
    Entered,
    Failure,
    Limit,
    Outcome,
    Settled,
    decode_event,
    encode,
)
from callboard_router.engine import Engine
from callboard_router.fetching import Fetching
from callboard_router.values import Source
from tests.arrivals import Arrivals
from tests.room import Room, room
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(60)


async def ask(here: Room, tenant: str, verb: str, question: dict[str, Any]) -> Any:
    """Ask until a router answers: a standby does not."""
    subject = here.topology.subjects.ask(tenant, verb)
    async with asyncio.timeout(30):
        while True:
            try:
                reply = await here.connection.request(subject, encode(question), timeout=0.5)
            except (TimeoutError, LookupError):
                await asyncio.sleep(0.05)  # nobody tells when a router has begun to lead
                continue
            return msgspec.json.decode(reply.data)


async def test_why_a_task_waits_is_explained_to_its_tenant_only(nats: NatsServer):
    async with room(nats) as here, here.router("a"):
        task = str(await here.post())
        mine = await ask(here, "acme", "explain", {"id": task})
        assert mine["state"] == "waiting"
        theirs = await ask(here, "other", "explain", {"id": task})
        assert theirs["error"]["type"] == "UnknownTask"
        senseless = await ask(here, "acme", "explain", {"id": 7})
        assert senseless["error"]["type"] == "BadInput"


async def test_no_question_and_no_answer_is_too_long_for_the_router(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
):
    async with room(nats) as here, here.router("a"):
        task = str(await here.post())
        absurd = await ask(here, "acme", "explain", {"id": "9" * 1_048_500})
        assert absurd["error"]["type"] == "BadInput"
        long = {"state": "x" * 1_100_000}
        monkeypatch.setattr(Engine, "explain", lambda *_args: long)
        assert (await ask(here, "acme", "explain", {"id": task}))["error"]["type"] == "TooLarge"
        monkeypatch.undo()
        assert (await ask(here, "acme", "explain", {"id": task}))["state"] == "waiting"


async def test_a_change_of_budgets_is_answered_when_it_is_in_force(nats: NatsServer):
    async with room(nats) as here, here.router("a"):
        before = await ask(here, "all", "budget", {})
        assert before["limits"]["global"]["concurrency"] == 100
        wish = {"set": {"global": Limit(concurrency=3), "key/llm": Limit(rate=2.0)}, "by": "ops"}
        after = await ask(here, "all", "budget", wish)
        assert after["limits"]["global"]["concurrency"] == 3
        assert after["changed"]["key/llm"]["rate"] == 2.0
        back = await ask(here, "all", "budget", {"set": {"global": None}})
        assert back["limits"]["global"]["concurrency"] == 100
        for wrong in ({"set": {"nothing": None}}, {"set": {"global": {"concurrency": -1}}}):
            refused = await ask(here, "all", "budget", wrong)
            assert refused["error"]["type"] == "BadInput"


async def test_hosts_are_asked_to_stop_a_cancelled_attempt_until_it_ends(nats: NatsServer):
    heard: Arrivals[bytes] = Arrivals()
    ends: Arrivals[bytes] = Arrivals()
    async with room(nats) as here, here.router("a"):
        subjects = here.topology.subjects
        await here.connection.sink(
            subjects.stop("shared"), lambda _s, _r, _h, data: heard.add(data)
        )
        dispatched: Arrivals[bytes] = Arrivals()
        await here.connection.sink(
            subjects.dispatch("acme", "shared", "work"),
            lambda _s, _r, _h, data: dispatched.add(data),
        )
        await here.connection.sink(
            subjects.run("acme", "settled", 7), lambda _s, _r, _h, data: ends.add(data)
        )
        task = str(await here.post(b'{"shard":7}'))
        async with asyncio.timeout(30):
            while not dispatched.items:
                await here.be_host()
                await asyncio.sleep(0.2)
        event = decode_event("dispatch", dispatched.items[0])
        await here.put(subjects.flow("acme", "cancel"), encode({"id": task, "reason": "enough"}))
        await heard.count(2)
        asked = msgspec.json.decode(heard.items[-1])
        assert asked["stop"] == [[task, 1]]
        assert "enough" in asked["why"]
        cancelled = Outcome(
            task, 1, event.secret, "h", 0, 0, error=Failure("Cancelled", "stopped", final=True)
        )
        await here.put(subjects.run("acme", "outcome", 7), cancelled)
        await ends.count(1)
        assert msgspec.json.decode(ends.items[0])["state"] == "cancelled"


async def test_a_long_value_is_fetched_out_of_whatever_message_it_stands_in(nats: NatsServer):
    async with room(nats) as here:
        subjects = here.topology.subjects
        fetching = Fetching(here.connection, here.topology, here.blobs)
        value = "v" * 5000
        raw = msgspec.Raw(encode(value))
        blob = await here.blobs.put(encode(value))
        steps = [{"id": "a", "capability": "work"}]
        messages = {
            subjects.run("acme", "outcome", 0): Outcome("1", 1, "s", "h", 0, 0, result=raw),
            subjects.run("acme", "settled", 0): Settled("1", 1, "succeeded", result=raw),
            subjects.run("acme", "entered", 0): Entered("1", 1, inputs=raw),
            subjects.run("acme", "entered", 1): Entered("1", 1, blob=blob),
            subjects.task("acme", "work"): {"payload": value},
            subjects.flow("acme", "run"): {"name": "n", "steps": steps, "inputs": value},
            subjects.flow("acme", "signal"): {"id": "1", "name": "go", "payload": value},
        }
        for subject, message in messages.items():
            seq = await here.put(subject, message)
            assert await fetching.value(Source(seq)) == value
        assert await fetching.value(Source(1, blob=blob)) == value
        seq = await here.put(subjects.run("acme", "outcome", 0), Outcome("1", 1, "s", "h", 0, 0))
        with pytest.raises(LookupError, match="no value"):
            await fetching.value(Source(seq))


async def test_a_message_that_a_replica_does_not_have_yet_is_waited_for(nats: NatsServer):
    async with room(nats) as here:
        fetching = Fetching(here.connection, here.topology, here.blobs)
        early = asyncio.ensure_future(fetching.value(Source(1)))
        await asyncio.sleep(0)
        await here.post(b'{"payload":5}')
        assert await early == 5
