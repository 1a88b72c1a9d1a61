"""The ledger's rows in one SQLite file, the default store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callboard_broker.rule import DEAD_WINDOW_MS, MAX_DEAD, MAX_DEAD_FLOWS, TaskState
from callboard_ledger.allocations import Allocation
from callboard_ledger.budgets import Account
from callboard_ledger.hosts import Hosts
from callboard_ledger.performance import HOUR_MS, FailureKey, FailureTally, PerformanceKey, Tally
from callboard_ledger.rows import Changes, CommandRow, Flow, Merge, Row, Schedule, Task
from callboard_ledger.sqlite_asked import (
    COMMAND_COLUMNS,
    PUT_COMMAND,
    PUT_SCHEDULE,
    SCHEDULE_COLUMNS,
    command_of,
    command_row,
    schedule_of,
    schedule_row,
)
from callboard_ledger.sqlite_asked import TABLES as ASKED_TABLES
from callboard_ledger.sqlite_figures import TABLES as FIGURES_TABLES
from callboard_ledger.sqlite_figures import add_figures, find_failures, find_figures
from callboard_ledger.sqlite_holdings import TABLES as HOLDINGS_TABLES
from callboard_ledger.sqlite_holdings import (
    drop_old,
    find_allocations,
    find_overlaps,
    load_accounts,
    load_held,
    load_hosts,
    put_accounts,
    put_allocations,
    put_hosts,
)
from callboard_ledger.sqlite_rows import (
    FLOW_COLUMNS,
    PUT_FLOW,
    PUT_POSITION,
    PUT_TASK,
    SCHEMA,
    TABLES,
    TASK_COLUMNS,
    flow_of,
    flow_row,
    task_of,
    task_row,
)
from callboard_ledger.store import (
    MOST_COMPARED,
    AllocationsQuery,
    FailuresQuery,
    FiguresQuery,
    Overlap,
    Query,
)

__all__ = ["SqliteStore"]

_LIVE = "state IN ('waiting', 'running') AND state <> 'succeeded'"
_DEAD = "state IN ('failed', 'cancelled', 'expired') AND state <> 'succeeded'"
# The second half names the partial index of what has not succeeded.
_BEGUN = (
    "flow IS NULL AND plan <> '[]' AND (coalesce(error, '') NOT LIKE '{\"type\":\"Overloaded\"%'"
    " OR EXISTS (SELECT 1 FROM tasks WHERE tasks.flow = flows.id)"
    " OR EXISTS (SELECT 1 FROM flows AS inside WHERE inside.flow = flows.id))"
)
# Whether a dead workflow can be resumed: `Flow.refused` says it of one in memory.

_TASKS = f"SELECT {TASK_COLUMNS} FROM tasks"  # noqa: S608  constants, as below
_FLOWS = f"SELECT {FLOW_COLUMNS} FROM flows"  # noqa: S608
_SCHEDULES = f"SELECT {SCHEDULE_COLUMNS} FROM schedules"  # noqa: S608
_COMMANDS = f"SELECT {COMMAND_COLUMNS} FROM commands"  # noqa: S608


_ALL_TABLES = {**TABLES, **ASKED_TABLES, **FIGURES_TABLES, **HOLDINGS_TABLES}
_LETTERS: tuple[TaskState, ...] = ("failed", "expired")


class SqliteStore:
    """Rows in one SQLite file (None: in memory). stream, created: the journal, and since when.

    WAL with synchronous=NORMAL: a killed process loses nothing, a power failure may lose the last
    transactions as a whole, and those are folded again from the journal. An fsync per batch would
    buy nothing. A file of another journal or of another schema is emptied: it holds nothing that
    the journal does not. Raises `sqlite3.Error` and `OSError` as they come.
    """

    def __init__(self, path: Path | None, *, stream: str, created: str = "") -> None:
        self._stream = stream
        self._created = created
        self._swept_hour = -1
        if path is not None:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(path or ":memory:", isolation_level=None)
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version != SCHEMA or not self._is_of_this_journal():
                self.clear()
        except BaseException:  # a Ctrl-C too: nobody else has this connection yet to close it
            self._database.close()
            raise

    def load(self) -> Changes:
        """The position and the rows that an event may still change; see `Store.load`."""
        row = self._database.execute(
            "SELECT seq, at, epoch, void, malformed FROM position WHERE stream = ?",
            (self._stream,),
        ).fetchone()
        position, at_ms, epoch, void, malformed = row or (0, 0, 0, 0, 0)
        flows = self._load_flows()
        tasks = [
            *map(task_of, self._select(f"{_TASKS} WHERE {_LIVE}")),
            *map(task_of, self._dead(_TASKS, "(step IS NULL OR posted_at IS NOT NULL)", MAX_DEAD)),
        ]
        known = {task.seq for task in tasks}
        for flow in flows:
            elements = self._select(f"{_TASKS} WHERE flow = ? AND step IS NOT NULL", flow.id)
            tasks += [task_of(row) for row in elements if row[0] not in known]
        return Changes(
            position=position,
            at_ms=at_ms,
            epoch=epoch,
            void=void,
            malformed=malformed,
            tasks=tasks,
            flows=flows,
            schedules=[
                schedule_of(row) for row in self._select(f"{_SCHEDULES} WHERE state = 'waiting'")
            ],
            commands=[
                command_of(row)
                for row in self._select(f"{_COMMANDS} WHERE state = 'waiting' ORDER BY seq")
            ],
            allocations=load_held(self._database),
            accounts=load_accounts(self._database),
        )

    def save(self, changes: Changes) -> None:
        """Upsert what changed, drop what turned out to be no row, move the position."""
        with self._transaction() as database:
            for seq in changes.gone:
                database.execute("DELETE FROM tasks WHERE seq = ?", (seq,))
            database.executemany(PUT_TASK, map(task_row, changes.tasks))
            database.executemany(PUT_FLOW, map(flow_row, changes.flows))
            database.executemany(PUT_SCHEDULE, map(schedule_row, changes.schedules))
            database.executemany(PUT_COMMAND, map(command_row, changes.commands))
            for merge in changes.merges:
                for table in ("tasks", "flows", "schedules", "commands"):
                    database.execute(f"DELETE FROM {table} WHERE seq = ?", (merge.seq,))  # noqa: S608
                database.execute(
                    "INSERT OR REPLACE INTO merges VALUES (?, ?, ?)",
                    (merge.seq, merge.tenant, merge.same_as),
                )
            add_figures(database, changes.performance)
            put_allocations(database, changes.allocations)
            put_accounts(database, changes.accounts, changes.closed)
            if changes.allocations:
                self._sweep(database, changes.allocations[-1].since)
            counts = (changes.epoch, changes.void, changes.malformed)
            place = (self._stream, self._created, changes.position, changes.at_ms)
            database.execute(PUT_POSITION, (*place, *counts))

    def save_hosts(self, hosts: Hosts) -> None:
        """Store what beats have said since the last time, and how far BEATS was read."""
        rows, gone = hosts.changed()
        with self._transaction() as database:
            put_hosts(database, (hosts.created, hosts.position), rows, gone)

    def load_hosts(self, hosts: Hosts) -> None:
        """Give `hosts` what was saved of them."""
        hosts.restore(*load_hosts(self._database))

    def task(self, task_id: str) -> Task | None:
        """The task with this id: a post's sequence, or `<flow>.<step>.<index>`."""
        if _is_number(task_id):
            rows = self._select(f"{_TASKS} WHERE seq = ? AND step IS NULL", int(task_id))
        else:
            flow, step, index = ["", "", *task_id.rsplit(".", 2)][-3:]
            if not flow or not _is_number(index):
                return None
            where = "flow = ? AND step = ? AND idx = ?"
            rows = self._select(f"{_TASKS} WHERE {where}", flow, step, int(index))
        return task_of(rows[0]) if rows else None

    def flow(self, flow_id: str) -> Flow | None:
        """The workflow with this id."""
        rows = self._select(f"{_FLOWS} WHERE id = ?", flow_id)
        return flow_of(rows[0]) if rows else None

    def schedule(self, seq: int) -> Schedule | None:
        """The schedule posted at `seq`."""
        rows = self._select(f"{_SCHEDULES} WHERE seq = ?", seq)
        return schedule_of(rows[0]) if rows else None

    def command(self, seq: int) -> CommandRow | None:
        """The command posted at `seq`."""
        rows = self._select(f"{_COMMANDS} WHERE seq = ?", seq)
        return command_of(rows[0]) if rows else None

    def commands_about(self, targets: list[str], limit: int) -> list[CommandRow]:
        """The last commands to one of these ids, the oldest first."""
        places = ", ".join("?" * len(targets))
        last = f"{_COMMANDS} WHERE target IN ({places}) ORDER BY seq DESC LIMIT ?"
        return [command_of(row) for row in self._select(last, *targets, limit)][::-1]

    def merge(self, seq: int) -> Merge | None:
        """What the post at `seq` repeats."""
        rows = self._select("SELECT seq, tenant, same_as FROM merges WHERE seq = ?", seq)
        return Merge(*rows[0]) if rows else None

    def find(self, query: Query) -> list[Task | Flow | Schedule]:
        """The rows that `query` asks for, the newest first."""
        found: list[Task | Flow | Schedule] = []
        kind, capability = query.kind, query.capability
        if kind in (None, "task") and query.name is None:
            found += map(task_of, self._found(_TASKS, query, {"capability = ?": capability}))
        if kind in (None, "flow") and capability is None:
            found += map(flow_of, self._found(_FLOWS, query, {"name = ?": query.name}))
        if (
            kind in (None, "schedule")
            and query.name is None
            and query.flow is None
            and not query.dead
        ):
            wanted = {"capability = ?": capability}
            found += map(schedule_of, self._found(_SCHEDULES, query, wanted))
        found.sort(key=lambda row: row.seq, reverse=True)
        return found[: query.limit]

    def figures(self, query: FiguresQuery) -> Iterable[tuple[PerformanceKey, Tally]]:
        """The performance that `query` asks for, by hour."""
        return find_figures(self._database, query)

    def failures(self, query: FailuresQuery) -> list[tuple[FailureKey, FailureTally]]:
        """The kinds of failures that `query` asks for, the most frequent first."""
        return find_failures(self._database, query)

    def allocations(self, query: AllocationsQuery) -> list[Allocation]:
        """The allocations that `query` asks for, the newest first."""
        return find_allocations(self._database, query)

    def overlaps(self, most: int = MOST_COMPARED) -> list[Overlap]:
        """How many attempts each host has had at once, among the last `most` dispatches."""
        return find_overlaps(self._database, most)

    def accounts(self) -> list[Account]:
        """Every budget, by its key."""
        return load_accounts(self._database)

    def every(self) -> Iterator[Row | Merge]:
        """All rows of all kinds, each kind in the order of its sequences."""
        yield from map(task_of, self._database.execute(f"{_TASKS} ORDER BY seq"))
        yield from map(flow_of, self._database.execute(f"{_FLOWS} ORDER BY seq"))
        yield from map(schedule_of, self._database.execute(f"{_SCHEDULES} ORDER BY seq"))
        yield from map(command_of, self._database.execute(f"{_COMMANDS} ORDER BY seq"))
        for row in self._database.execute("SELECT seq, tenant, same_as FROM merges ORDER BY seq"):
            yield Merge(*row)

    def clear(self) -> None:
        """Drop every row and the position; also how a store of an older schema is rebuilt."""
        with self._transaction() as database:
            for table, statements in _ALL_TABLES.items():
                database.execute(f"DROP TABLE IF EXISTS {table}")
                for statement in statements.split(";"):
                    database.execute(statement)
            database.execute(f"PRAGMA user_version = {SCHEMA}")

    def close(self) -> None:
        """Close the file; a later use raises `sqlite3.ProgrammingError`."""
        self._database.close()

    def _sweep(self, database: sqlite3.Connection, at_ms: int) -> None:
        """Once an hour by the journal's time."""
        hour = at_ms // HOUR_MS
        if hour != self._swept_hour:
            self._swept_hour = hour
            drop_old(database, at_ms)

    def _is_of_this_journal(self) -> bool:
        rows = self._select("SELECT stream, created FROM position")
        return rows in ([], [(self._stream, self._created)])

    def _load_flows(self) -> list[Flow]:
        """Workflows that live or can be resumed, each with the sub-workflows below it."""
        roots = self._select(f"{_FLOWS} WHERE {_LIVE} AND flow IS NULL")
        flows = [flow_of(row) for row in roots]
        flows += map(flow_of, self._dead(_FLOWS, _BEGUN, MAX_DEAD_FLOWS))
        for flow in flows:  # grows while it is walked
            if any(step.plan.flow is not None for step in flow.steps.values()):
                flows += map(flow_of, self._select(f"{_FLOWS} WHERE flow = ?", flow.id))
        return flows

    def _dead(self, select: str, where: str, most: int) -> list[Any]:
        """What can be started again, the oldest first: as much of it as the fold would keep."""
        dead = f"{select} WHERE {_DEAD} AND {where} ORDER BY end_seq DESC LIMIT ?"
        found = self._select(dead, most)
        place = [name.strip() for name in select[7 : select.index(" FROM")].split(",")]
        ended_at = place.index("ended_at")
        if found:
            oldest = found[0][ended_at] - DEAD_WINDOW_MS
            found = [row for row in found if row[ended_at] > oldest]
        return found[::-1]

    def _found(self, select: str, query: Query, more: dict[str, str | None]) -> list[Any]:
        """Rows of one table, the newest first; each state is looked up by itself, in order."""
        asked: dict[str, str | int | None] = {
            "tenant = ?": query.tenant,
            "flow = ?": query.flow,
            "seq < ?": query.before,
            **more,
        }
        wanted = {clause: value for clause, value in asked.items() if value is not None}
        states: list[TaskState | None] = [query.state]
        if query.dead:
            states = [state for state in _LETTERS if query.state in (None, state)]
        found: list[Any] = []
        for state in states:
            where, values = [*wanted], [*wanted.values()]
            if state is not None:
                where.append("state = ?")
                values.append(state)
            if state not in (None, "succeeded"):
                where.append("state <> 'succeeded'")  # names the partial index
            last = f"{select} WHERE {' AND '.join(where) or 'true'} ORDER BY seq DESC LIMIT ?"
            found += self._select(last, *values, query.limit)
        return found

    def _select(self, statement: str, *values: object) -> list[Any]:
        return self._database.execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
        except BaseException:  # a Ctrl-C too: rows and position are saved together or not at all
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18
