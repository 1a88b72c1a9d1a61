"""What a projector writes into Postgres: the rows of the fold, each event once, no secret."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import psycopg
import pytest

from callboard_broker.errors import SchemaMissing, TargetAway, TargetRefused
from callboard_broker.wire import Failure, Outcome, Settled
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.leaves import hashes
from callboard_ledger.projection.batch import Gathering
from callboard_ledger.projection.delivery import Delivery, Overtaken, Standing
from callboard_ledger.projection.postgres import PostgresTarget, migrate
from callboard_ledger.projection.reader import TargetReader
from callboard_ledger.projection.schema import check_schema, copy_migrations, migrations
from callboard_ledger.reading import read
from callboard_ledger.store import Query
from callboard_ledger.viewing import view
from tests.databases import Database
from tests.ledger_journal import SUBJECTS, Scribe, fan_out, nested, random_journal
from tests.projections import STREAM, check_projection, deliver

pytestmark = pytest.mark.postgres


@asynccontextmanager
async def migrated(database: Database) -> AsyncIterator[PostgresTarget]:
    await migrate(database.url)
    target = PostgresTarget(database.url)
    try:
        yield target
    finally:
        await target.close()


def begun() -> Scribe:
    scribe = Scribe()
    scribe.begin_epoch()
    return scribe


@pytest.mark.parametrize("seed", range(4))
async def test_the_tables_equal_the_fold_and_an_independent_one(database: Database, seed: int):
    async with migrated(database) as target:
        records = random_journal(seed, 3000, resume=False, budgets=True)
        standing = await deliver(target, records, batch=173)
        assert (standing.parked, standing.position) == (0, len(records))
        await check_projection(target, STREAM, records, SUBJECTS)
        assert database.run("select count(*), max(seq) from callboard_events") == [(3000, 3000)]
        assert database.run("select count(distinct seq) from callboard_audit") == [(3000,)]


async def test_migrations_can_be_applied_again_and_a_database_without_them_is_refused(
    database: Database, tmp_path: Path
):
    target = PostgresTarget(database.url)
    with pytest.raises(SchemaMissing, match="callboard projector migrate"):
        await check_schema(target)
    versions = [migration.version for migration in migrations()]
    assert await migrate(database.url) == versions
    await check_schema(target)
    await deliver(target, begun().records)
    assert await migrate(database.url) == []
    for file in copy_migrations(tmp_path / "supabase" / "migrations"):
        database.run(file.read_text())  # as psql would
    assert database.run("select position from callboard_streams") == [(1,)]
    database.run(f"delete from callboard_migrations where version = '{versions[-1]}'")
    with pytest.raises(SchemaMissing, match=versions[-1]):
        await check_schema(target)
    await target.close()


async def test_a_batch_that_is_sent_again_changes_nothing(database: Database):
    async with migrated(database) as target:
        scribe = begun()
        scribe.run_task()
        sent: list[str] = []

        class Twice:
            name = target.name

            async def call(self, function: str, document: str) -> object:
                sent.append(document)
                return await target.call(function, document)

            async def close(self) -> None: ...

        await deliver(Twice(), scribe.records)
        before = database.run("select * from callboard_performance")
        answer = await target.call("callboard_project", sent[-1])
        assert answer == {"position": 4, "stored": False}
        assert database.run("select * from callboard_performance") == before
        assert [row[6] for row in before] == [1]


async def test_a_second_projector_is_told_that_it_was_overtaken(database: Database):
    async with migrated(database) as target:
        scribe = begun()
        scribe.run_task()
        await deliver(target, scribe.records)
        scribe.post()
        with pytest.raises(Overtaken, match="to 4"):
            await deliver(target, scribe.records)
        assert database.run("select count(*) from callboard_tasks") == [(1,)]


async def test_events_and_audit_are_append_only(database: Database):
    async with migrated(database) as target:
        await deliver(target, begun().records)
        for table in ("callboard_events", "callboard_audit"):
            for change in (f"update {table} set tenant = 'x'", f"delete from {table}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
                    database.run(change)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                database.run(f"truncate {table}")


async def test_numbers_stay_as_they_were_written_and_nul_and_secrets_are_left_out(
    database: Database,
):
    async with migrated(database) as target:
        scribe = begun()
        body = (
            rb'{"payload":{"big":12345678901234567890123,"x":1.10,"nul":"a\u0000b","s":"\\u0000"}}'
        )
        task = str(scribe.write(SUBJECTS.task("acme", "work"), body))
        scribe.dispatch(task)
        scribe.spawn(task)
        scribe.outcome(task, error=Failure("Boom", "nul \0 in it", trace="t" * 10_000))
        standing = await deliver(target, scribe.records)
        assert standing.parked == 0
        text = database.run("select data->>'payload' from callboard_events where seq = 2")[0][0]
        assert '"big": 12345678901234567890123' in text
        assert '"x": 1.10' in text
        assert '"nul": "ab"' in text
        assert r'"s": "\\u0000"' in text
        everything = str(database.run("select data::text from callboard_events"))
        assert "secret" not in everything
        assert "s1" not in everything
        assert database.run("select error->>'message' from callboard_tasks where seq = 2") == [
            ("nul  in it",)
        ]
        record = scribe.records[1]
        stored = database.run("select event_hash, payload_hash from callboard_audit where seq = 2")
        assert stored == [hashes(record)]
        assert stored[0][1] == hashlib.sha256(body).digest()


async def test_a_long_body_is_kept_as_its_hash_alone(database: Database):
    async with migrated(database) as target:
        scribe = begun()
        scribe.write(SUBJECTS.task("acme", "work"), b'{"payload":"%b"}' % (b"x" * 5000))
        scribe.write(SUBJECTS.task("acme", "work"), b"\xff no json")
        await deliver(target, scribe.records)
        assert database.run("select data, bytes, verdict from callboard_events where seq > 1") == [
            (None, 5014, "accepted"),
            (None, 9, "malformed"),
        ]


async def test_rows_that_the_database_refuses_are_parked_by_name_and_the_rest_is_written(
    database: Database,
):
    async with migrated(database) as target:
        scribe = begun()
        for _ in range(20):
            scribe.run_task()
        huge = scribe.write(SUBJECTS.task("acme", "work"), b'{"payload":1e999999}')
        database.run("alter table callboard_tasks add check (capability <> 'forbidden')")
        bad = scribe.post(capability="forbidden")
        scribe.run_task()
        standing = await deliver(target, scribe.records)
        assert standing.parked == 2
        assert database.run(
            "select kind, seq, id, sqlstate from callboard_parked order by seq"
        ) == [
            ("event", huge, str(huge), "22003"),
            ("task", int(bad), bad, "23514"),
        ]
        assert [line.split(":")[0] for line in standing.last_parked] == [
            f"event {huge}",
            f"task {bad}",
        ]
        assert database.run("select count(*) from callboard_tasks") == [(22,)]
        assert database.run("select count(*) from callboard_events") == [(len(scribe.records) - 1,)]
        loaded = await TargetReader(target, STREAM).load()
        assert {task.id: task.state for task in loaded.tasks} == {
            str(huge): "waiting",
            bad: "waiting",
        }


async def test_a_parked_row_is_parked_no_longer_once_it_can_be_written(database: Database):
    async with migrated(database) as target:
        scribe = begun()
        database.run("alter table callboard_tasks add constraint short check (state <> 'running')")
        task = scribe.post()
        scribe.dispatch(task)
        scribe.post()
        await deliver(target, scribe.records, batch=3)
        assert database.run("select id from callboard_parked") == [(task,)]
        aggregator = Aggregator(SUBJECTS)
        aggregator.restore(await TargetReader(target, STREAM).load())
        row = aggregator.tasks[task]
        assert (row.state, row.secret) == ("running", "s1")
        scribe.outcome(task)
        standing = Standing()
        gathering = Gathering(STREAM, "cb", aggregator.position, event_bytes=4096)
        for record in scribe.records[aggregator.position :]:
            reading = read(SUBJECTS, record)
            gathering.add(record, reading, aggregator.fold(record, reading))
        await Delivery(target, standing).deliver(gathering.take(aggregator.changes()))
        assert database.run("select id from callboard_parked") == []
        assert database.run(f"select state from callboard_tasks where seq = {task}") == [
            ("succeeded",)
        ]


async def test_a_table_that_lacks_a_column_parks_nothing_and_is_waited_for(database: Database):
    async with migrated(database) as target:
        database.run("alter table callboard_streams rename column epoch to other")
        scribe = begun()
        scribe.run_task()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await deliver(target, scribe.records)
        assert database.run("select count(*) from callboard_parked") == [(0,)]
        assert database.run("select count(*) from callboard_events") == [(0,)]


async def test_status_and_list_are_told_from_the_tables_alone(database: Database):
    async with migrated(database) as target:
        scribe = begun()
        done = scribe.run_task()
        flow = scribe.flow(*nested())
        scribe.dispatch(f"{flow}.plan.0")
        scribe.outcome(f"{flow}.plan.0")
        again = scribe.post()
        scribe.merged(again, done)
        other = scribe.run_task("globex")
        schedule = scribe.schedule()
        command = scribe.command("cancel", flow)
        whole = Aggregator(SUBJECTS)
        for record in scribe.records:
            whole.apply(record)
        await deliver(target, scribe.records, batch=3)
        reader = TargetReader(target, STREAM)
        for row_id in (done, other, flow, f"{flow}.plan.0", schedule, command):
            found, kept = await reader.row(row_id), whole.row(row_id)
            assert found is not None
            assert kept is not None
            assert msgspec.to_builtins(view(found)) == msgspec.to_builtins(view(kept))
        repeated = await reader.row(again)
        assert repeated is not None
        assert repeated.id == done
        assert [row.id for row in await reader.find(Query(tenant="globex"))] == [other]
        assert [row.id for row in await reader.find(Query(kind="flow"))] == [flow]
        assert [row.id for row in await reader.find(Query(flow=flow))] == [f"{flow}.plan.0"]
        assert len(await reader.find(Query(limit=2))) == 2
        assert await reader.row("' or true --") is None
        assert await reader.row("9" * 40) is None


async def test_a_workflow_of_a_thousand_elements_is_read_page_by_page(database: Database):
    async with migrated(database) as target:
        scribe = begun()
        flow = scribe.flow(*fan_out())
        scribe.dispatch(f"{flow}.plan.0")
        scribe.outcome(f"{flow}.plan.0")
        scribe.expanded(flow, "build", 1200)
        for number in range(1200):
            scribe.dispatch(f"{flow}.build.{number}")
        await deliver(target, scribe.records, batch=500)
        loaded = await TargetReader(target, STREAM).load()
        assert len(loaded.tasks) == 1201
        await check_projection(target, STREAM, scribe.records, SUBJECTS)


async def test_a_database_that_is_not_there_or_hangs_is_away_and_its_password_is_not_told():
    target = PostgresTarget("postgresql://me:hunter2@127.0.0.1:1/db")
    assert target.name == "postgres://127.0.0.1:1/db"
    with pytest.raises(TargetAway) as away:
        await target.call("callboard_versions", "{}")
    assert "hunter2" not in str(away.value)
    await target.close()


async def test_only_the_owner_gets_at_the_tables_of_a_plain_postgres(database: Database):
    await migrate(database.url)
    role = f"r{database.url.rpartition('/')[2]}"
    database.run(f"create role {role} login")
    stranger = PostgresTarget(database.url.replace("postgres@", f"{role}@"))
    with pytest.raises(TargetRefused, match="permission denied") as refused:
        await stranger.call("callboard_find", '{"kind":"task","most":1}')
    assert refused.value.sqlstate == "42501"
    await stranger.close()


async def test_names_that_differ_by_a_nul_only_are_one_and_hold_nothing_up(database: Database):
    async with migrated(database) as target:
        scribe = begun()
        for kind, agent in (("Boom", "one"), ("Boom\0", "one\0"), ("Bo\0om", "one")):
            task = scribe.post()
            scribe.dispatch(task)
            error = Failure(kind, "it broke")
            outcome = Outcome(task, 1, "s1", "host-1", 1, 2, error=error, agent=agent)
            scribe.write(SUBJECTS.run("acme", "outcome", 7), outcome)
            scribe.write(SUBJECTS.run("acme", "settled", 7), Settled(task, scribe.epoch, "failed"))
        standing = await deliver(target, scribe.records)
        assert (standing.position, standing.parked) == (len(scribe.records), 0)
        reader = TargetReader(target, STREAM)
        assert [(key.type, tally.count) async for key, tally in reader.failures()] == [("Boom", 3)]
        assert [(key.agent, tally.failed) async for key, tally in reader.figures()] == [("one", 3)]
