"""`callboard cerebral`: what it says, also where something is missing, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from callboard_ledger.projection.postgres import migrate
from tests.databases import Database
from tests.servers import NatsServer
from tests.trackers import ACME, PUBLISHED, add_row, tracked
from tests.whole_board import whole_board

pytestmark = pytest.mark.postgres


def cerebral(*arguments: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """One `callboard cerebral` command."""
    return subprocess.run(
        [sys.executable, "-m", "callboard", "cerebral", *arguments],
        cwd=cwd,
        env={**os.environ, **{f"CALLBOARD_{name}": value for name, value in settings.items()}},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_what_is_missing_is_named_until_the_tracker_can_be_mirrored(
    database: Database, nats: NatsServer, tmp_path: Path
):
    to = ("--to", database.url)
    bare = cerebral("check", *to, cwd=tmp_path)
    assert (bare.returncode, bare.stdout) == (2, "")
    assert "callboard cerebral migrate" in bare.stderr
    assert "applied 20261126000300" in cerebral("migrate", *to, cwd=tmp_path).stdout
    assert "already" in cerebral("migrate", *to, cwd=tmp_path).stdout
    lacking = cerebral("check", *to, "--json", cwd=tmp_path)
    assert lacking.returncode == 1
    assert json.loads(lacking.stdout)["problems"] == [
        "there is no table cerebral_tasks",
        "there is no table cerebral_activities",
    ]
    place = {"NATS_URL": nats.url, "BOARD__PREFIX": nats.prefix}
    refused = cerebral("mirror", *to, cwd=tmp_path, **place)
    assert refused.returncode == 2
    assert "there is no table cerebral_tasks" in refused.stderr
    assert "Traceback" not in refused.stderr
    before = database.run("select relname from pg_class where relname like 'cerebral%'")
    assert before == []  # none of the tracker's tables is made here
    database.run(PUBLISHED)
    fine = cerebral("check", *to, cwd=tmp_path)
    assert (fine.returncode, fine.stderr) == (0, "")
    assert fine.stdout == "cerebral_tasks and cerebral_activities can be mirrored\n"
    other = cerebral("check", *to, cwd=tmp_path, CEREBRAL__TASKS="cerebraflow_tasks")
    assert other.stdout == "there is no table cerebraflow_tasks\n"
    written = cerebral("migrate", "--write", "sql", "--json", cwd=tmp_path)
    assert len(json.loads(written.stdout)["written"]) == 5


async def test_a_plain_projectors_database_says_what_a_mirror_needs(
    database: Database, nats: NatsServer, tmp_path: Path
):
    await migrate(database.url)
    place = {"NATS_URL": nats.url, "BOARD__PREFIX": nats.prefix}
    refused = cerebral("mirror", "--to", database.url, cwd=tmp_path, **place)
    assert refused.returncode == 2
    assert "callboard cerebral migrate" in refused.stderr


async def test_a_pull_says_what_was_posted_and_what_was_refused(
    database: Database, nats: NatsServer, tmp_path: Path
):
    await tracked(database)
    good = add_row(database, ACME, "good", metadata='{"capability": "nobody.there"}')
    bad = add_row(database, ACME, "bad")
    place = {"NATS_URL": nats.url, "BOARD__PREFIX": nats.prefix, "PROJECTION__TO": database.url}
    async with whole_board(nats, tmp_path):
        nobody = cerebral("pull", cwd=tmp_path, **place)
        assert nobody.returncode == 2
        assert "cerebral.tenants" in nobody.stderr
        tenants = json.dumps({"acme": ACME})
        done = cerebral("pull", "--json", cwd=tmp_path, CEREBRAL__TENANTS=tenants, **place)
        assert done.returncode == 1, done.stderr
        said = json.loads(done.stdout)
        assert list(said["posted"]) == [good]
        assert list(said["refused"]) == [bad]
        assert "metadata.capability" in said["refused"][bad]
        place["CEREBRAL__TENANTS"] = tenants
        again = cerebral("pull", "--tenant", "acme", cwd=tmp_path, **place)
        assert again.returncode == 1
        assert good not in again.stdout
        assert bad in again.stdout
        capability = {"CEREBRAL__CAPABILITY": "nobody.there"}
        all_done = cerebral("pull", cwd=tmp_path, **capability, **place)
        assert all_done.returncode == 0
        assert bad in all_done.stdout


def test_mistakes_end_with_a_line_and_a_code_and_no_password_is_repeated(tmp_path: Path):
    for arguments in (
        ["check", "--to", "postgres://me:hunter2@db/x"],
        ["pull", "--tenant", "acme", "--to", "postgres://me:hunter2@db/x"],
        ["mirror", "--to", "mysql://me:hunter2@db/x"],
        ["pull", "--tenant", "no tenant", "--to", "postgres://db/x"],
        ["check"],
    ):
        done = cerebral(*arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert "hunter2" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    secret = {"PROJECTION__TO": "postgres://me:hunter2@127.0.0.1:1/x"}
    away = cerebral("check", cwd=tmp_path, **secret)
    assert away.returncode == 3
    assert "hunter2" not in away.stdout + away.stderr


def test_the_command_loads_no_driver_that_it_does_not_need():
    program = (
        "import sys, callboard.cli.cerebral, callboard_integrations.cerebral as c; c.Mirror; "
        "print({'psycopg', 'supabase', 'httpx', 'langgraph'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
