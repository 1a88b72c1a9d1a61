"""The projector, its database and the board are killed and away; the tables end as they should."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from callboard_broker.bookmarks import read_bookmarks, remove_bookmark
from callboard_broker.connection import Connection, open_link
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.directory import LedgerDirectory
from callboard_ledger.projection.postgres import PostgresTarget, migrate
from callboard_ledger.projection.reader import TargetReader
from callboard_ledger.projection.restoring import restore
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.store import AllocationsQuery, FailuresQuery, FiguresQuery, Query
from callboard_router.purge import Needed, purge
from tests.databases import Database, open_postgres
from tests.ledger_journal import random_journal
from tests.projections import (
    caught_up,
    check_projection,
    plain,
    projecting,
    publish,
    stored_journal,
)
from tests.servers import NatsServer

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

SLOW = pytest.mark.skipif(not os.environ.get("CALLBOARD_SLOW"), reason="set CALLBOARD_SLOW=1")

_EACH = 400
"""Events that come from one kill to the next."""


async def stream_of(link: Connection, topology: Topology) -> str:
    info = await link.api(f"STREAM.INFO.{topology.journal}")
    return f"{topology.journal} {info['created']}"


async def check(nats: NatsServer, link: Connection, database: Database) -> None:
    """The tables equal an independent fold of what the server holds, and have each event once."""
    topology = Topology(Subjects(nats.prefix))
    records = await stored_journal(link, topology)
    target = PostgresTarget(database.url)
    try:
        stream = await stream_of(link, topology)
        await check_projection(target, stream, records, topology.subjects)
    finally:
        await target.close()
    counted = "select count(*), count(distinct seq), max(seq) from callboard_"
    for table in ("events", "audit"):
        assert database.run(counted + table) == [(len(records),) * 3]
    outcomes = "select coalesce(sum(succeeded + failed), 0) from callboard_performance"
    accepted = (
        "select count(*) from callboard_events where kind = 'outcome' and verdict = 'accepted'"
    )
    assert database.run(outcomes) == database.run(accepted)


@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=[pytest.mark.slow, SLOW])])
async def test_the_tables_are_complete_after_kills_of_the_projector_at_random_points(
    nats: NatsServer, database: Database, kills: int
):
    rng = random.Random(kills)
    events = kills * _EACH
    await migrate(database.url)
    topology = Topology(Subjects(nats.prefix))
    settings = {"PROJECTION__BATCH": "37", "PROJECTION__FLUSH_SECONDS": "0.005"}
    async with open_link(nats.url, name="test") as link, asyncio.TaskGroup() as group:
        await ensure_streams(link, topology)
        journal = random_journal(kills + 1, events, resume=False, budgets=True)
        posting: asyncio.Task[None] | None = None
        written: list[int] = []
        for number in range(kills):  # so that at each kill there is something to write
            if posting is not None:
                await posting
            part = journal[number * _EACH : (number + 1) * _EACH]
            posting = group.create_task(publish(nats, part))
            async with projecting(nats, database.url, **settings) as process:
                await asyncio.sleep(rng.uniform(0.0, 0.3))  # any moment will do
                process.kill()
            written.append(database.run("select coalesce(max(seq), 0) from callboard_events")[0][0])
        assert posting is not None
        await posting
        async with projecting(nats, database.url) as process:
            await caught_up(link, topology, events)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        print("written at each kill:", written)
        await check(nats, link, database)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
async def test_while_the_database_is_away_nothing_is_lost_and_the_backlog_is_written_afterwards(
    nats: NatsServer, how: signal.Signals
):
    seconds = 30 if os.environ.get("CALLBOARD_SLOW") else 3
    topology = Topology(Subjects(nats.prefix))
    with open_postgres() as own:
        if not own.owned:
            pytest.skip("an existing database cannot be stopped")
        database = own.database()
        await migrate(database.url)
        async with open_link(nats.url, name="test") as link, asyncio.TaskGroup() as group:
            await ensure_streams(link, topology)
            async with projecting(nats, database.url):
                await publish(nats, random_journal(1, 1000, resume=False))
                await caught_up(link, topology, 500)
                posting = group.create_task(publish(nats, random_journal(2, 8000, resume=False)))
                own.stop(how)
                async with asyncio.timeout(30):
                    while True:
                        (mark,) = await read_bookmarks(link, topology)
                        if mark.problem:
                            break
                        await asyncio.sleep(0.1)
                await asyncio.sleep(seconds)
                await posting
                (mark,) = await read_bookmarks(link, topology)
                behind = 9000 - mark.position
                assert mark.problem
                assert mark.since
                own.start()
                began = time.monotonic()
                mark = await caught_up(link, topology, 9000)
                drained = time.monotonic() - began
                assert (mark.problem, mark.parked) == ("", 0)
            print(f"away {seconds} s, {behind} events behind, written {drained:.1f} s later")
            await check(nats, link, database)


async def test_of_two_projectors_into_one_database_each_event_is_written_once(
    nats: NatsServer, database: Database
):
    await migrate(database.url)
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="test") as link:
        await ensure_streams(link, topology)
        async with (
            projecting(nats, database.url, PROJECTION__BATCH="50"),
            projecting(nats, database.url, PROJECTION__BATCH="70", PROJECTION__NAME="other"),
        ):
            await publish(nats, random_journal(5, 3000, resume=False))
            await caught_up(link, topology, 3000)
        await check(nats, link, database)


async def test_the_journal_keeps_what_no_projector_has_written(
    nats: NatsServer, database: Database
):
    await migrate(database.url)
    topology = Topology(Subjects(nats.prefix))
    needed = Needed(floor=9000, snapshot=9000, epoch=9000)
    async with open_link(nats.url, name="test") as link:
        await ensure_streams(link, topology)

        def answer(_subject: str, reply: str, _headers: bytes, _data: bytes) -> None:
            link.send(reply, b'{"saved":9000,"audited":9000,"archived":9000}')

        await link.sink(topology.subjects.ask("all", "position"), answer)
        await publish(nats, random_journal(6, 500, resume=False))
        async with projecting(nats, database.url):
            await caught_up(link, topology, 500)
        await publish(nats, random_journal(7, 300, resume=False))
        assert await purge(link, topology, needed, retention_days=0) == 500
        assert await purge(link, topology, needed, retention_days=0) == 0
        async with projecting(nats, database.url):
            await caught_up(link, topology, 800)
        assert database.run("select count(*) from callboard_events") == [(800,)]
        assert await remove_bookmark(link, topology, "projector")
        assert not await remove_bookmark(link, topology, "projector")
        assert await purge(link, topology, needed, retention_days=0) > 0


async def test_a_ledger_whose_database_is_gone_is_restored_although_the_journal_was_purged(
    nats: NatsServer, database: Database, tmp_path: Path
):
    await migrate(database.url)
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="test") as link:
        await ensure_streams(link, topology)
        journal = random_journal(8, 2000, budgets=True)
        await publish(nats, journal)
        async with projecting(nats, database.url):
            await caught_up(link, topology, 2000)
        records = await stored_journal(link, topology)
        await link.api(f"STREAM.PURGE.{topology.journal}", {"seq": 1900})
        stream = await stream_of(link, topology)
    target = PostgresTarget(database.url)
    done = await restore(target, stream, tmp_path / "ledger")
    await target.close()
    whole = Aggregator(topology.subjects)
    for record in records:
        whole.apply(record)
    with LedgerDirectory(tmp_path / "ledger") as mine:
        name, _, created = stream.partition(" ")
        store = SqliteStore(mine.database, stream=name, created=created)
        found, kept = store.find(Query(limit=10_000)), store.load()
        figures = dict(store.figures(FiguresQuery()))
        failures = dict(store.failures(FailuresQuery(limit=10_000)))
        allocations = store.allocations(AllocationsQuery(limit=10_000))
        store.close()
    assert (kept.position, kept.epoch) == (done.position, whole.epoch) == (2000, whole.epoch)
    rows = [*whole.tasks.values(), *whole.flows.values(), *whole.schedules.values()]
    assert {row.id: plain(row) for row in found} == {row.id: plain(row) for row in rows}
    assert len(figures) > 2
    assert figures == whole.changes().performance.by_key
    assert failures
    assert failures == whole.changes().performance.failures
    assert allocations[::-1] == whole.changes().allocations
    assert {row.key: row for row in kept.accounts} == {
        key: row for key, row in whole.accounts.items() if row.open
    }


async def test_an_empty_database_is_filled_from_the_ledger_where_the_journal_was_purged(
    nats: NatsServer, database: Database, tmp_path: Path
):
    await migrate(database.url)
    topology = Topology(Subjects(nats.prefix))
    journal = random_journal(9, 1500, budgets=True)
    async with open_link(nats.url, name="test") as link:
        await ensure_streams(link, topology)
        await publish(nats, journal)
        records = await stored_journal(link, topology)
        stream = await stream_of(link, topology)
        whole = Aggregator(topology.subjects)
        (tmp_path / "ledger").mkdir()
        name, _, created = stream.partition(" ")
        store = SqliteStore(tmp_path / "ledger" / "ledger.db", stream=name, created=created)
        for record in records[:1000]:
            whole.apply(record)
        changes = whole.changes()
        store.save(changes)
        whole.saved(changes)
        await link.api(f"STREAM.PURGE.{topology.journal}", {"seq": 900})
        async with projecting(nats, database.url, LEDGER__STORE=str(tmp_path / "ledger")):
            await caught_up(link, topology, 1500)
        store.close()
        entire = Aggregator(topology.subjects)
        for record in records:
            entire.apply(record)
        target = PostgresTarget(database.url)
        reader = TargetReader(target, stream)
        found = await reader.find(Query(limit=10_000))
        figures = {key: tally async for key, tally in reader.figures()}
        allocations = [row async for row in reader.allocations()]
        accounts = {row.key: row for row in await reader.accounts()}
        await target.close()
        changes = entire.changes()
        assert figures == changes.performance.by_key
        assert allocations == changes.allocations
        assert accounts == {key: row for key, row in entire.accounts.items() if row.open}
        rows = [*entire.tasks.values(), *entire.flows.values(), *entire.schedules.values()]
        assert {row.id: row.state for row in found} == {row.id: row.state for row in rows}


def command(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """One `callboard` command."""
    environment = {**os.environ, **{f"CALLBOARD_{n}": v for n, v in settings.items()}}
    return subprocess.run(
        [sys.executable, "-m", "callboard", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_a_board_that_is_gone_is_still_listed_from_the_database(
    database: Database, tmp_path: Path, nats: NatsServer
):
    url = database.url
    first = command("projector", "--to", url, "--nats", nats.url, cwd=tmp_path)
    assert first.returncode == 2
    assert "callboard projector migrate" in first.stderr
    assert "applied 20" in command("projector", "migrate", "--to", url, cwd=tmp_path).stdout
    assert "already" in command("projector", "migrate", "--to", url, cwd=tmp_path).stdout
    topology = Topology(Subjects(nats.prefix))
    place = {"NATS_URL": nats.url, "BOARD__PREFIX": nats.prefix}
    async with open_link(nats.url, name="test") as link:
        await ensure_streams(link, topology)
        await publish(nats, random_journal(3, 600, resume=False))
        async with projecting(nats, url):
            await caught_up(link, topology, 600)
            told = await asyncio.to_thread(command, "status", "--json", cwd=tmp_path, **place)
            (mark,) = json.loads(told.stdout)["projectors"]
            assert (mark["name"], mark["position"]) == ("projector", 600)
            shown = await asyncio.to_thread(command, "status", cwd=tmp_path, **place)
            assert "projector" in shown.stdout
            assert "at 600" in shown.stdout
    nats.stop()
    gone = {"BOARD__PREFIX": nats.prefix}
    listed = command("list", "--from", url, "--json", "--limit", "9", cwd=tmp_path, **gone)
    assert listed.returncode == 0, listed.stderr
    rows: list[dict[str, Any]] = [json.loads(line) for line in listed.stdout.splitlines()]
    assert len(rows) == 9
    page = ("list", "--from", url, "--json", "--limit", "4", "--before", rows[4]["id"])
    older = command(*page, cwd=tmp_path, **gone).stdout.splitlines()
    assert [json.loads(line) for line in older] == rows[5:]
    one = command("status", rows[0]["id"], "--from", url, "--json", cwd=tmp_path, **gone)
    assert json.loads(one.stdout)["state"] == rows[0]["state"]
    overview = command("status", "--from", url, cwd=tmp_path, **gone)
    assert "to 600" in overview.stdout
    missing = command("status", "999999", "--from", url, cwd=tmp_path, **gone)
    assert missing.returncode == 2
    nobody = command("list", "--from", url, "--prefix", "other", cwd=tmp_path)
    assert "holds nothing of the board other" in nobody.stderr
    restored = command("projector", "restore", "--from", url, cwd=tmp_path, **gone)
    assert "at event 600" in restored.stdout
    again = command("projector", "restore", "--from", url, cwd=tmp_path, **gone)
    assert again.returncode == 2
    assert "move it away first" in again.stderr


def test_a_password_on_the_command_line_is_refused_and_repeated_nowhere(tmp_path: Path):
    for arguments in (
        ["projector", "--to", "postgres://me:hunter2@db/x"],
        ["status", "--from", "postgres://me:hunter2@db/x"],
        ["projector", "--to", "postgres://db/x?password=hunter2"],
        ["projector", "--to", "mysql://me:hunter2@db/x"],
    ):
        done = command(*arguments, cwd=tmp_path)
        assert done.returncode == 2
        assert "hunter2" not in done.stdout + done.stderr
    done = command("config", "show", cwd=tmp_path, PROJECTION__TO="postgres://me:hunter2@db/x")
    assert "hunter2" not in done.stdout
    assert "me:***@db" in done.stdout


def test_a_supabase_project_without_a_key_or_with_one_for_all_to_read_is_refused(tmp_path: Path):
    place = {"SUPABASE_URL": "https://example.supabase.co"}
    done = command("projector", "--to", "supabase", cwd=tmp_path, **place)
    assert done.returncode == 2
    assert "CALLBOARD_SUPABASE_KEY" in done.stderr
    key = tmp_path / "key"
    key.write_text("sb_secret_1234")
    key.chmod(0o644)
    place["PROJECTION__SUPABASE_KEY_FILE"] = str(key)
    done = command("projector", "--to", "supabase", cwd=tmp_path, **place)
    assert "chmod 600" in done.stderr
    plain_http = {"SUPABASE_URL": "http://example.com", "SUPABASE_KEY": "sb_secret_1234"}
    done = command("projector", "--to", "supabase", cwd=tmp_path, **plain_http)
    assert "https://" in done.stderr
    assert "sb_secret_1234" not in done.stdout + done.stderr


async def test_up_runs_a_projector_too(database: Database, tmp_path: Path):
    await migrate(database.url)
    board = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callboard", "up", "--json", "--to", database.url),
        *("--port", str(4300 + random.randrange(5000))),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert board.stdout is not None
        async with asyncio.timeout(60):
            while True:
                said = json.loads(await board.stdout.readline())
                if said["event"] == "started":
                    break
        assert "projector" in said["parts"]
        posted = await asyncio.to_thread(command, "submit", "work", "{}", "--json", cwd=tmp_path)
        assert posted.returncode == 0, posted.stderr
        async with asyncio.timeout(30):
            while True:
                if database.run("select 1 from callboard_tasks where capability = 'work'"):
                    break
                await asyncio.sleep(0.1)  # a table tells nobody
    finally:
        board.send_signal(signal.SIGTERM)
        await board.wait()
    shutil.rmtree(tmp_path / ".callboard")
    listed = command("list", "--from", database.url, "--json", cwd=tmp_path)
    assert json.loads(listed.stdout)["capability"] == "work"
