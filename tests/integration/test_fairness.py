"""A tenant that floods the board delays nobody else: the whole chain, each part its own process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from callboard import connect
from callboard_broker.connection import open_link
from callboard_broker.publisher import Publisher
from callboard_broker.record import Record
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Outcome, decode_event
from tests.board import read_journal, started_processes
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(180)

FLOOD = 50_000
SLOTS = 10
TASK_MS = 5
SLACK_MS = 100


async def test_ten_tasks_are_not_delayed_by_another_tenants_fifty_thousand(
    nats: NatsServer, tmp_path: Path
):
    with started_processes(nats, tmp_path, BUDGETS__GLOBAL_CONCURRENCY=SLOTS) as board:
        board.router("router")
        board.host("host", "brief_agents.py")
        await board.says("now leader", "router")
        await board.says("is ready", "host")
        async with connect(nats.url, prefix=nats.prefix) as poster:
            await (await poster.submit("brief.work", tenant="flood")).result(30)
            await _flood(nats)
            # The journal is one order: with this result the router has read the whole flood.
            await (await poster.submit("brief.work", tenant="watch")).result(30)
            handles = await asyncio.gather(
                *(poster.submit("brief.work", tenant="calm") for _ in range(10))
            )
            for handle in handles:
                await handle.result(60)
        delays, left = _measured(await read_journal(nats), nats.prefix)
    print(f"delays in ms: {delays}; {left} tasks of the flood were still waiting")
    assert len(delays) == 10
    assert left > FLOOD // 2, "the flood was there all the time"
    assert max(delays) <= 2 * TASK_MS + SLACK_MS


async def _flood(nats: NatsServer) -> None:
    subject = Subjects(nats.prefix).task("flood", "brief.work")
    stored, all_stored = 0, asyncio.Event()

    def done(_seq: int | None, error: Exception | None) -> None:
        nonlocal stored
        assert error is None, error
        stored += 1
        if stored == FLOOD:
            all_stored.set()

    async with open_link(nats.url, name="flood") as connection, Publisher(connection) as publisher:
        for number in range(FLOOD):
            publisher.publish(subject, b"{}", done=done)
            if not number % 512:
                await asyncio.sleep(0)  # let it be written
        await all_stored.wait()


def _measured(records: list[Record], prefix: str) -> tuple[list[int], int]:
    """From the post in the journal to the start of its handler, in ms; and what is left."""
    subjects = Subjects(prefix)
    posted: dict[str, int] = {}
    delays: list[int] = []
    left = 0
    for record in records:
        address = subjects.parse(record.subject)
        if address.kind == "post":
            left += address.tenant == "flood"
            if address.tenant == "calm":
                posted[str(record.seq)] = record.at_ns // 1_000_000
        elif address.kind == "outcome":
            left -= address.tenant == "flood"
            outcome = decode_event("outcome", record.data)
            if isinstance(outcome, Outcome) and outcome.task in posted:
                delays.append(outcome.started_at - posted[outcome.task])
    return delays, left
