"""What tests of projectors share: one in a process of its own, and the checks of what it wrote."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from callboard_broker.bookmarks import Bookmark, read_bookmarks
from callboard_broker.connection import Connection, open_link
from callboard_broker.publisher import Publisher
from callboard_broker.record import Record
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.projection.batch import Gathering
from callboard_ledger.projection.delivery import Delivery, Standing
from callboard_ledger.projection.reader import TargetReader
from callboard_ledger.projection.target import Target
from callboard_ledger.reading import read
from callboard_ledger.rows import Row
from callboard_ledger.scan import scan
from callboard_ledger.store import Query
from tests.ledger_journal import SUBJECTS, plain_row
from tests.naive_ledger import NaiveFold
from tests.servers import NatsServer

__all__ = [
    "STREAM",
    "caught_up",
    "check_projection",
    "deliver",
    "plain",
    "projecting",
    "publish",
    "stored_journal",
]

STREAM = "JOURNAL 2026-01-01T00:00:00Z"
ROOT = Path(__file__).parent.parent


async def deliver(
    target: Target, records: list[Record], *, batch: int = 100, stream: str = STREAM
) -> Standing:
    """Project a journal that no server holds, batch by batch; return how it went."""
    aggregator, standing = Aggregator(SUBJECTS), Standing()
    delivery = Delivery(target, standing)
    gathering = Gathering(stream, "cb", 0, event_bytes=4096)
    for number, record in enumerate(records, 1):
        reading = read(SUBJECTS, record)
        gathering.add(record, reading, aggregator.fold(record, reading))
        if len(gathering) >= batch or number == len(records):
            changes = aggregator.changes()
            made = gathering.take(changes)
            aggregator.saved(changes)
            async with asyncio.timeout(60):
                await delivery.deliver(made)
    return standing


@asynccontextmanager
async def projecting(
    nats: NatsServer, to: str, command: tuple[str, ...] = ("projector",), **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`callboard projector` as a process, which is ready; killed at the end.

    command: another one that projects. settings: `CALLBOARD_*` without that prefix.
    """
    heard, said = os.pipe()
    environment = {
        **os.environ,
        "CALLBOARD_NATS_URL": nats.url,
        "CALLBOARD_BOARD__PREFIX": nats.prefix,
        "CALLBOARD_PROJECTION__TO": to,
        **{f"CALLBOARD_{name}": value for name, value in settings.items()},
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callboard", *command, "--ready-fd", str(said)),
        pass_fds=[said],
        env=environment,
        cwd=ROOT,
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(said)
    try:
        with os.fdopen(heard, "rb") as pipe:
            assert await asyncio.to_thread(pipe.read, 6) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def publish(nats: NatsServer, journal: list[Record]) -> None:
    """Store the journal, as the next one of this server, at the pace of the server."""
    async with open_link(nats.url, name="poster") as link, Publisher(link) as publisher:
        for number, record in enumerate(journal):
            subject = f"{nats.prefix}.{record.subject.partition('.')[2]}"
            if not subject.isascii() or "*" in subject:
                subject = f"{nats.prefix}.run.odd.odd"
            publisher.publish(subject, record.data)
            if number % 50 == 49:
                await publisher.settled()
        await publisher.settled()


async def caught_up(link: Connection, topology: Topology, position: int) -> Bookmark:
    """The bookmark of the projector, once it says that so much is written."""
    async with asyncio.timeout(90):
        while True:
            for bookmark in await read_bookmarks(link, topology):
                if bookmark.position >= position:
                    return bookmark
            await asyncio.sleep(0.1)  # a bookmark tells nobody that it was moved


async def stored_journal(link: Connection, topology: Topology) -> list[Record]:
    """Every message of the journal."""
    records: list[Record] = []
    await scan(link, topology.journal, records.append)
    return records


async def check_projection(
    target: Target, stream: str, records: list[Record], subjects: Subjects
) -> None:
    """What was written equals the ledger's own uninterrupted fold and an independent one."""
    whole, naive = Aggregator(subjects), NaiveFold()
    for record in records:
        whole.apply(record)
        naive.apply(record)
    reader = TargetReader(target, stream)
    head = await reader.head()
    assert (head.position, head.epoch) == (whole.position, whole.epoch)
    assert (head.void, head.malformed) == (whole.void, whole.malformed)
    found = await reader.find(Query(limit=10_000))
    every = {row.id: row async for row in reader.every() if hasattr(row, "state")}
    rows = [*whole.tasks.values(), *whole.flows.values(), *whole.schedules.values()]
    assert {row.id for row in found} == {row.id for row in rows}
    assert {row.id: plain(every[row.id]) for row in found} == {r.id: plain(r) for r in rows}
    states = {row.id: row.state for row in found}
    independent = [*naive.tasks.items(), *naive.flows.items(), *naive.schedules.items()]
    assert states == {name: row["state"] for name, row in independent}
    loaded = await reader.load()
    again = Aggregator(subjects)
    again.restore(loaded)
    live = {name for name, row in whole.tasks.items() if not row.ended}
    assert {name for name, row in again.tasks.items() if not row.ended} == live
    assert again.held == whole.held
    assert again.accounts == {key: row for key, row in whole.accounts.items() if row.open}
    await _check_holdings(reader, whole, naive)


async def _check_holdings(reader: TargetReader, whole: Aggregator, naive: NaiveFold) -> None:
    """What attempts hold, budgets and figures, likewise."""
    changes = whole.changes()
    allocations = [row async for row in reader.allocations()]
    assert allocations == changes.allocations
    assert {row.seq: row.ending for row in allocations} == {
        seq: row["ending"] for seq, row in naive.allocations.items()
    }
    accounts = {row.key: (row.in_use, row.reserved, row.used) for row in await reader.accounts()}
    assert accounts == {
        key: (row["in_use"], row["reserved"], row["used"]) for key, row in naive.accounts().items()
    }
    figures = {key: tally async for key, tally in reader.figures()}
    assert figures == changes.performance.by_key
    failures = {key: tally async for key, tally in reader.failures()}
    assert failures == changes.performance.failures


def plain(row: Row) -> dict[str, Any]:
    """What a row says, with numbers as a database gives them back."""
    fields = plain_row(row)
    encoded = msgspec.json.encode({str(name): value for name, value in fields.items()})
    decoded: dict[str, Any] = msgspec.json.decode(encoded)
    return decoded
