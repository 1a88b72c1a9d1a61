"""A board for tests of the router alone: the test writes what agents, posters and ledger would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from callboard_broker.blobs import Blobs
from callboard_broker.connection import Connection, open_link
from callboard_broker.direct import get_last
from callboard_broker.publisher import Publisher
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Beat,
    BlobRef,
    Budget,
    Dispatch,
    Epoch,
    Limit,
    Offer,
    Outcome,
    Snapshot,
    decode_event,
    encode,
)
from callboard_router.desk import Policy
from callboard_router.shell import RouterOptions, run_router
from callboard_router.state import FOLD_VERSION
from callboard_router.upkeep import UpkeepOptions
from tests.servers import NatsServer

__all__ = ["Room", "room"]

LIMITS = {"global": Limit(concurrency=100), "tenant": Limit(concurrency=100)}


@dataclass(slots=True)
class Room:
    """A board without a ledger and agents: the test writes what they would."""

    nats: NatsServer
    connection: Connection
    publisher: Publisher
    topology: Topology
    blobs: Blobs
    saved: int = 0

    async def put(self, subject: str, message: object) -> int:
        data = message if isinstance(message, bytes) else encode(message)
        return await self.publisher.put(subject, data)

    async def post(self, data: bytes = b"{}") -> int:
        return await self.put(self.topology.subjects.task("acme", "work"), data)

    async def finished_tasks(self, count: int) -> None:
        """An epoch with tasks that are posted, dispatched and done."""
        subjects, publish = self.topology.subjects, self.publisher.publish
        epoch = await self.put(subjects.epoch, Epoch("old#1", FOLD_VERSION))
        budget = Budget(epoch, base=LIMITS)
        seq = await self.put(subjects.run("all", "budget", 0), budget)
        post = subjects.task("acme", "work")
        dispatch = subjects.dispatch("acme", "shared", "work")
        outcome = subjects.run("acme", "outcome", 0)
        for number in range(count):
            task = str(seq + 1)
            seq += 3
            publish(post, b'{"payload":{"n":%d},"nonce":"%032x"}' % (number, number))
            publish(dispatch, encode(Dispatch(task, 1, "s", epoch, 0, 0, 20.0)))
            done = Outcome(task, 1, "s", "h", 0, 0, result=msgspec.Raw(b"1"))
            publish(outcome, encode(done))
            if number % 2000 == 0:
                await self.publisher.settled()
        await self.publisher.settled()
        assert (await last_sequence(self.connection, self.topology.journal))[0] == seq

    async def snapshot(self, *, beyond: int = 0) -> Snapshot:
        """The snapshot that the epoch names, as soon as it is one of a later sequence."""
        subject = self.topology.subjects.epoch
        async with asyncio.timeout(60):
            while True:
                record = await get_last(self.connection, self.topology.journal, subject)
                event = decode_event("epoch", record.data)
                if isinstance(event, Epoch) and event.snapshot and event.snapshot.seq > beyond:
                    return event.snapshot
                await asyncio.sleep(0.05)  # the epoch's subject is not republished

    async def until(self, holds: Callable[[int], bool]) -> int:
        """The first sequence of the journal, as soon as it satisfies `holds`."""
        async with asyncio.timeout(30):
            while not holds(first := await self.first()):  # noqa: ASYNC110  a purge tells nobody
                await asyncio.sleep(0.05)
        return first

    async def first(self) -> int:
        info = await self.connection.api(f"STREAM.INFO.{self.topology.journal}")
        return int(info["state"]["first_seq"])

    async def has(self, blob: BlobRef) -> bool:
        try:
            await get_last(self.connection, self.topology.blobs, self.topology.blob(blob.name, 0))
        except LookupError:
            return False
        return True

    async def be_ledger(self) -> None:
        """Answer how far the ledger is: `saved`."""

        def answer(_subject: str, reply: str, _headers: bytes, _data: bytes) -> None:
            said = dict.fromkeys(("position", "last", "audited", "archived"), 9**9)
            said["saved"] = self.saved
            self.connection.send(reply, encode(said))

        await self.connection.sink(self.topology.subjects.ask("all", "position"), answer)

    async def be_host(self) -> None:
        """Offer to work."""
        beat = Beat("h", "h-1", "shared", [Offer("work", 50, 50)])
        await self.put(self.topology.subjects.beat("shared", "h"), beat)

    @asynccontextmanager
    async def router(self, name: str, **upkeep: float) -> AsyncIterator[float]:
        """A router that runs; yields the seconds until it was ready."""
        chosen = {"snapshot_events": 1000, "retention_days": 0.0, "purge_seconds": 0.1} | upkeep
        options = RouterOptions(
            url=self.nats.url,
            name=name,
            prefix=self.nats.prefix,
            policy=Policy(limits=LIMITS, standby=0.5),
            upkeep=UpkeepOptions(**chosen),  # type: ignore[arg-type]
        )
        ready = asyncio.Event()
        began = time.monotonic()
        running = asyncio.create_task(run_router(options, ready=ready.set))
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            yield time.monotonic() - began
        finally:
            waiting.cancel()
            running.cancel()
            await asyncio.gather(running, waiting, return_exceptions=True)


@asynccontextmanager
async def room(nats: NatsServer) -> AsyncIterator[Room]:
    topology = Topology(Subjects(nats.prefix))
    async with (
        open_link(nats.url, name="test") as connection,
        Publisher(connection) as publisher,
    ):
        await ensure_streams(connection, topology)
        yield Room(nats, connection, publisher, topology, Blobs(connection, topology))
