"""The yardstick: the same shape on nats-py and nothing else.

One journal; a router that reads everything and republishes each post as a dispatch, an agent with a
durable pull consumer, a ledger that reads everything, a poster that hears outcomes by the stream's
republish. Three stored messages a task, no state, no guarantees. nats-py is used as well as its
public API allows: standing overlapped pulls into a callback, numbered reply inboxes and counted
acknowledgements, uvloop.

    python benchmarks/bare_chain.py router|agent|ledger URL
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg

PULL = 512
STREAM = "BARE"


async def read_all(nc: Client, callback: Callable[[Msg], Awaitable[None]]) -> None:
    """Push everything that the stream stores into `callback`."""
    inbox = nc.new_inbox()

    async def arrived(message: Msg) -> None:
        if message.headers and message.reply:
            await nc.publish(message.reply)
        elif message.reply:
            await callback(message)

    await nc.subscribe(inbox, cb=arrived, pending_msgs_limit=-1, pending_bytes_limit=-1)
    config = {
        "deliver_subject": inbox,
        "ack_policy": "none",
        "deliver_policy": "new",
        "flow_control": True,
        "idle_heartbeat": 1_000_000_000,
        "mem_storage": True,
    }
    body = json.dumps({"stream_name": STREAM, "config": config}).encode()
    await nc.request(f"$JS.API.CONSUMER.CREATE.{STREAM}", body, timeout=5)


async def acks(nc: Client, window: int) -> tuple[str, asyncio.Semaphore]:
    """A reply inbox whose messages are counted against a window."""
    inbox, free = nc.new_inbox(), asyncio.Semaphore(window)

    async def acked(_message: Msg) -> None:
        free.release()

    await nc.subscribe(inbox + ".*", cb=acked, pending_msgs_limit=-1, pending_bytes_limit=-1)
    return inbox, free


async def router(nc: Client) -> None:
    inbox, _ = await acks(nc, 1)
    number = 0

    async def event(message: Msg) -> None:
        nonlocal number
        if message.subject.startswith("bare.task."):
            number += 1
            await nc.publish("bare.run.dispatch.noop", message.data, reply=f"{inbox}.{number}")

    await read_all(nc, event)


async def agent(nc: Client) -> None:
    inbox, _ = await acks(nc, 1)
    config = {
        "durable_name": "noop",
        "filter_subject": "bare.run.dispatch.noop",
        "ack_policy": "explicit",
        "max_ack_pending": -1,
        "deliver_policy": "new",
    }
    body = json.dumps({"stream_name": STREAM, "config": config}).encode()
    await nc.request(f"$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.noop", body, timeout=5)
    pull_inbox, asked, number = nc.new_inbox(), 0, 0

    async def pull() -> None:
        nonlocal asked
        asked += PULL
        request = json.dumps({"batch": PULL, "expires": 30_000_000_000}).encode()
        await nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.noop", request, reply=pull_inbox)

    async def work(message: Msg) -> None:
        nonlocal asked, number
        if message.headers:
            return
        asked -= 1
        number += 1
        if asked < PULL:
            await pull()
        await nc.publish(message.reply, b"+ACK")
        await nc.publish("bare.run.outcome.1", message.data, reply=f"{inbox}.{number}")

    await nc.subscribe(pull_inbox, cb=work, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await pull()


async def ledger(nc: Client) -> None:
    seen = 0

    async def event(message: Msg) -> None:
        nonlocal seen
        seen += len(message.data)

    await read_all(nc, event)


async def post(url: str, tasks: int, outstanding: int) -> tuple[float, list[float]]:
    """Run `tasks` through the chain. Returns (seconds, latency of each in seconds)."""
    nc = await nats.connect(url)
    inbox, _ = await acks(nc, 1)
    free = asyncio.Semaphore(outstanding)
    started: dict[int, float] = {}
    took: list[float] = []
    done = asyncio.Event()

    async def told(message: Msg) -> None:
        number = json.loads(message.data)["payload"]["n"]
        took.append(time.perf_counter() - started.pop(number))
        free.release()
        if len(took) == tasks:
            done.set()

    await nc.subscribe("baretold.>", cb=told, pending_msgs_limit=-1, pending_bytes_limit=-1)
    begun = time.perf_counter()
    for number in range(tasks):
        await free.acquire()
        started[number] = time.perf_counter()
        body = b'{"payload":{"n":%d},"nonce":"0123456789abcdef.%d","shard":1}' % (number, number)
        await nc.publish("bare.task.noop", body, reply=f"{inbox}.{number}")
    await done.wait()
    seconds = time.perf_counter() - begun
    await nc.close()
    return seconds, took


async def create(url: str) -> None:
    """The stream: the journal's own settings."""
    nc = await nats.connect(url)
    config = {
        "name": STREAM,
        "subjects": ["bare.>"],
        "storage": "file",
        "allow_direct": True,
        "duplicate_window": 100_000_000,
        "allow_atomic": True,
        "republish": {"src": "bare.run.outcome.*", "dest": "baretold.{{wildcard(1)}}"},
    }
    await nc.request(f"$JS.API.STREAM.CREATE.{STREAM}", json.dumps(config).encode(), timeout=5)
    await nc.close()


async def play(role: str, url: str) -> None:
    nc = await nats.connect(url, pending_size=64 * 1024 * 1024)
    await {"router": router, "agent": agent, "ledger": ledger}[role](nc)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(play(sys.argv[1], sys.argv[2]))
