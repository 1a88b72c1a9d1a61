"""Guarded writes are stored in their order or refused, on a cluster and on a single server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from callboard_broker.batch import GUARD_BUSY, GUARD_FAILED, GuardedWriter, is_clustered
from callboard_broker.connection import Connection, open_link
from callboard_broker.errors import TooLarge, WriteRefused
from callboard_broker.publisher import Publisher
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from tests.arrivals import Arrivals
from tests.clusters import Cluster, open_cluster
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(120)

Result = tuple[int, int | None, Exception | None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with open_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


class Bench(NamedTuple):
    """A journal with an epoch, and a writer guarded by it."""

    connection: Connection
    publisher: Publisher
    topology: Topology
    writer: GuardedWriter
    epoch: int
    results: Arrivals[Result]

    @property
    def subject(self) -> str:
        return self.topology.subjects.run("acme", "lost", 0)

    def write(self, number: int, *, guard: int | None = None) -> None:
        self.writer.write(
            self.subject,
            b"%d" % number,
            guard=self.epoch if guard is None else guard,
            done=lambda seq, error: self.results.add((number, seq, error)),
        )

    async def stored(self) -> list[Record]:
        found: list[Record] = []
        last, _ = await last_sequence(self.connection, self.topology.journal)
        async with Reader(
            self.connection, self.topology.journal, start=1, callback=found.extend
        ) as reader:
            await reader.reached(last)
        return found


@asynccontextmanager
async def bench(nats: NatsServer, *, replicas: int, batched: bool = True) -> AsyncIterator[Bench]:
    topology = Topology(Subjects(nats.prefix), replicas)
    async with (
        open_link(nats.url, name="writer", tries_seconds=20) as connection,
        Publisher(connection) as publisher,
    ):
        await ensure_streams(connection, topology)
        assert await is_clustered(connection, topology.journal) is (replicas > 1)
        writer = GuardedWriter(connection, publisher, topology.subjects.epoch, batched=batched)
        epoch = await publisher.put(topology.subjects.epoch, b"1", timeout=20)
        yield Bench(connection, publisher, topology, writer, epoch, Arrivals())


async def test_a_cluster_stores_guarded_writes_in_their_order_and_says_where(cluster: Cluster):
    async with bench(cluster.server(), replicas=3) as on:
        for number in range(3000):
            on.write(number)
            if number % 7 == 0:  # posts of others come in between
                on.publisher.publish(on.topology.subjects.task("acme", "x"), b"{}")
        await on.results.count(3000)
        assert {error for _, _, error in on.results.items} == {None}
        told = [(number, seq) for number, seq, _ in on.results.items]
        found = [
            (int(record.data), record.seq)
            for record in await on.stored()
            if record.subject == on.subject
        ]
        assert told == found
        assert [number for number, _ in found] == list(range(3000))


@pytest.mark.parametrize("count", [1, 300])
async def test_a_cluster_refuses_the_writes_of_an_epoch_that_is_over(cluster: Cluster, count: int):
    async with bench(cluster.server(), replicas=3) as on:
        await on.publisher.put(on.topology.subjects.epoch, b"2")
        for number in range(count):
            on.write(number)
        await on.results.count(count)
        codes = {error.code for _, _, error in on.results.items if isinstance(error, WriteRefused)}
        assert codes == {GUARD_FAILED}
        assert len(await on.stored()) == 2


async def test_writes_of_an_old_guard_take_none_of_the_new_one_along(cluster: Cluster):
    async with bench(cluster.server(), replicas=3) as on:
        second = await on.publisher.put(on.topology.subjects.epoch, b"2")
        for number in range(10):
            on.write(number)
        for number in range(10, 20):
            on.write(number, guard=second)
        await on.results.count(20)
        assert [number for number, seq, _ in on.results.items if seq is not None] == [
            *range(10, 20)
        ]


async def test_where_batches_are_refused_the_writes_go_one_by_one(cluster: Cluster):
    async with bench(cluster.server(), replicas=3) as on:
        for number in range(50):  # as many as a server holds open
            lines = f"NATS/1.0\r\nNats-Batch-Id: open-{number}\r\nNats-Batch-Sequence: 1\r\n\r\n"
            subject = on.topology.subjects.task("acme", "x")
            on.connection.send(subject, b"{}", headers=lines.encode())
        for number in range(20):
            on.write(number)
        await on.results.count(20)
        assert [seq for _, seq, _ in on.results.items] == [*range(2, 22)]


async def test_a_writer_waits_for_another_one_with_the_same_guard(cluster: Cluster):
    async with bench(cluster.server(), replicas=3) as on:
        other = GuardedWriter(on.connection, on.publisher, on.topology.subjects.epoch, batched=True)
        for number in range(100):
            on.write(number)
            other.write(
                on.subject,
                b"%d" % (1000 + number),
                guard=on.epoch,
                done=lambda seq, error: on.results.add((0, seq, error)),
            )
        await on.results.count(200)
        assert {error for _, _, error in on.results.items} == {None}
        assert len(await on.stored()) == 201


async def test_a_stream_that_was_given_replicas_is_written_to_in_batches(cluster: Cluster):
    async with bench(cluster.server(), replicas=3, batched=False) as on:
        for number in range(500):
            on.write(number)
        await on.results.count(500)
        refused = Counter(getattr(error, "code", None) for _, _, error in on.results.items)
        assert refused[GUARD_BUSY]
        assert on.writer.batched
        on.write(500)
        on.write(501)
        await on.results.count(502)
        assert {error for _, _, error in on.results.items[-2:]} == {None}


async def test_what_a_dying_leader_has_confirmed_is_stored_once(cluster: Cluster):
    async with bench(cluster.server(), replicas=3) as on:
        leader = await cluster.leader(on.connection, on.topology.journal)
        numbers = iter(range(100_000))

        def done(number: int, seq: int | None, error: Exception | None) -> None:
            on.results.add((number, seq, error))
            if error is None:
                write()

        def write() -> None:
            number = next(numbers)
            on.writer.write(
                on.subject,
                b"%d" % number,
                guard=on.epoch,
                done=lambda seq, error: done(number, seq, error),
            )

        for _ in range(200):
            write()
        await on.results.count(2000)
        try:
            cluster.kill(leader)
            await on.results.until(
                lambda items: sum(error is not None for *_, error in items) >= 200
            )
            await on.publisher.put(on.topology.subjects.epoch, b"2", timeout=60)
            stored = [record for record in await on.stored() if record.subject == on.subject]
        finally:
            cluster.start(leader)
    where = {record.seq: int(record.data) for record in stored}
    confirmed = {seq: number for number, seq, _ in on.results.items if seq is not None}
    assert {seq: where.get(seq) for seq in confirmed} == confirmed
    assert len(set(where.values())) == len(where)


async def test_a_single_server_stores_them_pipelined_or_in_batches(nats: NatsServer):
    async with bench(nats, replicas=1, batched=False) as on:
        for number in range(2000):
            on.write(number)
        assert on.publisher.outstanding == 2000
        await on.results.count(2000)
        on.writer.batched = True
        for number in range(2000, 2700):
            on.write(number)
        await on.results.count(2700)
        assert [seq for _, seq, _ in on.results.items] == [*range(2, 2702)]


async def test_what_no_server_would_take_is_refused_at_once(nats: NatsServer):
    async with bench(nats, replicas=1) as on:
        with pytest.raises(TooLarge):
            on.writer.write(on.subject, bytes(2**20), guard=on.epoch, done=lambda *_: None)
        on.write(1)
        await on.results.count(1)
        assert on.writer.waiting == 0


async def test_without_a_connection_everything_that_waits_is_given_up(nats: NatsServer):
    async with bench(nats, replicas=1) as on:
        on.write(0)
        await asyncio.sleep(0)
        for number in range(1, 5):
            on.write(number)
        nats.kill()
        await on.results.count(5)
        assert all(isinstance(error, OSError) for _, _, error in on.results.items)
