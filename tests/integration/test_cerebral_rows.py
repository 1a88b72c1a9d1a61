"""What a mirror writes into the tracker's tables: each row and activity once, and only its own."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from callboard_broker.errors import SchemaMissing
from callboard_broker.wire import (
    Command,
    Entered,
    Failure,
    FlowRun,
    Gate,
    Settled,
    Step,
    SubFlow,
)
from callboard_integrations.cerebral.target import Tables, find_problems
from callboard_ledger.projection.delivery import Delivery, Standing
from callboard_ledger.projection.postgres import PostgresTarget, migrate
from callboard_ledger.reading import read
from tests.databases import Database, Postgres
from tests.ledger_journal import SUBJECTS, Scribe, nested, random_journal
from tests.projections import STREAM, check_projection, deliver
from tests.trackers import (
    ACME,
    GLOBEX,
    NAMES,
    PUBLISHED,
    SMALL,
    add_row,
    batches,
    opened,
    rows_of,
    send,
    tracked,
)

pytestmark = pytest.mark.postgres

ACTIVITIES = "select count(*), count(distinct activity_id) from cerebral_activities"


def begun() -> Scribe:
    scribe = Scribe()
    scribe.begin_epoch()
    return scribe


def everything(database: Database) -> tuple[list[Any], list[Any]]:
    """The tables as they are, with all that the mirror itself keeps in them."""
    tasks = database.run("select to_jsonb(t) from cerebral_tasks t order by task_id")
    acts = database.run("select to_jsonb(t) from cerebral_activities t order by activity_id")
    return tasks, acts


def settled(database: Database, asked: set[str]) -> dict[str, object]:
    """What must not depend on how the journal was cut into batches."""
    found: dict[str, object] = {}
    rows = rows_of(database)
    # a post that repeats another has a row if that was not known when it was written first
    repeats = {row["task_id"] for row in rows.values() if "repeats" in row["metadata"]["callboard"]}
    for name, row in rows.items():
        if row["task_id"] in repeats:
            continue
        at = row.pop("updated_at")
        # of a step it may be that of another one before it; of a task of which something was asked
        # in vain, that of the answer
        if row["metadata"]["callboard"]["kind"] == "task" and name not in asked:
            found[f"{name} at"] = at
        found[name] = row
    for (act,) in everything(database)[1]:
        if act["resource_id"] not in repeats:
            found[act["activity_id"]] = act
    return found


async def test_a_task_goes_from_pending_to_completed_in_one_row(database: Database):
    await tracked(database)
    scribe = begun()
    body = (
        b'{"payload":{"title":"Review a.py","description":"All of it","acceptance_criteria":'
        b'["no bugs",7],"bmad_story_id":"1.2"},"priority":8}'
    )
    task = str(scribe.write(SUBJECTS.task("acme", "review.python"), body))
    async with opened(database) as target:
        await send(target, scribe.records)
        assert rows_of(database)[task]["status"] == "pending"
        scribe.dispatch(task)
        await send(target, scribe.records)
        assert rows_of(database)[task]["status"] == "in_progress"
        scribe.outcome(task)
        await send(target, scribe.records)
    (row,) = rows_of(database).values()
    assert (row["status"], row["priority"]) == ("completed", "critical")
    assert (row["title"], row["description"]) == ("Review a.py", "All of it")
    assert row["acceptance_criteria"] == ["no bugs"]
    assert row["bmad_story_id"] == "1.2"
    assert row["tenant_id"] == ACME
    assert row["created_at"].startswith("2023-11-14T22:13:20.002")
    assert row["updated_at"].startswith("2023-11-14T22:13:20.004")
    assert database.run("select action from cerebral_activities order by timestamp") == [
        ("task.posted",),
        ("task.started",),
        ("task.succeeded",),
    ]


async def test_a_failure_is_blocked_and_says_why(database: Database):
    await tracked(database)
    scribe = begun()
    task = scribe.post()
    scribe.dispatch(task)
    scribe.outcome(task, error=Failure("Boom", "it broke\0", field="file"))
    boom = Failure("Boom", "it broke", field="file")
    scribe.router(Settled(task, 0, "failed", boom), "settled")
    async with opened(database) as target:
        await send(target, scribe.records)
    row = rows_of(database)[task]
    assert row["status"] == "blocked"
    own = row["metadata"]["callboard"]
    assert own["state"] == "failed"
    assert own["error"] == {"type": "Boom", "message": "it broke", "field": "file"}


async def test_a_workflow_is_a_row_that_depends_on_its_steps_and_they_on_each_other(
    database: Database,
):
    await tracked(database)
    scribe = begun()
    flow = scribe.flow(*nested())
    scribe.dispatch(f"{flow}.plan.0")
    scribe.outcome(f"{flow}.plan.0")
    async with opened(database) as target:
        await send(target, scribe.records)
    rows = rows_of(database)
    ids = {name: row["task_id"] for name, row in rows.items()}
    assert ids[f"{flow}.plan"] == NAMES.row(STREAM, f"{flow}.plan")
    assert rows[flow]["dependencies"] == [
        ids[f"{flow}.{name}"] for name in ("plan", "sub", "ask", "ship")
    ]
    assert rows[f"{flow}.sub"]["dependencies"] == [ids[f"{flow}.plan"]]
    assert {name: row["status"] for name, row in rows.items()} == {
        flow: "in_progress",
        f"{flow}.plan": "completed",
        f"{flow}.sub": "pending",
        f"{flow}.ask": "pending",
        f"{flow}.ship": "pending",
    }


async def test_an_open_gate_is_blocked_until_somebody_answers(database: Database):
    await tracked(database)
    scribe = begun()
    flow = scribe.flow(Step(id="ok", gate=Gate()), Step(id="go", capability="c", after=["ok"]))
    async with opened(database) as target:
        await send(target, scribe.records)
        rows = rows_of(database)
        assert rows[f"{flow}.ok"]["status"] == rows[flow]["status"] == "blocked"
        assert rows[f"{flow}.ok"]["metadata"]["callboard"]["waits"] == "approval"
        scribe.router(Settled(f"{flow}.ok.0", 0, "succeeded"), "settled")
        await send(target, scribe.records)
    rows = rows_of(database)
    assert rows[f"{flow}.ok"]["status"] == "completed"
    assert rows[f"{flow}.go"]["status"] == "pending"


async def test_a_batch_that_is_sent_again_changes_nothing(database: Database):
    await tracked(database)
    records = random_journal(3, 600, resume=False)
    made = batches(records, [50])
    async with opened(database) as target:
        delivery = Delivery(target, Standing())
        for batch in made:
            await delivery.deliver(batch)
        before = everything(database)
        for batch in made:
            answer = await target.call("callboard_project", batch.document())
            assert not answer["stored"]
        assert everything(database) == before
        # even if the position were lost, an older word never stands against a newer one
        database.run(
            "select set_config('callboard.cerebral', 'on', false); "
            "update callboard_streams set position = 0"
        )
        for batch in made:
            await delivery.deliver(batch)
        assert everything(database) == before
    count, distinct = database.run(ACTIVITIES)[0]
    assert count == distinct > 100


async def test_what_is_written_does_not_depend_on_how_the_journal_is_cut(postgres: Postgres):
    records = random_journal(5, 700, resume=False)
    readings = [read(SUBJECTS, record) for record in records]
    asked = {reading.resource for reading in readings if isinstance(reading.event, Command)}
    seen = []
    for sizes in ([700], [7], [1, 300, 3, 90]):
        database = await tracked(postgres.database())
        async with opened(database) as target:
            standing = await send(target, records, *sizes)
            assert standing.parked == 0
            await check_projection(target, STREAM, records, SUBJECTS)
        seen.append(settled(database, asked))
    assert seen[0] == seen[1] == seen[2]


def test_any_order_and_repetition_of_batches_ends_in_the_same_rows(postgres: Postgres):
    records = random_journal(6, 120, resume=False)
    made = batches(records, [15])
    whole = postgres.database()
    asyncio.run(tracked(whole))

    async def in_order() -> None:
        async with opened(whole) as target:
            await send(target, records, 15)

    asyncio.run(in_order())
    expected = everything(whole)

    @settings(
        max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.lists(st.integers(0, len(made) - 1), max_size=30))
    def any_order(order: list[int]) -> None:
        database = postgres.database()

        async def sent() -> None:
            await tracked(database)
            async with opened(database) as target:
                for number in [*order, *range(len(made)), *order]:
                    await target.call("callboard_project", made[number].document())

        asyncio.run(sent())
        assert everything(database) == expected

    any_order()


async def test_tenants_never_touch_each_other_and_a_foreign_row_is_named(database: Database):
    await tracked(database)
    scribe = begun()
    mine = scribe.run_task("acme")
    theirs = scribe.run_task("globex")
    row = NAMES.row(STREAM, mine)
    add_row(database, GLOBEX, "not yours", task_id=row, metadata='{"callboard": {"stream": "x"}}')
    before = database.run("select to_jsonb(t) from cerebral_tasks t")
    async with opened(database) as target:
        standing = await send(target, scribe.records, 2)
    assert (
        database.run(f"select to_jsonb(t) from cerebral_tasks t where task_id = '{row}'") == before
    )
    assert standing.parked == 1
    (parked,) = database.run("select kind, id, sqlstate, reason from callboard_parked")
    assert parked == ("cerebral", row, "CB001", "the row belongs to another tenant")
    assert rows_of(database, GLOBEX)[theirs]["status"] == "completed"
    assert rows_of(database, ACME) == {}


async def test_a_row_of_a_person_is_not_taken_over(database: Database):
    await tracked(database)
    scribe = begun()
    task = scribe.run_task("acme")
    add_row(database, ACME, "a person's", task_id=NAMES.row(STREAM, task))
    async with opened(database) as target:
        await send(target, scribe.records)
    assert database.run("select title, status from cerebral_tasks") == [("a person's", "pending")]
    assert database.run("select reason from callboard_parked") == [
        ("the row is there and not of Callboard",)
    ]


async def test_what_people_change_stays_and_only_an_end_stands_against_their_status(
    database: Database,
):
    await tracked(database)
    scribe = begun()
    task = scribe.post()
    somebody = str(uuid.uuid4())
    async with opened(database) as target:
        await send(target, scribe.records)
        database.run(
            "update cerebral_tasks set title = 'ours', estimated_hours = 4, actual_hours = 3, "
            f"assigned_to = '{somebody}', status = 'blocked', priority = 'low', "
            'metadata = metadata || \'{"note": "mine"}\''
        )
        scribe.dispatch(task)
        await send(target, scribe.records)
        row = rows_of(database)[task]
        assert row["status"] == "blocked"
        assert row["metadata"]["callboard"]["status"] == "in_progress"
        scribe.outcome(task)
        await send(target, scribe.records)
    row = rows_of(database)[task]
    assert (row["status"], row["title"], row["priority"]) == ("completed", "ours", "low")
    assert (row["estimated_hours"], row["actual_hours"]) == (4, 3)
    assert (row["assigned_to"], row["metadata"]["note"]) == (somebody, "mine")


async def test_a_row_that_the_tracker_refuses_is_parked_by_name_and_the_rest_is_written(
    database: Database,
):
    await tracked(database)
    database.run("alter table cerebral_tasks add check (title <> 'forbidden')")
    scribe = begun()
    scribe.run_task()
    bad = str(scribe.write(SUBJECTS.task("acme", "x"), b'{"payload":{"title":"forbidden"}}'))
    scribe.run_task()
    async with opened(database) as target:
        standing = await send(target, scribe.records)
    assert standing.parked == 1
    assert database.run("select kind, id, sqlstate from callboard_parked") == [
        ("cerebral", NAMES.row(STREAM, bad), "23514")
    ]
    assert database.run("select count(*) from cerebral_tasks") == [(2,)]
    assert database.run("select count(*) from callboard_tasks") == [(3,)]


REFUSING = """
create function refuse() returns trigger language plpgsql as $$ begin
  if new.title = 'unwanted' then raise exception 'not here'; end if; return new; end $$;
create trigger refuse before insert or update on cerebral_tasks
  for each row execute function refuse();
"""


async def test_a_row_that_a_trigger_refuses_is_parked_and_the_rest_is_written(database: Database):
    await tracked(database, PUBLISHED + REFUSING)
    scribe = begun()
    payload = b'{"payload":{"title":"unwanted"}}'
    bad = str(scribe.write(SUBJECTS.task("acme", "reviewer"), payload))
    good = scribe.run_task()
    async with opened(database) as target:
        await send(target, scribe.records)
    assert set(rows_of(database)) == {good}
    parked = "select id, sqlstate, reason from callboard_parked where kind = 'cerebral'"
    assert database.run(parked) == [(NAMES.row(STREAM, bad), "P0001", "not here")]


@pytest.mark.parametrize("spoilt", ["null", "[]", '["callboard"]', '"callboard"', "7"])
async def test_a_row_whose_metadata_somebody_overwrote_is_theirs_and_stops_no_other(
    database: Database, spoilt: str
):
    await tracked(database)
    scribe = begun()
    first, second = scribe.post(), scribe.post()
    async with opened(database) as target:
        await send(target, scribe.records)
        row = NAMES.row(STREAM, first)
        update = "update cerebral_tasks set metadata = %s where task_id = %s"
        database.run(update, spoilt, row)
        scribe.dispatch(first)
        scribe.dispatch(second)
        await send(target, scribe.records)
    statuses = dict(database.run("select task_id::text, status from cerebral_tasks"))
    assert statuses == {row: "pending", NAMES.row(STREAM, second): "in_progress"}
    parked = "select id, reason from callboard_parked"
    assert database.run(parked) == [(row, "the row is there and not of Callboard")]


async def test_a_table_that_lacks_a_column_parks_nothing_and_is_waited_for(database: Database):
    await tracked(database)
    async with opened(database) as target:
        scribe = begun()
        scribe.run_task()
        await send(target, scribe.records)
        database.run("alter table cerebral_tasks rename column priority to urgency")
        scribe.run_task()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await send(target, scribe.records)
        assert database.run("select count(*) from callboard_parked") == [(0,)]
        problems = await find_problems(target, Tables())
        assert problems == ["cerebral_tasks has no column priority (text)"]
        database.run("alter table cerebral_tasks rename column urgency to priority")
        await send(target, scribe.records)
    assert database.run("select count(*) from cerebral_tasks") == [(2,)]


async def test_a_post_that_repeats_another_leaves_no_open_rows(database: Database):
    await tracked(database)
    scribe = begun()
    first = scribe.run_task()
    again = scribe.post()
    flow = scribe.flow(*nested())
    twice = scribe.flow(*nested())
    async with opened(database) as target:
        await send(target, scribe.records)
        scribe.merged(again, first)
        scribe.merged(twice, flow)
        await send(target, scribe.records)
    rows = rows_of(database)
    assert rows[again]["status"] == "cancelled"
    assert rows[again]["metadata"]["callboard"]["repeats"] == first
    assert {row["status"] for name, row in rows.items() if name.startswith(twice)} == {"cancelled"}
    assert {row["status"] for name, row in rows.items() if name.startswith(flow)} == {"pending"}


async def test_a_tracker_with_fewer_columns_keeps_the_rest_in_the_metadata(database: Database):
    await tracked(database, SMALL)
    tables = Tables(tasks="cerebraflow_tasks", activities=None)
    scribe = begun()
    flow = scribe.flow(*nested())
    foreign = scribe.run_task("acme")
    database.run(
        "insert into cerebraflow_tasks (id, title, metadata) values (%s, 'theirs', %s)",
        NAMES.row(STREAM, foreign),
        f'{{"tenant_id": "{GLOBEX}", "callboard": {{}}}}',
    )
    scribe.dispatch(f"{flow}.plan.0")
    async with opened(database, tables) as target:
        assert await find_problems(target, tables) == []
        standing = await send(target, scribe.records)
    assert standing.parked == 1
    rows = {
        row["metadata"]["callboard"].get("task"): row
        for (row,) in database.run("select to_jsonb(t) from cerebraflow_tasks t")
    }
    plan = rows[f"{flow}.plan"]
    assert plan["status"] == "in_progress"
    assert plan["metadata"]["tenant_id"] == ACME
    assert plan["metadata"]["updated_at"].startswith("2023-11-14T22:13:20.006")
    assert rows[f"{flow}.sub"]["metadata"]["dependencies"] == [plan["id"]]
    assert (rows[None]["title"], rows[None]["status"]) == ("theirs", "pending")


async def test_a_projector_that_does_not_mirror_cannot_leave_rows_out(database: Database):
    await tracked(database)
    scribe = begun()
    scribe.run_task()
    async with opened(database) as target:
        await send(target, scribe.records)
    scribe.run_task()
    plain = PostgresTarget(database.url)
    delivery = Delivery(plain, Standing())
    (batch,) = batches(scribe.records, [4, 100])[1:]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await delivery.deliver(batch)
    assert "callboard cerebral mirror" in delivery.standing.problem
    await plain.close()
    assert database.run("select position from callboard_streams") == [(4,)]


async def test_a_database_without_the_functions_or_the_tables_is_told_what_to_do(
    database: Database,
):
    await migrate(database.url)
    async with opened(database) as target:
        with pytest.raises(SchemaMissing, match="callboard cerebral migrate"):
            await find_problems(target, Tables())
    await tracked(database, "create table cerebral_tasks (task_id uuid, status int, metadata json)")
    async with opened(database) as target:
        problems = await find_problems(target, Tables())
        assert "there is no table cerebral_activities" in problems
        assert "cerebral_tasks.status is integer, and must be text" in problems
        assert "cerebral_tasks.metadata is json, and must be jsonb" in problems
        assert "cerebral_tasks has no column tenant_id (uuid)" in problems
        assert "cerebral_tasks.task_id is no primary key" in problems
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await send(target, begun().records)
    assert database.run("select count(*) from callboard_streams") == [(0,)]


async def test_a_story_of_agile_planning_is_named_in_rows_and_activities(database: Database):
    await tracked(database)
    scribe = begun()
    inner = SubFlow([Step(id="build", capability="worker")])
    inputs = msgspec.Raw(b'{"bmad_workflow_id":"greenfield"}')
    stories = Step(id="stories", flow=inner)
    run = FlowRun("greenfield", [stories], inputs=inputs)
    flow = str(scribe.write(SUBJECTS.flow("acme", "run"), run))
    about = b'{"bmad_workflow_id":"greenfield","item":{"id":"1.2","title":"Log in"}}'
    scribe.router(Entered(f"{flow}.stories.0", 0, msgspec.Raw(about)), "entered")
    async with opened(database) as target:
        await send(target, scribe.records)
        scribe.dispatch(f"{flow}.stories.0.build.0")
        await send(target, scribe.records)
    rows = rows_of(database)
    story = rows[f"{flow}.stories.0"]
    assert (story["title"], story["bmad_story_id"]) == ("Log in", "1.2")
    assert rows[f"{flow}.stories.0.build"]["bmad_story_id"] == "1.2"
    assert rows[f"{flow}.stories.0.build"]["status"] == "in_progress"
    assert database.run(
        "select action, resource_type, bmad_workflow_id from cerebral_activities order by timestamp"
    ) == [
        ("workflow.posted", "workflow", "greenfield"),
        ("workflow.entered", "workflow", "greenfield"),
        ("task.started", "task", "greenfield"),
    ]


async def test_a_mirror_that_begins_late_goes_on_with_what_changes_from_then_on(
    database: Database,
):
    await tracked(database)
    scribe = begun()
    done, live = scribe.run_task(), scribe.post()
    flow = scribe.flow(*nested())
    plain = PostgresTarget(database.url)
    await deliver(plain, scribe.records)
    await plain.close()
    scribe.dispatch(live)
    scribe.dispatch(f"{flow}.plan.0")
    async with opened(database) as target:
        await send(target, scribe.records)
    rows = rows_of(database)
    assert done not in rows
    assert {name: row["status"] for name, row in rows.items()} == {
        live: "in_progress",
        flow: "in_progress",
        f"{flow}.plan": "in_progress",
        f"{flow}.sub": "pending",
        f"{flow}.ask": "pending",
        f"{flow}.ship": "pending",
    }
    actions = "select action from cerebral_activities order by timestamp"
    assert database.run(actions) == [("task.started",), ("task.started",)]
