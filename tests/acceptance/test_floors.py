"""The floors that were specified, each as one plain test on real processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard import Board, Workflow, connect
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Outcome, decode_event
from tests.board import Processes, read_journal, started_processes
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(120)

WORK_SECONDS = 0.03
"""What an agent of `mark.work` thinks; it does not count as overhead."""


@pytest.fixture
def board(nats: NatsServer, tmp_path: Path) -> Iterator[Processes]:
    fast = {"LEASE__SUSPECT_SECONDS": 1.5, "LEASE__LEASE_SECONDS": 4, "LEASE__BEAT_SECONDS": 0.5}
    with started_processes(nats, tmp_path, BUDGETS__GLOBAL_CONCURRENCY=40, **fast) as processes:
        processes.router("router")
        processes.ledger()
        for name in ("host-0", "host-1", "host-2"):
            processes.host(name)
        yield processes


async def ready(board: Processes) -> None:
    await board.says("now leader", "router")
    for name in ("host-0", "host-1", "host-2"):
        await board.says("is ready", name)


async def test_a_hand_off_takes_less_than_two_seconds(nats: NatsServer, board: Processes):
    """From an outcome in the journal to the next step's handler; measured twenty times."""
    chain = Workflow("chain")
    last = None
    for number in range(21):
        last = chain.step(f"s{number}", "mark.work", {"n": number}, after=[last] if last else [])
    await ready(board)
    async with connect(nats.url, prefix=nats.prefix) as poster:
        await (await poster.run(chain)).result(60)
    subjects, stored, hand_offs = Subjects(nats.prefix), 0, []
    for record in await read_journal(nats):
        if subjects.parse(record.subject).kind != "outcome":
            continue
        outcome = decode_event("outcome", record.data)
        assert isinstance(outcome, Outcome)
        if stored:
            hand_offs.append(outcome.started_at - stored)
        stored = record.at_ns // 1_000_000
    print(f"hand-offs in ms: {sorted(hand_offs)}")
    assert len(hand_offs) == 20
    assert max(hand_offs) < 2000


async def test_ten_concurrent_agents_cost_less_than_five_seconds(
    nats: NatsServer, board: Processes
):
    flow = Workflow("ten")
    parts = [flow.step(f"part{n}", "mark.work", {"n": n}) for n in range(10)]
    flow.step("join", "mark.work", {"n": 10}, after=parts)
    await ready(board)
    async with connect(nats.url, prefix=nats.prefix) as poster:
        begun = time.monotonic()
        await (await poster.run(flow)).result(60)
        overhead = time.monotonic() - begun - 2 * WORK_SECONDS
    print(f"overhead: {overhead * 1000:.1f} ms")
    assert overhead < 5


async def test_999_of_1000_tasks_complete_although_a_host_dies(nats: NatsServer, board: Processes):
    await ready(board)
    async with connect(nats.url, prefix=nats.prefix) as poster:
        succeeded = await _completed(poster, board)
    assert succeeded >= 999


async def _completed(poster: Board, board: Processes) -> int:
    async def one(number: int) -> bool:
        handle = await poster.submit("mark.work", {"n": number})
        return await handle.wait() == "succeeded"

    tasks = [asyncio.create_task(one(number)) for number in range(1000)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    board.kill("host-1")
    return sum(await asyncio.gather(*tasks))
