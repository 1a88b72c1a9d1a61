"""The tracker and a whole board, each part a process: work shows up there, and comes from there."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callboard import Board, Workflow, connect
from callboard_integrations.cerebral import Puller, Tables
from callboard_integrations.cerebral.names import step_of
from callboard_ledger.projection.postgres import PostgresTarget
from tests.board import Processes, started_processes
from tests.databases import Database
from tests.servers import NatsServer
from tests.trackers import (
    ACME,
    GLOBEX,
    NAMES,
    ROOT,
    SMALL,
    add_row,
    mirroring,
    rows_of,
    tracked,
)
from tests.whole_board import whole_board

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(240)]

WORK = '{"capability": "mark.work", "payload": {"n": 7}}'


def settings_of(database: Database, **more: str) -> dict[str, str]:
    tenants = json.dumps({"acme": ACME, "globex": GLOBEX})
    return {"PROJECTION__TO": database.url, "CEREBRAL__TENANTS": tenants, **more}


@asynccontextmanager
async def working(
    nats: NatsServer, database: Database, folder: Path
) -> AsyncIterator[tuple[Processes, Board]]:
    """Router, host and mirror as processes."""
    await tracked(database)
    with started_processes(
        nats, folder, **settings_of(database, CEREBRAL__POLL_SECONDS="0.2")
    ) as them:
        them.router("router")
        them.host("host")
        async with mirroring(nats, database.url), connect(nats.url, prefix=nats.prefix) as board:
            yield them, board


async def until(database: Database, right: Callable[[dict[str, dict[str, Any]]], bool]) -> None:
    """Wait until the rows are right."""
    try:
        async with asyncio.timeout(60):
            while True:
                if right(rows_of(database)):
                    return
                await asyncio.sleep(0.1)  # a table tells nobody that it has changed
    except TimeoutError:
        pytest.fail(json.dumps(rows_of(database), indent=1))


async def test_a_workflow_with_dependencies_shows_up_with_its_statuses(
    nats: NatsServer, database: Database, tmp_path: Path
):
    async with working(nats, database, tmp_path) as (_, board):
        flow = Workflow("release", inputs={"title": "Release 1.2"})
        first = flow.step("build", "mark.work", {"n": 1})
        ask = flow.gate("ask", prompt="ship?", after=[first])
        flow.step("ship", "mark.work", {"n": 2}, after=[ask])
        bad = flow.step("bad", "mark.work", {"no": 1}, after=[first])
        flow.step("never", "mark.work", {"n": 3}, after=[bad])
        handle = await board.run(flow, tenant="acme")
        name = handle.id

        def asked(rows: dict[str, dict[str, Any]]) -> bool:
            return rows.get(f"{name}.ask", {}).get("status") == "blocked"

        await until(database, asked)
        rows = rows_of(database, ACME)
        assert rows[name]["title"] == "Release 1.2"
        assert rows[f"{name}.build"]["status"] == "completed"
        assert rows[f"{name}.ask"]["metadata"]["callboard"]["waits"] == "approval"
        assert rows[f"{name}.ship"]["dependencies"] == [rows[f"{name}.ask"]["task_id"]]
        await board.command("approve", f"{name}.ask.0", tenant="acme")
        await until(
            database,
            lambda rows: (
                rows[name]["status"] == "blocked"
                and rows[name]["metadata"]["callboard"]["state"] == "failed"
            ),
        )
        rows = rows_of(database, ACME)
        assert rows[f"{name}.bad"]["status"] == "blocked"
        assert rows[f"{name}.bad"]["metadata"]["callboard"]["error"]["type"] == "BadInput"
        assert rows[f"{name}.never"]["status"] == "blocked"
        acts = database.run(
            "select action from cerebral_activities where resource_id = "
            f"'{rows[f'{name}.build']['task_id']}' order by timestamp"
        )
        assert acts == [("task.started",), ("task.succeeded",)]


async def test_pending_rows_are_posted_run_and_completed_in_their_own_rows(
    nats: NatsServer, database: Database, tmp_path: Path
):
    async with working(nats, database, tmp_path) as (them, _):
        first = add_row(database, ACME, "first", metadata=WORK)
        second = add_row(database, ACME, "second", metadata=WORK, dependencies=json.dumps([first]))
        alone = add_row(database, GLOBEX, "alone", metadata=WORK)
        mine = add_row(database, ACME, "a person works on it", status="in_progress")
        waits = add_row(database, ACME, "waits", metadata=WORK, dependencies=json.dumps([mine]))
        lost = add_row(database, ACME, "nobody can", metadata="{}")
        foreign = add_row(database, GLOBEX, "f", metadata=WORK, dependencies=json.dumps([first]))
        them.start("one", "cerebral", "pull", "--follow")
        them.start("other", "cerebral", "pull", "--follow", "--json")
        ids = {"first": first, "second": second, "alone": alone}

        def done(rows: dict[str, dict[str, Any]]) -> bool:
            by_id = {row["task_id"]: row["status"] for row in rows.values()}
            return {by_id[row] for row in ids.values()} == {"completed"}

        await until(database, done)
        rows = {row["task_id"]: row for row in rows_of(database).values()}
        assert len(rows) == 7  # none was added
        assert rows[second]["title"] == "second"
        assert rows[second]["dependencies"] == [first]
        assert rows[second]["metadata"]["capability"] == "mark.work"
        assert {rows[row]["status"] for row in (waits, lost, foreign)} == {"pending"}
        await them.says(lost, "one", "other")
        await them.says("is no row of this tenant", "one", "other")
        starts = them.table.read_text().splitlines()
        assert len(starts) == len({line.split()[0] for line in starts}) == 3
        database.run(f"update cerebral_tasks set status = 'completed' where task_id = '{mine}'")
        ids["waits"] = waits
        await until(database, done)
        acts = database.run(f"select action from cerebral_activities where resource_id = '{waits}'")
        assert {action for (action,) in acts} == {"task.started", "task.succeeded"}


async def test_a_pull_that_died_between_claim_and_post_posts_once_more_and_runs_once(
    nats: NatsServer, database: Database, tmp_path: Path
):
    async with working(nats, database, tmp_path) as (them, board):
        row = add_row(database, ACME, "once", metadata=WORK)

        class Died(Exception):
            """The process is gone."""

        class Dies(PostgresTarget):
            async def call(self, function: str, document: str) -> Any:
                if function == "callboard_cerebral_mark" and '"posted"' in document:
                    raise Died
                return await super().call(function, document)

        async with closing(Dies(database.url)) as dies:
            for _ in range(2):
                with pytest.raises(Died):
                    await Puller(board, dies, Tables(), NAMES).pull("acme")
        async with closing(PostgresTarget(database.url)) as target:
            puller = Puller(board, target, Tables(), NAMES)
            pulled = await puller.pull("acme")
            if pulled.posted:  # else the mirror was there first
                assert pulled.posted[row].endswith(step_of(row))
            await until(
                database, lambda rows: {r["status"] for r in rows.values()} == {"completed"}
            )
            assert len(them.table.read_text().splitlines()) == 1
            assert (await puller.pull("acme")).posted == {}


@asynccontextmanager
async def closing(target: PostgresTarget) -> AsyncIterator[PostgresTarget]:
    try:
        yield target
    finally:
        await target.close()


async def test_the_example_runs_as_it_stands(nats: NatsServer, database: Database, tmp_path: Path):
    folder = ROOT / "examples/cerebral"
    await tracked(database)
    tenant = "6f1d4b0e-93a4-4f5c-8a51-0d2f6b1c7e90"
    given = settings_of(database, CEREBRAL__TENANTS=json.dumps({"default": tenant}))
    with started_processes(nats, tmp_path, **given) as them:
        them.router("router")
        them.host("host", str(folder / "tracker_agents.py"))
        them.start("mirror", "cerebral", "mirror")
        them.start("pull", "cerebral", "pull", "--follow")
        environment = {f"CALLBOARD_{name}": value for name, value in given.items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(folder / "track.py")),
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
    assert out.decode().splitlines() == [
        "Draft the guide: completed",
        "Review the guide: completed",
        "  task.started",
        "  task.succeeded",
    ]


async def test_many_rows_that_nobody_can_post_keep_no_other_back(
    nats: NatsServer, database: Database, tmp_path: Path
):
    await tracked(database)
    database.run(
        "insert into cerebral_tasks (tenant_id, project_id, title) "
        f"select '{ACME}', '{ACME}', 'x' from generate_series(1, 2100)"
    )
    rows = {add_row(database, ACME, f"good {n}", metadata=WORK) for n in range(5)}
    async with (
        whole_board(nats, tmp_path) as there,
        closing(PostgresTarget(database.url)) as target,
    ):
        pulled = await Puller(there.board, target, Tables(), NAMES).pull("acme")
    assert set(pulled.posted) == rows
    assert len(pulled.refused) == 2100


async def test_a_row_that_cannot_be_read_or_claimed_is_named_and_keeps_no_other_back(
    nats: NatsServer, database: Database, tmp_path: Path
):
    await tracked(database)
    database.run(
        "create function refuse() returns trigger language plpgsql as $$ begin "
        "if new.title = 'mine' then raise exception 'hands off'; end if; return new; end $$;"
        "create trigger refuse before update on cerebral_tasks "
        "for each row execute function refuse()"
    )
    start = '{"capability": "mark.work", "more": '
    deep = add_row(database, ACME, "deep", metadata=start + "[" * 3000 + "]" * 3000 + "}")
    long = add_row(database, ACME, "long", metadata=f"{start}1{'0' * 5000}}}")
    mine = add_row(database, ACME, "mine", metadata=WORK)
    good = add_row(database, ACME, "good", metadata=WORK)
    async with (
        whole_board(nats, tmp_path) as there,
        closing(PostgresTarget(database.url)) as target,
    ):
        pulled = await Puller(there.board, target, Tables(), NAMES).pull("acme")
    assert good in pulled.posted
    assert set(pulled.refused) == {deep, long, mine} - set(pulled.posted)
    assert deep in pulled.refused
    assert "hands off" in pulled.refused[mine]


async def test_rows_that_were_claimed_together_are_posted_together_however_many_came_between(
    nats: NatsServer, database: Database, tmp_path: Path
):
    await tracked(database)
    low, high = (f"{digit}0000000-0000-4000-8000-000000000000" for digit in "0f")
    add_row(database, ACME, "low", task_id=low, metadata=WORK)
    add_row(database, ACME, "high", task_id=high, metadata=WORK, dependencies=f'["{low}"]')

    class Died(Exception):
        """The process is gone."""

    class Dies(PostgresTarget):
        async def call(self, function: str, document: str) -> Any:
            answer = await super().call(function, document)
            if function == "callboard_cerebral_mark":
                raise Died
            return answer

    async with (
        whole_board(nats, tmp_path) as there,
        closing(Dies(database.url)) as dies,
        closing(PostgresTarget(database.url)) as target,
    ):
        with pytest.raises(Died):
            await Puller(there.board, dies, Tables(), NAMES).pull("acme")
        database.run(
            "insert into cerebral_tasks (tenant_id, project_id, title, metadata) "
            f"select '{ACME}', '{ACME}', 'x', '{WORK}' from generate_series(1, 1100)"
        )
        pulled = await Puller(there.board, target, Tables(), NAMES).pull("acme")
    flows = {pulled.posted[row].partition(".")[0] for row in (low, high)}
    assert len(flows) == 1
    assert len(pulled.posted) == 1102


async def test_a_tracker_with_fewer_columns_is_pulled_and_mirrored_too(
    nats: NatsServer, database: Database, tmp_path: Path
):
    await tracked(database, SMALL)
    small = {"CEREBRAL__TASKS": "cerebraflow_tasks", "CEREBRAL__ACTIVITIES": "null"}
    add = "insert into cerebraflow_tasks (title, metadata) values (%s, %s) returning id::text"
    about = {"capability": "mark.work", "payload": {"n": 1}}
    first = database.run(add, "first", json.dumps({"tenant_id": ACME, **about}))[0][0]
    after = {"tenant_id": ACME, "dependencies": [first], **about}
    second = database.run(add, "second", json.dumps(after))[0][0]
    database.run(add, "of nobody", json.dumps(about))
    given = settings_of(database, **small)
    with started_processes(nats, tmp_path, **given) as them:
        them.router("router")
        them.host("host")
        them.start("pull", "cerebral", "pull", "--follow")
        async with mirroring(nats, database.url, **small), asyncio.timeout(60):
            while True:
                rows = dict(database.run("select id::text, status from cerebraflow_tasks"))
                if {rows[first], rows[second]} == {"completed"}:
                    break
                await asyncio.sleep(0.1)  # a table tells nobody that it has changed
    assert sorted(rows.values()) == ["completed", "completed", "pending"]
    (meta,) = database.run(f"select metadata from cerebraflow_tasks where id = '{second}'")[0]
    assert (meta["tenant_id"], meta["dependencies"]) == (ACME, [first])
    assert meta["callboard"]["state"] == "succeeded"
