"""A reader delivers each stored message once and in order, whatever happens to the server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from urllib.parse import urlsplit

import pytest

from callboard_broker.connection import Connection, open_link
from callboard_broker.errors import StreamDrift, StreamMissing
from callboard_broker.headers import header, raw_headers
from callboard_broker.publisher import Publisher
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from tests.arrivals import Arrivals
from tests.servers import NatsServer


async def fill(connection: Connection, subject: str, count: int, *, size: int = 10) -> None:
    async with Publisher(connection) as publisher:
        for number in range(count):
            publisher.publish(subject, b"%0*d" % (size, number))
            if number % 1000 == 0:
                await connection.drained()
        await publisher.settled()


def sequences(records: list[Record]) -> list[int]:
    return [record.seq for record in records]


async def test_it_reads_everything_from_its_start_in_order(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    subject = topology.subjects.task("acme", "review")
    read: Arrivals[Record] = Arrivals()
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        await ensure_streams(connection, topology)
        await fill(connection, subject, 20_000)
        seq = await publisher.put(subject, b"last", headers=raw_headers({"K": "v"}))
        async with Reader(connection, topology.journal, start=11, callback=read.extend) as reader:
            await reader.reached(seq)
            assert reader.position == seq
            assert sequences(read.items) == list(range(11, 20_002))
            await publisher.put(subject, b"live")
            await read.count(19_992)
    assert [int(record.data) for record in read.items[:-2]] == list(range(10, 20_000))
    last = read.items[-2]
    assert (last.data, last.subject, last.pending) == (b"last", subject, 0)
    assert header(last.headers, "K") == "v"


async def test_large_messages_do_not_make_the_server_cut_it_off(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    subject = topology.subjects.task("acme", "review")
    read: Arrivals[int] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        await ensure_streams(connection, topology)
        await fill(connection, subject, 150, size=1_000_000)

        def note(records: list[Record]) -> None:
            read.extend(len(record.data) for record in records)

        async with Reader(connection, topology.journal, start=1, callback=note) as reader:
            await reader.reached(150)
        assert read.items == [1_000_000] * 150
        assert connection.generation == 1


async def test_filters_leave_out_the_rest_and_its_end_is_reached_all_the_same(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    subjects = topology.subjects
    read: Arrivals[Record] = Arrivals()
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        await ensure_streams(connection, topology)
        for tenant in ("acme", "other", "acme", "other", "other"):
            await publisher.put(subjects.task(tenant, "x"), tenant.encode())
        filters = [f"{nats.prefix}.task.acme.>", f"{nats.prefix}.run.acme.>"]
        async with Reader(
            connection, topology.journal, start=1, callback=read.extend, filters=filters
        ) as reader:
            async with asyncio.timeout(0.5):  # without waiting for a heartbeat
                await reader.reached(5)
            assert sequences(read.items) == [1, 3]
            await publisher.put(subjects.task("other", "x"), b"")
            await reader.reached(6)
    assert sequences(read.items) == [1, 3]


async def test_messages_that_were_deleted_are_passed_over(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    read: Arrivals[Record] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        await ensure_streams(connection, topology)
        await fill(connection, topology.subjects.task("acme", "x"), 10)
        for seq in (4, 10):
            await connection.api(f"STREAM.MSG.DELETE.{topology.journal}", {"seq": seq})
        async with Reader(connection, topology.journal, start=3, callback=read.extend) as reader:
            async with asyncio.timeout(0.5):
                await reader.reached(10)
    assert sequences(read.items) == [3, 5, 6, 7, 8, 9]


async def test_an_empty_stream_is_read_from_its_first_message_on(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    read: Arrivals[Record] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        await ensure_streams(connection, topology)
        async with Reader(connection, topology.journal, start=0, callback=read.extend) as reader:
            await reader.reached(0)
            await fill(connection, topology.subjects.task("acme", "x"), 3)
            await read.count(3)


async def test_a_missing_stream_and_one_that_ends_too_early_are_told_at_the_start(
    nats: NatsServer,
):
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="a") as connection:
        with pytest.raises(StreamMissing, match=topology.journal):
            async with Reader(connection, topology.journal, start=1, callback=print):
                pass
        await ensure_streams(connection, topology)
        with pytest.raises(StreamDrift, match="last sequence is 0, must be '41 or more'"):
            async with Reader(connection, topology.journal, start=42, callback=print):
                pass


async def test_kills_of_the_server_make_nothing_come_twice_or_out_of_order(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    subject = topology.subjects.task("acme", "review")
    read: Arrivals[Record] = Arrivals()
    again: Arrivals[Record] = Arrivals()
    writing = True
    written: set[int] = set()

    async def write() -> None:
        number = 0
        while writing:
            await writer.reached()
            for _ in range(100):
                number += 1
                publisher.publish(subject, b"%d" % number, done=confirm)
            await publisher.settled()

    def confirm(seq: int | None, _error: Exception | None) -> None:
        if seq is not None:
            written.add(seq)

    async with (
        open_link(nats.url, name="reader") as connection,
        open_link(nats.url, name="writer") as writer,
        Publisher(writer) as publisher,
    ):
        await ensure_streams(connection, topology)
        async with Reader(connection, topology.journal, start=1, callback=read.extend) as reader:
            task = asyncio.ensure_future(write())
            for _ in range(3):
                await read.count(len(read.items) + 2000)
                nats.kill()
                nats.restart()
            await read.count(len(read.items) + 2000)
            writing = False
            await task
            last, _ = await last_sequence(connection, topology.journal)
            await reader.reached(last)
        assert connection.generation == 4
        async with Reader(connection, topology.journal, start=1, callback=again.extend) as reader:
            await reader.reached(last)
    assert sequences(read.items) == list(range(1, last + 1))
    assert [record.data for record in read.items] == [record.data for record in again.items]
    assert written <= set(sequences(read.items))


async def test_its_consumer_may_be_deleted_under_it(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    subject = topology.subjects.task("acme", "review")
    read: Arrivals[Record] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        await ensure_streams(connection, topology)
        async with Reader(connection, topology.journal, start=1, callback=read.extend):
            for round_ in (1, 2, 3):
                await fill(connection, subject, 500)
                await read.count(500 * round_)
                names = (await connection.api(f"CONSUMER.NAMES.{topology.journal}"))["consumers"]
                assert len(names) == 1
                await connection.api(f"CONSUMER.DELETE.{topology.journal}.{names[0]}")
            await fill(connection, subject, 500)
            await read.count(2000)
    assert sequences(read.items) == list(range(1, 2001))


async def test_a_broken_socket_costs_nothing(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    subject = topology.subjects.task("acme", "review")
    read: Arrivals[Record] = Arrivals()
    async with (
        open_link(nats.url, name="reader") as connection,
        open_link(nats.url, name="writer") as writer,
    ):
        await ensure_streams(connection, topology)
        async with Reader(connection, topology.journal, start=1, callback=read.extend) as reader:
            for _ in range(5):
                filling = asyncio.ensure_future(fill(writer, subject, 3000))
                await read.count(len(read.items) + 1000)
                await connection.link.force_reconnect()
                await filling
            await reader.reached(15_000)
    assert sequences(read.items) == list(range(1, 15_001))


async def test_a_server_that_stood_still_is_read_on(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    subject = topology.subjects.task("acme", "review")
    read: Arrivals[Record] = Arrivals()
    silent: Arrivals[None] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        await ensure_streams(connection, topology)
        await fill(connection, subject, 100)
        async with Reader(connection, topology.journal, start=1, callback=read.extend) as reader:
            await reader.reached(100)
            requests = reader._requests
            assert requests is not None
            breaking = requests._silent

            def note() -> None:
                silent.add(None)
                breaking()

            requests._silent = note
            os.kill(nats.embedded.pid, signal.SIGSTOP)
            try:
                await silent.count(1)
            finally:
                os.kill(nats.embedded.pid, signal.SIGCONT)
            await fill(connection, subject, 100)
            await reader.reached(200)
    assert sequences(read.items) == list(range(1, 201))


async def test_a_callback_that_raises_stops_the_reader_and_is_heard(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    subject = topology.subjects.task("acme", "review")
    reported: Arrivals[Exception] = Arrivals()
    calls: list[int] = []

    def failing(records: list[Record]) -> None:
        calls.append(len(records))
        raise ValueError("planted")

    async with open_link(nats.url, name="a") as connection:
        connection.at_error(reported.add)
        await ensure_streams(connection, topology)
        async with Reader(connection, topology.journal, start=1, callback=failing) as reader:
            waiting = asyncio.ensure_future(reader.reached(1))
            await fill(connection, subject, 3)
            for wait in (waiting, reader.reached(1), reader.failed()):
                with pytest.raises(ValueError, match="planted"):
                    await wait
        assert reader.position == 0
    assert len(calls) == 1
    assert [str(error) for error in reported.items] == ["planted"]


async def test_garbage_in_a_subject_is_read_like_everything_else(nats: NatsServer):
    """A client that does not check can store any bytes but spaces and line ends in a subject."""
    topology = Topology(Subjects(nats.prefix))
    read: Arrivals[Record] = Arrivals()
    address = urlsplit(nats.url)
    async with open_link(nats.url, name="a") as connection:
        await ensure_streams(connection, topology)
        stem = f"{nats.prefix}.task.acme.".encode()
        names = [b"\xff\xfe\x80", b"a\x0bb", "日本".encode(), b"\x00\x01", b"%s", b"x" * 900]
        with socket.create_connection((address.hostname, address.port)) as raw:
            lines = b"".join(b"PUB %b%b 1\r\nx\r\n" % (stem, name) for name in names)
            raw.sendall(b'CONNECT {"verbose":false}\r\n' + lines + b"PING\r\n")
            received = b""
            while b"PONG" not in received:
                received += raw.recv(65536)
        async with Reader(connection, topology.journal, start=1, callback=read.extend):
            await read.count(len(names))
            assert connection.generation == 1
    found = [record.subject for record in read.items]
    assert found == [(stem + name).decode("utf-8", "replace") for name in names]
    assert all(topology.subjects.parse(subject).kind == "malformed" for subject in found[:-1])
