"""Each write ends in exactly one of: its sequence, a refusal, not sent, or unresolved."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from callboard_broker.connection import Connection, open_link
from callboard_broker.direct import get_message
from callboard_broker.errors import (
    BoardUnreachable,
    StreamMissing,
    TooLarge,
    WriteRefused,
    WriteUnresolved,
)
from callboard_broker.headers import raw_headers
from callboard_broker.publisher import Publisher
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from tests.arrivals import Arrivals
from tests.servers import NatsServer

Result = tuple[int | None, Exception | None]


def noting(results: Arrivals[Result]):
    return lambda seq, error: results.add((seq, error))


def guard(subjects: Subjects, epoch: int) -> bytes:
    """The fence of PROTOCOL.md: only valid while `epoch` is the last of its subject."""
    return raw_headers(
        {
            "Nats-Expected-Last-Subject-Sequence": str(epoch),
            "Nats-Expected-Last-Subject-Sequence-Subject": subjects.epoch,
        }
    )


async def journal(connection: Connection, prefix: str) -> Topology:
    topology = Topology(Subjects(prefix))
    await ensure_streams(connection, topology)
    return topology


async def test_pipelined_writes_are_stored_in_their_order_each_confirmed_once(nats: NatsServer):
    results: Arrivals[Result] = Arrivals()
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        topology = await journal(connection, nats.prefix)
        subject = topology.subjects.task("acme", "review")
        for number in range(5000):
            publisher.publish(subject, b"%d" % number, done=noting(results))
        assert publisher.outstanding == 5000
        await publisher.settled()
        assert publisher.outstanding == 0
        assert results.items == [(seq, None) for seq in range(1, 5001)]
        record = await get_message(connection, topology.journal, 4001)
        assert record.data == b"4000"


async def test_a_guard_that_holds_lets_pass_and_one_that_fails_refuses(nats: NatsServer):
    results: Arrivals[Result] = Arrivals()
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        topology = await journal(connection, nats.prefix)
        subjects = topology.subjects
        first = await publisher.put(subjects.epoch, b"1")
        subject = subjects.run("acme", "lost", 0)
        assert await publisher.put(subject, b"", guard(subjects, first)) == 2
        await publisher.put(subjects.epoch, b"2")
        with pytest.raises(WriteRefused, match="10071") as refused:
            await publisher.put(subject, b"", guard(subjects, first))
        assert (refused.value.code, refused.value.subject) == (10071, subject)
        for _ in range(1000):
            publisher.publish(subject, b"", headers=guard(subjects, first), done=noting(results))
        await publisher.settled()
        refusals = [error for _, error in results.items if isinstance(error, WriteRefused)]
        assert [error.code for error in refusals] == [10071] * 1000
        assert (await last_sequence(connection, topology.journal))[0] == 3


async def test_without_a_stream_a_write_says_that_it_is_missing(nats: NatsServer):
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        with pytest.raises(StreamMissing, match=f"{nats.prefix}.nowhere"):
            await publisher.put(f"{nats.prefix}.nowhere", b"")
        with pytest.raises(TooLarge):
            publisher.publish(f"{nats.prefix}.x", bytes(64 * 1024 * 1024))
        assert publisher.outstanding == 0


async def test_writes_on_their_way_when_the_server_dies_are_unresolved(nats: NatsServer):
    results: Arrivals[Result] = Arrivals()
    read: Arrivals[Record] = Arrivals()
    lost: Arrivals[None] = Arrivals()
    async with (
        open_link(nats.url, name="a", on_lost=lambda: lost.add(None)) as connection,
        Publisher(connection) as publisher,
    ):
        topology = await journal(connection, nats.prefix)
        subject = topology.subjects.task("acme", "review")
        number = 0

        def more(seq: int | None, error: Exception | None) -> None:
            results.add((seq, error))
            if error is None:
                publish()

        def publish() -> None:
            nonlocal number
            number += 1
            publisher.publish(subject, b"%d" % number, done=more)

        for _ in range(500):
            publish()
        await results.count(5000)
        nats.kill()
        await lost.count(1)
        await publisher.settled()
        assert len(results.items) == number
        unsent: Arrivals[Result] = Arrivals()
        publisher.publish(subject, b"unsent", done=noting(unsent))
        assert not unsent.items  # never from within `publish`
        await unsent.count(1)
        assert isinstance(unsent.items[0][1], BoardUnreachable)
        putting = asyncio.ensure_future(publisher.put(subject, b"patient", timeout=20))
        nats.restart()
        last = await putting
        async with Reader(connection, topology.journal, start=1, callback=read.extend) as reader:
            await reader.reached(last)
    failed = [error for _, error in results.items if error is not None]
    assert len(failed) == 500
    assert all(isinstance(error, WriteUnresolved) for error in failed)
    confirmed = [seq for seq, _ in results.items if seq is not None]
    stored = {record.seq for record in read.items}
    assert len(set(confirmed)) == len(confirmed)
    assert stored.issuperset(confirmed)
    assert b"unsent" not in {record.data for record in read.items}


async def test_without_a_server_a_put_tells_that_nothing_was_sent(nats: NatsServer):
    lost: Arrivals[None] = Arrivals()
    async with (
        open_link(nats.url, name="a", on_lost=lambda: lost.add(None)) as connection,
        Publisher(connection) as publisher,
    ):
        nats.kill()
        await lost.count(1)
        with pytest.raises(BoardUnreachable, match="nothing was stored"):
            await publisher.put(f"{nats.prefix}.x", b"", timeout=0.1)


async def test_writes_to_a_stopped_server_become_unresolved_in_time(nats: NatsServer):
    results: Arrivals[Result] = Arrivals()
    async with (
        open_link(nats.url, name="a") as connection,
        Publisher(connection, timeout=0.3) as publisher,
    ):
        topology = await journal(connection, nats.prefix)
        subject = topology.subjects.task("acme", "review")
        assert await publisher.put(subject, b"") == 1
        os.kill(nats.embedded.pid, signal.SIGSTOP)
        try:
            for _ in range(10):
                publisher.publish(subject, b"", done=noting(results))
            with pytest.raises(WriteUnresolved, match=r"0\.1 s"):
                await publisher.put(subject, b"", timeout=0.1)
            await publisher.settled()
        finally:
            os.kill(nats.embedded.pid, signal.SIGCONT)
        assert [type(error) for _, error in results.items] == [WriteUnresolved] * 10
        # Unresolved is not lost: they were stored when the server went on, and nothing is late.
        assert await publisher.put(subject, b"", timeout=20) == 13
        assert len(results.items) == 10


async def test_a_done_that_raises_is_reported_and_the_others_still_hear(nats: NatsServer):
    errors: Arrivals[Exception] = Arrivals()
    results: Arrivals[Result] = Arrivals()

    def failing(_seq: int | None, _error: Exception | None) -> None:
        raise ValueError("planted")

    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        connection.at_error(errors.add)
        topology = await journal(connection, nats.prefix)
        subject = topology.subjects.task("acme", "review")
        publisher.publish(subject, b"", done=failing)
        publisher.publish(subject, b"", done=noting(results))
        await results.count(1)
        publisher.publish(subject, b"", done=failing)
        publisher.publish(subject, b"", done=noting(results))
        nats.kill()
        await results.count(2)
    assert [str(error) for error in errors.items] == ["planted", "planted"]


async def test_a_cancelled_put_leaves_nothing_behind(nats: NatsServer):
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        topology = await journal(connection, nats.prefix)
        subject = topology.subjects.task("acme", "review")
        putting = asyncio.ensure_future(publisher.put(subject, b""))
        await asyncio.sleep(0)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        await publisher.settled()
        assert await publisher.put(subject, b"") == 2
