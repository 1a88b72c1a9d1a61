"""The mirror and its database are killed and away; the tracker ends as it should."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from callboard_broker.bookmarks import read_bookmarks
from callboard_broker.connection import Connection, open_link
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_integrations.cerebral.names import Names
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.sqlite_store import SqliteStore
from tests.databases import Database, open_postgres
from tests.ledger_journal import random_journal
from tests.naive_ledger import NaiveFold
from tests.projections import caught_up, publish, stored_journal
from tests.servers import NatsServer
from tests.trackers import ACME, GLOBEX, mirroring, rows_of, tracked

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

_EACH = 300
"""Events that come from one kill to the next."""

STATUSES = {
    "waiting": {"pending", "blocked"},
    "running": {"in_progress", "blocked"},
    "succeeded": {"completed"},
    "failed": {"blocked"},
    "expired": {"blocked"},
    "cancelled": {"cancelled"},
}


async def check(link: Connection, topology: Topology, database: Database) -> None:
    """The tracker says what an independent fold says, of each tenant, and every event once."""
    records = await stored_journal(link, topology)
    naive = NaiveFold()
    for record in records:
        naive.apply(record)
    expected = {
        name: row
        for name, row in [*naive.tasks.items(), *naive.flows.items()]
        if name in naive.flows or not is_step(name)
    }
    rows = rows_of(database)
    found = {
        name: row
        for name, row in rows.items()
        if row["metadata"]["callboard"].get("kind") != "step"
        and "repeats" not in row["metadata"]["callboard"]
    }
    assert set(found) == set(expected)
    info = await link.api(f"STREAM.INFO.{topology.journal}")
    stream = f"{topology.journal} {info['created']}"
    for name, row in expected.items():
        assert found[name]["status"] in STATUSES[row["state"]], name
        assert found[name]["tenant_id"] == {"acme": ACME, "globex": GLOBEX}[row["tenant"]], name
        assert found[name]["task_id"] == Names.row(stream, name)
    counted = "select count(*), count(distinct activity_id) from cerebral_activities"
    count, distinct = database.run(counted)[0]
    assert count == distinct
    told = database.run(
        "select (metadata->>'seq')::bigint from cerebral_activities "
        "where action in ('task.started', 'task.lost')"
    )
    accepted = database.run(
        "select seq from callboard_events where verdict = 'accepted' "
        "and kind in ('dispatch', 'lost')"
    )
    assert sorted(told) == sorted(accepted)


def is_step(name: str) -> bool:
    """Whether a task is an element of a workflow's step."""
    return "." in name and not name.rpartition(".")[0].endswith(".cron")


async def test_the_rows_are_complete_after_kills_of_the_mirror_at_random_points(
    nats: NatsServer, database: Database
):
    rng, kills = random.Random(7), 5
    await tracked(database)
    topology = Topology(Subjects(nats.prefix))
    settings = {"PROJECTION__BATCH": "37", "PROJECTION__FLUSH_SECONDS": "0.005"}
    async with open_link(nats.url, name="test") as link, asyncio.TaskGroup() as group:
        await ensure_streams(link, topology)
        journal = random_journal(31, kills * _EACH, resume=False)
        for number in range(kills):
            part = journal[number * _EACH : (number + 1) * _EACH]
            posting = group.create_task(publish(nats, part))
            async with mirroring(nats, database.url, **settings) as process:
                await asyncio.sleep(rng.uniform(0.0, 0.3))  # any moment will do
                process.kill()
            await posting
        async with mirroring(nats, database.url) as process:
            await caught_up(link, topology, len(journal))
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        await check(link, topology, database)


async def test_while_the_database_is_away_nothing_is_lost_or_doubled(nats: NatsServer):
    topology = Topology(Subjects(nats.prefix))
    with open_postgres() as own:
        if not own.owned:
            pytest.skip("an existing database cannot be stopped")
        database = await tracked(own.database())
        async with open_link(nats.url, name="test") as link, asyncio.TaskGroup() as group:
            await ensure_streams(link, topology)
            async with mirroring(nats, database.url):
                await publish(nats, random_journal(41, 500, resume=False))
                await caught_up(link, topology, 200)
                posting = group.create_task(publish(nats, random_journal(42, 2500, resume=False)))
                own.stop(signal.SIGQUIT)
                async with asyncio.timeout(30):
                    while True:
                        (mark,) = await read_bookmarks(link, topology)
                        if mark.problem:
                            break
                        await asyncio.sleep(0.1)  # a bookmark tells nobody that it was moved
                await posting
                own.start()
                mark = await caught_up(link, topology, 3000)
                assert (mark.problem, mark.parked) == ("", 0)
            await check(link, topology, database)


async def test_an_empty_tracker_is_filled_from_the_ledger_where_the_journal_was_purged(
    nats: NatsServer, database: Database, tmp_path: Path
):
    await tracked(database)
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="test") as link:
        await ensure_streams(link, topology)
        await publish(nats, random_journal(61, 600, resume=False))
        records = await stored_journal(link, topology)
        info = await link.api(f"STREAM.INFO.{topology.journal}")
        whole = Aggregator(topology.subjects)
        (tmp_path / "ledger").mkdir()
        store = SqliteStore(
            tmp_path / "ledger" / "ledger.db", stream=topology.journal, created=info["created"]
        )
        for record in records[:400]:
            whole.apply(record)
        changes = whole.changes()
        store.save(changes)
        whole.saved(changes)
        await link.api(f"STREAM.PURGE.{topology.journal}", {"seq": 300})
        async with mirroring(nats, database.url, LEDGER__STORE=str(tmp_path / "ledger")):
            await caught_up(link, topology, 600)
        store.close()
    entire = Aggregator(topology.subjects)
    for record in records:
        entire.apply(record)
    rows = rows_of(database)
    for task in entire.tasks.values():
        if task.step is None or task.scheduled:
            assert rows[task.id]["status"] in STATUSES[task.state], task.id
    for flow in entire.flows.values():
        assert rows[flow.id]["status"] in STATUSES[flow.state], flow.id
