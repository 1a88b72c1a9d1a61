"""Adds two rows to a tracker, the second one waiting for the first, and shows what becomes of them.

psql tracker -f tracker.sql
export CALLBOARD_PROJECTION__TO=postgres://me@localhost/tracker
export CALLBOARD_CEREBRAL__TENANTS='{"default": "6f1d4b0e-93a4-4f5c-8a51-0d2f6b1c7e90"}'
callboard cerebral migrate
callboard cerebral check
callboard up --agents tracker_agents.py     # and, each in a terminal of its own:
callboard cerebral mirror
callboard cerebral pull --follow
python track.py
"""

from __future__ import annotations

import json
import os
import time
import uuid

import psycopg

TENANT = json.loads(os.environ["CALLBOARD_CEREBRAL__TENANTS"])["default"]
PROJECT = uuid.uuid5(uuid.UUID(TENANT), "example")


def add(
    tracker: psycopg.Connection, title: str, capability: str, before: list[str], criteria: list[str]
) -> str:
    """A new pending row, as a person would add it; its id."""
    found = tracker.execute(
        "insert into cerebral_tasks (tenant_id, project_id, title, dependencies, "
        "acceptance_criteria, metadata) values (%s, %s, %s, %s, %s, %s) returning task_id::text",
        (
            TENANT,
            PROJECT,
            title,
            json.dumps(before),
            json.dumps(criteria),
            json.dumps({"capability": capability}),
        ),
    ).fetchone()
    return "" if found is None else found[0]


def main() -> None:
    """Add them, and wait for their end."""
    with psycopg.connect(os.environ["CALLBOARD_PROJECTION__TO"], autocommit=True) as tracker:
        with tracker.transaction():  # both or none: a pull may come at any moment
            draft = add(tracker, "Draft the guide", "docs.draft", [], [])
            review = add(tracker, "Review the guide", "docs.review", [draft], ["is short"])
        while True:
            rows = tracker.execute(
                "select title, status from cerebral_tasks where tenant_id = %s "
                "and task_id = any(%s::uuid[]) order by created_at, title",
                (TENANT, [draft, review]),
            ).fetchall()
            if all(status in ("completed", "blocked", "cancelled") for _, status in rows):
                break
            time.sleep(0.2)  # a table tells nobody that it has changed
        for title, status in rows:
            print(f"{title}: {status}")
        for (action,) in tracker.execute(
            "select action from cerebral_activities where tenant_id = %s and resource_id = %s "
            "order by timestamp",
            (TENANT, review),
        ):
            print(f"  {action}")


main()
