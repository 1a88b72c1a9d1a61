"""A blob comes back as it was put, or not at all."""

from __future__ import annotations

import hashlib
import random

import pytest

from callboard_broker.blobs import Blobs
from callboard_broker.connection import open_link
from callboard_broker.errors import BadInput, StreamMissing, TooLarge
from callboard_broker.publisher import Publisher
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_broker.wire import BlobRef
from tests.servers import NatsServer

MIB = 1024 * 1024


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, MIB, 20 * MIB])
async def test_what_was_put_is_got(nats: NatsServer, size: int):
    topology = Topology(Subjects(nats.prefix))
    data = content(size)
    async with open_link(nats.url, name="a") as connection:
        await ensure_streams(connection, topology)
        blobs = Blobs(connection, topology)
        ref = await blobs.put(data)
        assert (ref.size, ref.digest) == (size, hashlib.sha256(data).hexdigest())
        assert await blobs.get(ref) == data


async def test_the_same_content_is_stored_once(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="a") as connection:
        await ensure_streams(connection, topology)
        blobs = Blobs(connection, topology)
        refs = {await blobs.put(content(MIB)) for _ in range(3)}
        info = await connection.api(f"STREAM.INFO.{topology.blobs}")
    assert len(refs) == 1
    assert info["state"]["messages"] == 4


async def test_a_part_that_was_changed_is_noticed(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        await ensure_streams(connection, topology)
        blobs = Blobs(connection, topology)
        ref = await blobs.put(content(MIB))
        forged = content(MIB)[: 256 * 1024 - 1] + b"!"
        await publisher.put(topology.blob(ref.name, 0), forged)
        with pytest.raises(BadInput, match="not what the reference says"):
            await blobs.get(ref)


async def test_a_part_that_is_longer_than_it_may_be_is_refused(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="a") as connection, Publisher(connection) as publisher:
        await ensure_streams(connection, topology)
        blobs = Blobs(connection, topology)
        ref = await blobs.put(content(MIB))
        await publisher.put(topology.blob(ref.name, 0), bytes(MIB - 1000))
        with pytest.raises(BadInput, match="not what the reference says"):
            await blobs.get(ref)


async def test_a_blob_that_is_gone_and_a_board_without_streams_are_told_apart(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="a") as connection:
        blobs = Blobs(connection, topology)
        with pytest.raises(StreamMissing):
            await blobs.put(content(MIB))
        await ensure_streams(connection, topology)
        ref = await blobs.put(content(MIB))
        await connection.api(f"STREAM.PURGE.{topology.blobs}")
        with pytest.raises(LookupError, match="not stored"):
            await blobs.get(ref)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"size": 65 * MIB}, TooLarge),
        ({"size": 10**15}, TooLarge),
        ({"size": MIB + 1}, LookupError),
        ({"size": MIB - 1}, BadInput),
        ({"digest": "0" * 64}, BadInput),
        ({"name": "x"}, BadInput),
        ({"name": "a.*.>"}, BadInput),
        ({"name": "0" * 64 + "-1"}, BadInput),
    ],
)
async def test_a_reference_that_cannot_be_is_refused(
    nats: NatsServer, change: dict[str, int | str], error: type[Exception]
):
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="a") as connection:
        await ensure_streams(connection, topology)
        blobs = Blobs(connection, topology)
        ref = await blobs.put(content(MIB))
        fields = {"name": ref.name, "size": ref.size, "digest": ref.digest, **change}
        with pytest.raises(error):
            await blobs.get(BlobRef(**fields))
