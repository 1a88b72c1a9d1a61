"""The tracker in a Supabase project: the same rows, by its own client.

CI has a compatible server (an npm package) before a real Postgres; see `test_supabase.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from callboard_broker.bookmarks import read_bookmarks
from callboard_broker.connection import open_link
from callboard_broker.errors import TargetRefused
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_integrations.cerebral import CerebralTarget, Puller, Tables
from callboard_integrations.cerebral.names import step_of
from callboard_integrations.cerebral.target import find_problems
from callboard_integrations.supabase import SupabaseTarget
from callboard_ledger.projection.postgres import PostgresTarget
from tests.databases import Database, Postgres, Supabase, open_supabase
from tests.ledger_journal import SUBJECTS, random_journal
from tests.projections import STREAM, caught_up, check_projection, publish
from tests.servers import NatsServer
from tests.trackers import ACME, GLOBEX, NAMES, add_row, batches, mirroring, rows_of, send, tracked
from tests.whole_board import whole_board

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]


@dataclass(frozen=True, slots=True)
class Project:
    """The server, and the database behind it."""

    own: Supabase
    database: Database

    def target(self, key: str | None = None) -> SupabaseTarget:
        return SupabaseTarget(self.own.url, key or self.own.key)


@pytest.fixture
def project(postgres: Postgres, tmp_path: Path) -> Iterator[Project]:
    database = postgres.database()
    folder = tmp_path / "supabase"
    folder.mkdir()
    with open_supabase(folder, database, lambda: asyncio.run(tracked(database))) as own:
        yield Project(own, database)


async def test_the_rows_are_those_that_a_driver_writes(project: Project, database: Database):
    records = random_journal(13, 800, resume=False)
    inner = project.target()
    target = CerebralTarget(inner, Tables(), board="cb")
    try:
        assert await find_problems(target, Tables()) == []
        standing = await send(target, records, 200)
        assert (standing.parked, standing.position) == (0, len(records))
        await check_projection(target, STREAM, records, SUBJECTS)
        before = rows_of(project.database)
        for batch in batches(records, [200]):
            answer = await target.call("callboard_project", batch.document())
            assert not answer["stored"]
    finally:
        await inner.close()
    assert rows_of(project.database) == before
    await tracked(database)
    driver = CerebralTarget(PostgresTarget(database.url), Tables(), board="cb")
    try:
        await send(driver, records, 200)
    finally:
        await driver.close()
    assert rows_of(database) == before


async def test_nobody_but_the_service_calls_the_functions(project: Project):
    stranger = project.target(project.own.publishable)
    question = json.dumps({"tasks": "cerebral_tasks", "tenant": ACME, "board": "cb", "most": 9})
    try:
        with pytest.raises(TargetRefused):
            await stranger.call("callboard_cerebral_find", question)
        with pytest.raises(TargetRefused):
            await stranger.call("callboard_cerebral_mark", question)
    finally:
        await stranger.close()


async def test_pending_rows_are_pulled_and_others_tenants_are_not_seen(
    project: Project, nats: NatsServer, tmp_path: Path
):
    meta = '{"capability": "nobody.there"}'
    mine = add_row(project.database, ACME, "mine", metadata=meta)
    add_row(project.database, GLOBEX, "theirs", metadata=meta)
    target = project.target()
    try:
        async with whole_board(nats, tmp_path) as there:
            puller = Puller(there.board, target, Tables(), NAMES)
            pulled = await puller.pull("acme")
            assert list(pulled.posted) == [mine]
            assert pulled.posted[mine].endswith(step_of(mine))
            assert (await puller.pull("acme")).posted == {}
    finally:
        await target.close()
    theirs = rows_of(project.database)["theirs"]
    assert theirs["metadata"] == json.loads(meta)


async def test_while_supabase_is_away_nothing_is_lost(nats: NatsServer, project: Project):
    topology = Topology(Subjects(nats.prefix))
    place = {"SUPABASE_URL": project.own.url, "SUPABASE_KEY": project.own.key}
    async with open_link(nats.url, name="test") as link, asyncio.TaskGroup() as group:
        await ensure_streams(link, topology)
        async with mirroring(nats, "supabase", **place):
            await publish(nats, random_journal(51, 400, resume=False))
            await caught_up(link, topology, 100)
            posting = group.create_task(publish(nats, random_journal(52, 1200, resume=False)))
            project.own.kill()
            async with asyncio.timeout(30):
                while True:
                    (mark,) = await read_bookmarks(link, topology)
                    if mark.problem:
                        break
                    await asyncio.sleep(0.1)  # a bookmark tells nobody that it was moved
            assert project.own.key not in mark.problem
            await posting
            await asyncio.to_thread(project.own.start)
            mark = await caught_up(link, topology, 1600)
            assert (mark.problem, mark.parked) == ("", 0)
        counted = "select count(*), count(distinct activity_id) from cerebral_activities"
        count, distinct = project.database.run(counted)[0]
        assert count == distinct > 100
