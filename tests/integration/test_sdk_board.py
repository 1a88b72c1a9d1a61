"""What handlers can do with their context, on a whole board and in every isolation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callboard import Board, Retry, TaskFailed, connect
from callboard_broker.connection import open_link
from callboard_broker.publisher import Publisher
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Checkpoint, Dispatch, decode_event, encode
from tests.board import Processes, read_journal, started_processes
from tests.servers import NatsServer, open_server

pytestmark = pytest.mark.timeout(120)

WAYS = ("inline", "thread", "process", "plain")
SETTINGS = {
    "AGENTS__SPARES": 1,
    "LEASE__BEAT_SECONDS": 0.2,
    "LEASE__SUSPECT_SECONDS": 0.7,
    "LEASE__LEASE_SECONDS": 2,
    "LEASE__START_SECONDS": 2,
    "LEASE__LOST_LIMIT": 10,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NatsServer, Processes]]:
    """A board for the tests that harm nobody."""
    folder = tmp_path_factory.mktemp("board")
    with (
        open_server("embedded", folder / "nats") as nats,
        started_processes(nats, folder, **SETTINGS) as processes,
    ):
        start(processes)
        yield nats, processes


def start(processes: Processes) -> None:
    processes.router("router")
    processes.ledger()
    processes.host("host-a", "sdk_agents.py")


@asynccontextmanager
async def reached(nats: NatsServer, processes: Processes) -> AsyncIterator[Board]:
    await processes.says("is ready", "host-a")
    await processes.says("ready", "ledger")
    async with connect(nats.url, prefix=nats.prefix) as board:
        yield board


@asynccontextmanager
async def opened(nats: NatsServer, folder: Path) -> AsyncIterator[tuple[Board, Processes]]:
    with started_processes(nats, folder, **SETTINGS) as processes:
        start(processes)
        async with reached(nats, processes) as board:
            yield board, processes


class Walkers:
    """One task in each isolation, whose first attempt stands still after four steps of six."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.halted: set[str] = set()
        self.lost: set[str] = set()
        self.stirred = asyncio.Event()

    async def walk(self, way: str, pad: int) -> Any:
        """Pad: bytes of each checkpoint, beyond what it needs."""
        handle = await self.board.submit(f"walk.{way}", {"count": 6, "halt": 4, "pad": pad})
        async for update in handle:
            if update.progress is not None:
                self.halted.add(way)
            if update.error is not None and update.error.type == "Lost":
                self.lost.add(way)
            self.stirred.set()
        return await handle.result(60)

    async def all_in(self, names: set[str]) -> None:
        async with asyncio.timeout(60):
            while names != set(WAYS):
                self.stirred.clear()
                await self.stirred.wait()


async def test_a_killed_host_s_attempts_go_on_from_their_last_valid_checkpoints(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path) as (board, processes):
        walkers = Walkers(board)
        async with asyncio.TaskGroup() as group:
            walks = [
                group.create_task(walkers.walk(way, pad))
                for way, pad in zip(WAYS, (0, 10_000, 100_000, 10), strict=True)
            ]
            await walkers.all_in(walkers.halted)
            processes.kill("host-a")
            await walkers.all_in(walkers.lost)
            await leave_void_checkpoints(nats)
            processes.host("host-b", "sdk_agents.py")
        assert [one.result() for one in walks] == [{"attempt": 2, "gone": [5, 6]}] * len(WAYS)
        for host, attempt, steps in (("host-a", 1, (1, 2, 3, 4)), ("host-b", 2, (5, 6))):
            log = processes.log(host)  # the outside table: what was really done
            for step in steps:
                assert log.count(f"attempt {attempt} goes step {step}") == len(WAYS), log
            assert log.count("goes step") == len(steps) * len(WAYS), log


async def leave_void_checkpoints(nats: NatsServer) -> None:
    """As zombies would, which have not heard that they are lost: all is done."""
    subjects = Subjects(nats.prefix)
    state = msgspec.Raw(b'{"done":6,"pad":""}')
    async with open_link(nats.url, name="zombie") as link, Publisher(link) as publisher:
        for record in await read_journal(nats):
            if subjects.parse(record.subject).kind == "dispatch":
                event = decode_event("dispatch", record.data)
                assert isinstance(event, Dispatch)
                late = Checkpoint(event.task, 1, event.secret, "host-a", 9, state)
                subject = subjects.run("default", "checkpoint", event.shard)
                await publisher.put(subject, encode(late))


async def test_a_retry_after_an_error_goes_on_too_and_a_redrive_begins_anew(
    running: tuple[NatsServer, Processes],
) -> None:
    async with reached(*running) as board:
        retry = Retry(attempts=2, delay=0)
        for way in WAYS:
            handle = await board.submit(f"walk.{way}", {"count": 3, "fail": 2}, retry=retry)
            assert await handle.result(30) == {"attempt": 2, "gone": [2, 3]}
        handle = await board.submit("walk.inline", {"count": 3, "fail": 2})
        with pytest.raises(TaskFailed, match="step 2"):
            await handle.result(30)
        await board.redrive(handle.id)
        again = await board.handle(handle.id)
        assert await again.result(30) == {"attempt": 2, "gone": [1, 2, 3]}


@pytest.mark.parametrize("way", WAYS)
async def test_parts_of_a_result_and_blobs_travel(
    running: tuple[NatsServer, Processes], way: str
) -> None:
    async with reached(*running) as board:
        words = [f"word {number}" for number in range(300)]
        await board.listen()
        handle = await board.submit(f"speak.{way}", words)
        chunks = [chunk async for chunk in handle.output()]
        assert [chunk.value for chunk in chunks] == words
        assert [chunk.number for chunk in chunks] == list(range(1, 301))
        assert {(chunk.task, chunk.attempt) for chunk in chunks} == {(handle.id, 1)}
        assert await handle.result(30) == " ".join(words)

        source = await (await board.submit("paper.make", 5_000_000)).result(30)
        assert source["size"] == 5_000_000
        copied = await (await board.submit(f"copy.{way}", {"source": source})).result(60)
        assert copied["digest"] == source["digest"]
        twice = await (await board.submit(f"copy.{way}", {"source": copied["copy"]})).result(60)
        assert twice["copy"] == source
        wrong = source | {"digest": "0" * 64}
        with pytest.raises(TaskFailed, match="does not name a blob of this digest"):
            await (await board.submit(f"copy.{way}", {"source": wrong})).result(30)
        absent = source | {"digest": "0" * 64, "name": f"{'0' * 64}-262144"}
        with pytest.raises(TaskFailed, match=r"LookupError.*is not stored"):
            await (await board.submit(f"copy.{way}", {"source": absent})).result(30)
        huge = source | {"size": 100_000_000}
        with pytest.raises(TaskFailed, match="100,000,000 bytes"):
            await (await board.submit(f"copy.{way}", {"source": huge})).result(30)
        assert "Traceback" not in running[1].log("host-a")


async def test_every_kind_of_type_and_a_class_work_in_every_isolation(
    running: tuple[NatsServer, Processes],
) -> None:
    async with reached(*running) as board:
        for kind in ("struct", "record", "model"):
            for way in ("inline", "thread", "process"):
                capability = f"type.{kind}.{way}"
                handle = await board.submit(capability, {"name": "a", "sizes": [1, 2]})
                assert await handle.result(30) == {"name": "A", "sizes": [3]}, capability
                with pytest.raises(TaskFailed, match="sizes"):
                    await (await board.submit(capability, {"name": "a", "sizes": 1})).result(30)
        for way, calls in (("inline", [1, 2, 3]), ("thread", [1, 2, 3]), ("process", [1, 1, 1])):
            found = [await (await board.submit(f"class.{way}")).result(30) for _ in range(3)]
            assert [one["calls"] for one in found] == calls
            assert len({tuple(one["loaded"]) for one in found}) == 1, "it was loaded once"
            inside = {one["pid"] == one["loaded"][0] for one in found}
            assert inside == {way != "process"}
        assert "Traceback" not in running[1].log("host-a")
