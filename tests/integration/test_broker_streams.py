"""The streams are created once, with the settings that the guarantees rest on, and checked."""

from __future__ import annotations

import time

import pytest

from callboard_broker.connection import Connection, open_link
from callboard_broker.direct import get_last, get_message
from callboard_broker.errors import StreamDrift, StreamMissing
from callboard_broker.publisher import Publisher
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from tests.arrivals import Arrivals
from tests.servers import NatsServer


async def change(connection: Connection, stream: str, **settings: object) -> None:
    info = await connection.api(f"STREAM.INFO.{stream}")
    await connection.api(f"STREAM.UPDATE.{stream}", {**info["config"], **settings})


def test_the_default_board_has_the_plain_names_and_another_one_its_own():
    plain, other = Topology(), Topology(Subjects("lab-2"))
    assert (plain.journal, plain.beats, plain.audit, plain.blobs) == (
        "JOURNAL",
        "BEATS",
        "AUDIT",
        "BLOBS",
    )
    assert other.journal == "JOURNAL_LAB-2"


async def test_ensuring_twice_changes_nothing_and_two_boards_share_a_server(nats: NatsServer):
    async with open_link(nats.url, name="a") as connection:
        for prefix in (nats.prefix, f"{nats.prefix}b"):
            topology = Topology(Subjects(prefix))
            await ensure_streams(connection, topology)
            before = await connection.api(f"STREAM.INFO.{topology.journal}")
            await ensure_streams(connection, topology)
            after = await connection.api(f"STREAM.INFO.{topology.journal}")
            assert before["config"] == after["config"]
            assert before["created"] == after["created"]


@pytest.mark.parametrize(
    ("stream", "settings", "named"),
    [
        ("journal", {"max_age": 3600 * 10**9}, "max_age is 3600000000000, must be 0"),
        ("journal", {"duplicate_window": 60 * 10**9}, "duplicate_window"),
        ("journal", {"allow_rollup_hdrs": True}, "allow_rollup_hdrs is True, must be False"),
        ("journal", {"republish": None}, "republish is None"),
        ("journal", {"allow_atomic": False}, "allow_atomic"),
        ("journal", {"allow_direct": False}, "allow_direct"),
        ("journal", {"max_bytes": 10**9, "discard": "new"}, "discard is 'new'.*max_bytes"),
        ("beats", {"max_msgs_per_subject": 5}, "max_msgs_per_subject is 5, must be 1"),
    ],
)
async def test_a_drifted_stream_is_named_with_its_setting(
    nats: NatsServer, stream: str, settings: dict[str, object], named: str
):
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="a") as connection:
        await ensure_streams(connection, topology)
        await change(connection, getattr(topology, stream), **settings)
        with pytest.raises(StreamDrift, match=named) as raised:
            await ensure_streams(connection, topology)
        assert raised.value.stream == getattr(topology, stream)
        assert set(raised.value.differences) == set(settings)


async def test_an_audit_stream_that_could_be_emptied_is_drift(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="a") as connection:
        await connection.api(
            f"STREAM.CREATE.{topology.audit}",
            {"name": topology.audit, "subjects": [f"{nats.prefix}.audit.*"]},
        )
        with pytest.raises(StreamDrift, match="deny_delete is False, must be True"):
            await ensure_streams(connection, topology)


async def test_the_journal_republishes_what_it_stored_for_the_poster(nats: NatsServer):
    subjects = Subjects(nats.prefix)
    told: Arrivals[tuple[str, bytes]] = Arrivals()
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        await ensure_streams(connection, Topology(subjects))
        await connection.sink(
            subjects.told("acme", 7), lambda subject, _r, _h, data: told.add((subject, data))
        )
        await publisher.put(subjects.dispatch("acme", "shared", "review"), b"not told")
        await publisher.put(subjects.run("acme", "outcome", 7), b"told")
        await told.count(1)
    assert told.items == [(subjects.told("acme", 7), b"told")]


async def test_the_last_sequence_comes_with_the_servers_time(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        with pytest.raises(StreamMissing, match=topology.journal):
            await last_sequence(connection, topology.journal)
        await ensure_streams(connection, topology)
        for expected in (1, 2):
            seq = await publisher.put(topology.subjects.task("acme", "review"), b"{}")
            assert seq == expected
        seq, now_ms = await last_sequence(connection, topology.journal)
        assert seq == 2
        assert abs(now_ms - time.time() * 1000) < 5000  # the same machine
        assert 0 <= connection.server_now_ms() - now_ms < 1000


async def test_one_message_is_read_by_its_sequence_or_as_the_last_of_its_subject(
    nats: NatsServer,
):
    topology = Topology(Subjects(nats.prefix))
    subject = topology.subjects.task("acme", "review")
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        await ensure_streams(connection, topology)
        for data in (b"one", b"", b"three"):
            await publisher.put(subject, data)
        record = await get_message(connection, topology.journal, 1)
        assert (record.seq, record.subject, record.data) == (1, subject, b"one")
        assert abs(record.at_ns / 10**9 - time.time()) < 5
        assert (await get_message(connection, topology.journal, 2)).data == b""
        assert (await get_last(connection, topology.journal, subject)).seq == 3
        with pytest.raises(LookupError, match="no message 9"):
            await get_message(connection, topology.journal, 9)
        with pytest.raises(StreamMissing, match="NOSUCH"):
            await get_message(connection, "NOSUCH", 1)
