"""The projector's other target: Supabase, by its client.

CI has a compatible server (an npm package) before a real Postgres; with SUPABASE_URL the same tests
run against a hosted project.

A hosted project needs the migrations (`supabase db push`), SUPABASE_SECRET_KEY and
SUPABASE_PUBLISHABLE_KEY, and for the tenants' tokens SUPABASE_JWT_SECRET. Events there cannot be
deleted again, so every run writes under a name of its own: use a project for tests.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from postgrest import APIError
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from callboard_broker.bookmarks import read_bookmarks
from callboard_broker.connection import open_link
from callboard_broker.errors import BadInput, SchemaMissing, TargetAway, TargetRefused
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_integrations.supabase import SupabaseTarget
from callboard_ledger.projection.postgres import migrate
from callboard_ledger.projection.reader import TargetReader
from callboard_ledger.projection.schema import check_schema
from callboard_ledger.store import Query
from tests.databases import JWT_SECRET, Postgres, Supabase, open_supabase, token
from tests.ledger_journal import SUBJECTS, Scribe, random_journal
from tests.projections import (
    caught_up,
    check_projection,
    deliver,
    projecting,
    publish,
    stored_journal,
)
from tests.servers import NatsServer, require

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(400)]

TABLES = "workflows tasks schedules commands merges events audit performance allocations"
HIDDEN = "secrets parked streams migrations"


@dataclass(frozen=True, slots=True)
class Project:
    """A project. stream: under which this test writes. own: the server, where it may be killed."""

    url: str
    key: str
    publishable: str
    jwt_secret: str
    stream: str
    own: Supabase | None = None

    @asynccontextmanager
    async def target(self, key: str | None = None) -> AsyncIterator[SupabaseTarget]:
        target = SupabaseTarget(self.url, key or self.key)
        try:
            yield target
        finally:
            await target.close()

    @asynccontextmanager
    async def client(self, tenant: str | None) -> AsyncIterator[AsyncClient]:
        """As a user of the tenant; None: as nobody."""
        if tenant is not None and not self.jwt_secret:
            require("supabase", "SUPABASE_JWT_SECRET is not set, to sign tenants' tokens with")
        async with httpx.AsyncClient(timeout=15) as http:
            options = AsyncClientOptions(httpx_client=http)
            client = await acreate_client(self.url, self.publishable, options)
            if tenant is not None:
                client.postgrest.auth(token(tenant, self.jwt_secret))
            yield client


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    url = os.environ.get("SUPABASE_URL")
    if url:
        yield Project(
            url,
            os.environ["SUPABASE_SECRET_KEY"],
            os.environ["SUPABASE_PUBLISHABLE_KEY"],
            os.environ.get("SUPABASE_JWT_SECRET", ""),
            "",
        )
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    database = postgres.database()
    folder = tmp_path_factory.mktemp("supabase")
    with open_supabase(folder, database, lambda: asyncio.run(migrate(database.url))) as own:
        yield Project(own.url, own.key, own.publishable, JWT_SECRET, "", own)


@pytest.fixture
def project(server: Project) -> Project:
    name = f"T{uuid.uuid4().hex[:12]} {time.time_ns()}"
    return Project(server.url, server.key, server.publishable, server.jwt_secret, name, server.own)


async def test_the_tables_equal_the_fold_and_an_independent_one(project: Project):
    records = random_journal(11, 2500, resume=False)
    async with project.target() as target:
        await check_schema(target)
        standing = await deliver(target, records, batch=500, stream=project.stream)
        assert (standing.parked, standing.position) == (0, len(records))
        await check_projection(target, project.stream, records, SUBJECTS)


async def test_more_rows_than_the_api_gives_at_once_are_read_page_by_page(project: Project):
    scribe = Scribe()
    scribe.begin_epoch()
    for _ in range(1300):
        scribe.post()
    async with project.target() as target:
        await deliver(target, scribe.records, batch=500, stream=project.stream)
        reader = TargetReader(target, project.stream)
        assert len((await reader.load()).tasks) == 1300
        assert len(await reader.find(Query(limit=1200))) == 1200


async def test_numbers_stay_as_they_were_written(project: Project):
    scribe = Scribe()
    scribe.begin_epoch()
    scribe.write(SUBJECTS.task("acme", "work"), b'{"payload":{"big":123456789012345678901}}')
    async with project.target() as target:
        await deliver(target, scribe.records, stream=project.stream)
    async with project.client("acme") as client:
        found = await (
            client.table("callboard_events")
            .select("data->payload->>big")
            .eq("stream", project.stream)
            .eq("seq", 2)
            .execute()
        )
    assert found.data == [{"big": "123456789012345678901"}]


async def test_a_row_that_the_database_refuses_is_parked_by_name(project: Project):
    scribe = Scribe()
    scribe.begin_epoch()
    for _ in range(9):
        scribe.run_task()
    huge = scribe.write(SUBJECTS.task("acme", "work"), b'{"payload":1e999999}')
    scribe.run_task()
    async with project.target() as target:
        standing = await deliver(target, scribe.records, stream=project.stream)
        assert standing.parked == 1
        (parked,) = await TargetReader(target, project.stream).parked()
        assert (parked["kind"], parked["seq"], parked["sqlstate"]) == ("event", huge, "22003")
        assert len(await TargetReader(target, project.stream).find(Query())) == 11


async def test_a_tenant_sees_its_own_rows_and_nothing_of_another_one(project: Project):
    records = random_journal(12, 2000, resume=False)
    async with project.target() as target:
        await deliver(target, records, batch=500, stream=project.stream)
        for host in ("a", "b"):
            pool = "acme" if host == "a" else "globex"
            await target.call("callboard_observe", allocation(pool, host))
    for tenant, other in (("acme", "globex"), ("globex", "acme")):
        async with project.client(tenant) as client:
            for table in TABLES.split():
                rows = await client.table(f"callboard_{table}").select("tenant").execute()
                assert {row["tenant"] for row in rows.data} == {tenant}, table
                asked = client.table(f"callboard_{table}").select("tenant").eq("tenant", other)
                assert (await asked.execute()).data == [], table
    async with project.client("nobody-at-all") as stranger:
        for table in TABLES.split():
            assert (await stranger.table(f"callboard_{table}").select("*").execute()).data == []


async def test_nobody_but_the_projector_sees_secrets_or_writes(project: Project):
    scribe = Scribe()
    scribe.begin_epoch()
    scribe.dispatch(scribe.post())
    async with project.target() as target:
        await deliver(target, scribe.records, stream=project.stream)
    for tenant in ("acme", None):
        hidden = HIDDEN.split() if tenant else [*HIDDEN.split(), *TABLES.split()]
        async with project.client(tenant) as client:
            for table in hidden:
                assert await seen(client.table(f"callboard_{table}").select("*")) == [], table
            for table in ("events", "tasks"):
                change = client.table(f"callboard_{table}").update({"tenant": "x"})
                assert await seen(change.gt("seq", 0)) == []
    async with project.target(project.publishable) as stranger:
        with pytest.raises(TargetRefused):
            await stranger.call("callboard_project", empty_batch(project.stream))
    async with project.target() as target:
        head = await TargetReader(target, project.stream).head()
        assert head.position == len(scribe.records)


async def test_a_token_with_another_signature_is_refused(project: Project):
    async with project.client(None) as client:
        client.postgrest.auth(token("acme", "another-secret-of-at-least-32-characters"))
        with pytest.raises(APIError):
            await client.table("callboard_tasks").select("*").limit(1).execute()


async def test_a_project_without_the_tables_is_told_what_to_do(project: Project):
    class Bare:
        name = "supabase://bare"

        async def call(self, _function: str, document: str) -> object:
            async with project.target() as target:
                return await target.call("callboard_versions_of_another_name", document)

        async def close(self) -> None: ...

    with pytest.raises(SchemaMissing, match="supabase db push"):
        await check_schema(Bare())


async def test_a_key_or_address_that_is_none_is_refused_and_not_repeated():
    for url in ("http://example.com", "ftp://x", "https://u:hunter2@example.com", "nonsense"):
        with pytest.raises(BadInput) as refused:
            SupabaseTarget(url, "key")
        assert "hunter2" not in str(refused.value)
    with pytest.raises(BadInput) as refused:
        SupabaseTarget("https://example.com", "two words")
    assert "two words" not in str(refused.value)
    target = SupabaseTarget("http://127.0.0.1:9", "sb_secret_1234")
    with pytest.raises(TargetAway) as away:
        await target.call("callboard_versions", "{}")
    assert "sb_secret" not in f"{away.value} {target!r} {target.name}"
    await target.close()


async def test_while_supabase_is_away_nothing_is_lost_and_the_backlog_is_written_afterwards(
    nats: NatsServer, project: Project
):
    own = project.own
    if own is None:
        pytest.skip("a hosted project cannot be stopped")
    seconds = 30 if os.environ.get("CALLBOARD_SLOW") else 2
    topology = Topology(Subjects(nats.prefix))
    place = {"SUPABASE_URL": project.url, "SUPABASE_KEY": project.key}
    async with open_link(nats.url, name="test") as link, asyncio.TaskGroup() as group:
        await ensure_streams(link, topology)
        async with projecting(nats, "supabase", **place):
            await publish(nats, random_journal(21, 1000, resume=False))
            await caught_up(link, topology, 500)
            posting = group.create_task(publish(nats, random_journal(22, 6000, resume=False)))
            own.kill()
            async with asyncio.timeout(30):
                while True:
                    (mark,) = await read_bookmarks(link, topology)
                    if mark.problem:
                        break
                    await asyncio.sleep(0.1)
            await asyncio.sleep(seconds)
            await posting
            (mark,) = await read_bookmarks(link, topology)
            behind = 7000 - mark.position
            assert mark.problem
            assert project.key not in mark.problem
            await asyncio.to_thread(own.start)
            began = time.monotonic()
            mark = await caught_up(link, topology, 7000)
            drained = time.monotonic() - began
        print(f"away {seconds} s, {behind} events behind, written {drained:.1f} s later")
        info = await link.api(f"STREAM.INFO.{topology.journal}")
        stream = f"{topology.journal} {info['created']}"
        async with project.target() as target:
            records = await stored_journal(link, topology)
            await check_projection(target, stream, records, topology.subjects)


async def seen(asked: Any) -> list[Any]:
    """What is answered. Where a right is missing, nothing: the compatible server grants all rights
    again when it starts, so that there row-level security alone decides."""
    try:
        return list((await asked.execute()).data)
    except APIError as error:
        return [] if error.code == "42501" else [error]


def allocation(pool: str, host: str) -> str:
    numbers = "cpus cpu_used cpu_allocated memory_mb memory_mb_free memory_mb_allocated slots free"
    fields = ",".join(f'"{name}":1' for name in numbers.split())
    return (
        f'[{{"board":"cb","pool":"{pool}","host":"{host}","tenant":"{pool}","incarnation":"i",'
        f'"node":"n","seen_at":1,"gone":false,"attempts":[],"offers":[],{fields}}}]'
    )


def empty_batch(stream: str) -> str:
    counts = '"after":2,"position":9,"at":0,"epoch":0,"void":0,"malformed":0'
    return f'{{"stream":"{stream}","board":"cb",{counts}}}'
