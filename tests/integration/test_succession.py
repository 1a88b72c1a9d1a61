"""Who leads, and what a router starts from: on one server, and on a cluster of three."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from callboard import Board, connect
from callboard_broker.connection import Connection, open_link
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, last_sequence
from callboard_broker.subjects import Subjects
from tests.arrivals import Arrivals
from tests.board import Processes, check_history, read_journal, started_processes
from tests.clusters import Cluster, open_cluster
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(180)

TAKEOVER_SECONDS = 3.0
SETTINGS = {"BUDGETS__GLOBAL_CONCURRENCY": 500, "LEASE__LOST_LIMIT": 10}
OTHER = {"router-a": "router-b", "router-b": "router-a"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with open_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture(params=["single", "cluster"])
def server(request: pytest.FixtureRequest) -> tuple[NatsServer, int]:
    """A server or cluster, and how many copies it can keep."""
    if request.param == "single":
        return request.getfixturevalue("nats"), 1
    return request.getfixturevalue("cluster").server(), 3


@contextmanager
def board_on(nats: NatsServer, folder: Path, replicas: int, **more: object) -> Iterator[Processes]:
    settings = {**SETTINGS, "JOURNAL__REPLICAS": replicas, **more}
    with started_processes(nats, folder, **settings) as board:
        yield board


async def leads(board: Processes) -> str:
    return await board.says("now leader", "router-a", "router-b")


@asynccontextmanager
async def dispatches(nats: NatsServer, connection: Connection) -> AsyncIterator[Arrivals[Record]]:
    """Every dispatch from here on."""
    subjects = Subjects(nats.prefix)
    journal = Topology(subjects).journal
    found: Arrivals[Record] = Arrivals()
    last, _ = await last_sequence(connection, journal)
    filters = [f"{subjects.prefix}.run.*.dispatch.>"]
    async with Reader(connection, journal, start=last + 1, callback=found.extend, filters=filters):
        yield found


async def post_on(poster: Board, stop: asyncio.Event) -> int:
    """Post tasks one after the other, and return how many have ended well."""
    count = 0
    async with asyncio.TaskGroup() as group:
        while not stop.is_set():
            handle = await poster.submit("mark.work", {"n": count})
            group.create_task(handle.result(60))
            count += 1
            await asyncio.sleep(0.02)
    return count


async def test_a_standby_gives_out_work_soon_after_the_active_router_was_killed(
    server: tuple[NatsServer, int], tmp_path: Path
):
    nats, replicas = server
    with board_on(nats, tmp_path, replicas) as board:
        for name in OTHER:
            board.router(name)
        first = await leads(board)
        board.ledger()
        board.host("host-0")
        await board.says("is ready", "host-0")
        stop = asyncio.Event()
        async with (
            connect(nats.url, prefix=nats.prefix) as poster,
            open_link(nats.url, name="watch") as connection,
            dispatches(nats, connection) as seen,
        ):
            posting = asyncio.create_task(post_on(poster, stop))
            await seen.count(20)
            board.kill(first)
            killed, before = time.time_ns(), len(seen.items)
            after = await seen.until(
                lambda found: any(record.at_ns > killed + 500_000_000 for record in found)
            )
            late = next(record for record in after if record.at_ns > killed + 500_000_000)
            stop.set()
            posted = await posting
        seconds = (late.at_ns - killed) / 1e9
        print(f"takeover in {seconds:.2f} s ({before} before)")
        assert seconds < TAKEOVER_SECONDS
        found = check_history(await read_journal(nats), board.table)
        assert found["posts"] == found["starts"] == posted


async def test_a_router_that_was_suspended_writes_nothing_into_the_next_epoch(
    server: tuple[NatsServer, int], tmp_path: Path
):
    nats, replicas = server
    with board_on(nats, tmp_path, replicas) as board:
        for name in OTHER:
            board.router(name)
        first = await leads(board)
        board.ledger()
        board.host("host-0")
        await board.says("is ready", "host-0")
        stop = asyncio.Event()
        async with connect(nats.url, prefix=nats.prefix) as poster:
            posting = asyncio.create_task(post_on(poster, stop))
            board.pause(first)
            await board.says("now leader", OTHER[first])
            board.resume(first)
            await board.says("now follower", first)
            stop.set()
            posted = await posting
        found = check_history(await read_journal(nats), board.table)
        assert found["epoch"] >= 2
        assert found["posts"] == posted


async def test_when_the_clusters_leader_dies_500_running_tasks_all_end_once(
    cluster: Cluster, tmp_path: Path
):
    nats = cluster.server()
    with board_on(nats, tmp_path, 3) as board:
        for name in OTHER:
            board.router(name)
        await leads(board)
        board.ledger()
        for number in range(2):
            board.host(f"host-{number}")
        for number in range(2):
            await board.says("is ready", f"host-{number}")
        async with (
            connect(nats.url, prefix=nats.prefix) as poster,
            open_link(nats.url, name="watch") as connection,
            dispatches(nats, connection) as seen,
        ):
            handles = [await poster.submit("mark.slow", {"n": number}) for number in range(500)]
            await seen.count(500)
            leader = await cluster.leader(connection, Topology(Subjects(nats.prefix)).journal)
            cluster.kill(leader)
            try:
                results = await asyncio.gather(*(handle.result(100) for handle in handles))
            finally:
                cluster.start(leader)
        assert results == list(range(500))
        found = check_history(await read_journal(nats), board.table)
        print(found)
        assert found["posts"] == 500
        for name in (*OTHER, "ledger", "host-0", "host-1"):
            assert "Traceback" not in board.log(name), board.log(name)[-3000:]
