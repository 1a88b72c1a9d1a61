"""The ledger is killed again and again, and nobody can tell by its rows or its audit log."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec
import pytest

from callboard_broker.connection import Connection, NoResponder, open_link
from callboard_broker.publisher import Publisher
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.audit import read_tail
from callboard_ledger.directory import LedgerDirectory
from callboard_ledger.scan import scan
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.store import AllocationsQuery, Query
from callboard_ledger.trust import trust_of
from callboard_ledger.verify import verify_board
from tests.ledger_journal import plain_row, random_journal
from tests.naive_ledger import NaiveFold
from tests.servers import NatsServer

SLOW = pytest.mark.skipif(not os.environ.get("CALLBOARD_SLOW"), reason="set CALLBOARD_SLOW=1")

_EACH = 500
"""Events that come from one kill to the next."""

_LEDGER = """
import sys
from pathlib import Path
import uvloop
from callboard_ledger.serve import LedgerOptions, run_ledger
options = LedgerOptions(
    url=sys.argv[1], prefix=sys.argv[2], store=Path(sys.argv[3]), flush_seconds=0.003, batch=37
)
uvloop.run(run_ledger(options, ready=lambda: print("ready", flush=True)))
"""


@asynccontextmanager
async def ledger(nats: NatsServer, store: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A ledger in a process of its own, reading and answering; killed at the end."""
    arguments = [nats.url, nats.prefix, str(store)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _LEDGER, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def position(link: Connection, subjects: Subjects, at_least: int) -> dict[str, int]:
    """How far the ledger is, once it has folded `at_least`."""
    while True:
        try:
            reply = await link.request(subjects.ask("all", "position"), b"{}")
        except (NoResponder, TimeoutError):
            continue
        answer: dict[str, int] = msgspec.json.decode(reply.data)
        if answer["position"] >= at_least:
            return answer


async def publish(nats: NatsServer, journal: list[Record]) -> None:
    """Store the journal, as the next one of this server, at the pace of the server."""
    async with open_link(nats.url, name="poster") as link, Publisher(link) as publisher:
        for number, record in enumerate(journal):
            subject = f"{nats.prefix}.{record.subject.partition('.')[2]}"
            if not subject.isascii() or "*" in subject:
                subject = f"{nats.prefix}.run.odd"
            publisher.publish(subject, record.data)
            if number % 50 == 49:
                await publisher.settled()
        await publisher.settled()


@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=[pytest.mark.slow, SLOW])])
async def test_state_and_audit_log_are_complete_after_kills_at_random_points(
    nats: NatsServer, tmp_path: Path, kills: int
) -> None:
    rng = random.Random(kills)
    events = kills * _EACH
    store = tmp_path / "ledger"
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="test") as link, asyncio.TaskGroup() as group:
        await ensure_streams(link, topology)
        journal = random_journal(kills, events, resume=False, budgets=True)
        saved: list[int] = []
        for number in range(kills):  # so that at each kill there is something to fold
            async with ledger(nats, store) as process:
                part = journal[number * _EACH : (number + 1) * _EACH]
                posting = group.create_task(publish(nats, part))
                await asyncio.sleep(rng.uniform(0.0, 0.3))  # any moment will do
                process.kill()
            await posting
            saved.append(saved_by(store))
        print("saved at each kill:", saved)
        async with ledger(nats, store) as process:
            await position(link, topology.subjects, events)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        await check(link, topology, store, events)


def saved_by(directory: Path) -> int:
    """How far the store of a killed ledger is."""
    with closing(sqlite3.connect(directory / "ledger.db")) as database:
        return int(database.execute("SELECT coalesce(max(seq), 0) FROM position").fetchone()[0])


async def check(link: Connection, topology: Topology, directory: Path, events: int) -> None:
    """The stored rows equal an uninterrupted fold and an independent one, and the audit log covers
    every event once."""
    whole = Aggregator(topology.subjects)

    def fold(record: Record) -> None:
        whole.apply(record)

    await scan(link, topology.journal, fold)
    info = await link.api(f"STREAM.INFO.{topology.journal}")
    with LedgerDirectory(directory) as mine:
        store = SqliteStore(mine.database, stream=topology.journal, created=info["created"])
        found = store.find(Query(limit=10 * events))
        kept = store.load()
        allocations = store.allocations(AllocationsQuery(limit=10 * events))
        store.close()
    assert kept.position == whole.position == events
    assert (kept.epoch, kept.void, kept.malformed) == (whole.epoch, whole.void, whole.malformed)
    rows = [*whole.tasks.values(), *whole.flows.values(), *whole.schedules.values()]
    assert {row.id: plain_row(row) for row in found} == {row.id: plain_row(row) for row in rows}
    naive = NaiveFold()
    await scan(link, topology.journal, naive.apply)
    states = {row.id: row.state for row in found}
    independent = [*naive.tasks.items(), *naive.flows.items(), *naive.schedules.items()]
    assert states == {name: row["state"] for name, row in independent}
    assert {row.seq: row.ending for row in allocations} == {
        seq: row["ending"] for seq, row in naive.allocations.items()
    }
    assert {row.key: row.in_use for row in kept.accounts} == {
        key: row["in_use"] for key, row in naive.accounts().items()
    }
    assert {row.task for row in kept.allocations} == set(whole.held)
    assert {row.key: row for row in kept.accounts} == {
        key: row for key, row in whole.accounts.items() if row.open
    }
    trust = trust_of(directory)
    report = await verify_board(link, topology, trust)
    assert report.findings == []
    assert (report.audited, report.unaudited_tail) == (events, 0)
    assert report.signed
    assert report.anchored
    assert trust.checkpoints[-1].root == (await read_tail(link, topology)).root


async def test_a_stop_by_signal_saves_everything(nats: NatsServer, tmp_path: Path) -> None:
    topology = Topology(Subjects(nats.prefix))
    store = tmp_path / "ledger"
    for number in (signal.SIGTERM, signal.SIGINT):
        async with ledger(nats, store) as process:
            async with open_link(nats.url, name="test") as link:
                await publish(nats, random_journal(3, 500))
                last = (await position(link, topology.subjects, 500))["last"]
            os.kill(process.pid, number)
            assert await process.wait() == 0
        assert trust_of(store).checkpoints[-1].size == last
