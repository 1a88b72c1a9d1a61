"""A router of a few lines for tests of the client: it answers each command as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from callboard_broker.connection import Connection, open_link
from callboard_broker.publisher import Publisher
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Event, encode
from tests.servers import NatsServer

__all__ = ["Journal", "scripted"]


class Journal:
    """The journal, as the script writes and reads it. records: so far. reached: waits until the
    record of a sequence was read."""

    reached: Callable[[int], Awaitable[None]]

    def __init__(self, connection: Connection, publisher: Publisher, subjects: Subjects) -> None:
        self.connection = connection
        self.subjects = subjects
        self.records: list[Record] = []
        self._publisher = publisher

    async def write(self, tenant: str, kind: str, shard: int, event: Event) -> int:
        """Store an event of the router's; its sequence."""
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def done(seq: int | None, error: Exception | None) -> None:
            if seq is not None:
                stored.set_result(seq)
            else:
                stored.set_exception(error or AssertionError(kind))

        subject = self.subjects.run(tenant, kind, shard)
        self._publisher.publish(subject, encode(event), done=done)
        return await stored


@asynccontextmanager
async def scripted(
    nats: NatsServer, script: Callable[[Journal, Record], None] | None = None
) -> AsyncIterator[Journal]:
    """The streams of a board, and a `script` that sees each record as it is stored."""
    subjects = Subjects(nats.prefix)
    topology = Topology(subjects)
    async with open_link(nats.url, name="script") as connection:
        await ensure_streams(connection, topology)
        async with Publisher(connection) as publisher:
            journal = Journal(connection, publisher, subjects)

            def read(records: list[Record]) -> None:
                for record in records:
                    journal.records.append(record)
                    if script is not None:
                        script(journal, record)

            async with Reader(connection, topology.journal, start=1, callback=read) as reader:
                journal.reached = reader.reached
                yield journal
