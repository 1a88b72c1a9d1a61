"""The ledger's rows in one SQLite file, the default store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from callboard_broker.wire import Failure
from callboard_ledger.rows import Changes, Flow, FlowStep, Merge, Task
from callboard_ledger.store import Query

__all__ = ["SqliteStore"]

_SCHEMA = 1
_LIVE = "('waiting', 'running')"

_TABLES = f"""
CREATE TABLE position (
    stream TEXT PRIMARY KEY, created TEXT NOT NULL, seq INTEGER NOT NULL, epoch INTEGER NOT NULL,
    void INTEGER NOT NULL, malformed INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, capability TEXT NOT NULL, state TEXT NOT NULL,
    attempt INTEGER NOT NULL, lost INTEGER NOT NULL, secret TEXT NOT NULL, error TEXT,
    priority INTEGER NOT NULL, shard INTEGER, posted_at INTEGER, dispatched_at INTEGER,
    ended_at INTEGER, host TEXT, dispatch_seq INTEGER, end_seq INTEGER,
    flow INTEGER, step TEXT, idx INTEGER
);
CREATE INDEX tasks_of_tenant ON tasks (tenant, seq);
CREATE INDEX tasks_in_state ON tasks (state, seq) WHERE state <> 'succeeded';
CREATE UNIQUE INDEX tasks_of_flow ON tasks (flow, step, idx) WHERE flow IS NOT NULL;
CREATE TABLE flows (
    seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
    posted_at INTEGER NOT NULL, ended_at INTEGER, end_seq INTEGER, shard INTEGER, error TEXT,
    steps TEXT NOT NULL
);
CREATE INDEX flows_of_tenant ON flows (tenant, seq);
CREATE INDEX flows_live ON flows (seq) WHERE state IN {_LIVE};
CREATE TABLE merges (seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, same_as TEXT NOT NULL);
"""

_TASK_COLUMNS = (
    "seq, tenant, capability, state, attempt, lost, secret, error, priority, shard, posted_at, "
    "dispatched_at, ended_at, host, dispatch_seq, end_seq, flow, step, idx"
)
_FLOW_COLUMNS = "seq, tenant, name, state, posted_at, ended_at, end_seq, shard, error, steps"


def _upsert(table: str, columns: str, kept: int) -> str:
    """An upsert by `seq` that leaves the first `kept` columns as they are (and their indexes)."""
    names = columns.split(", ")
    changed = ", ".join(f"{name} = excluded.{name}" for name in names[kept:])
    places = ", ".join("?" * len(names))
    return (
        f"INSERT INTO {table} ({columns}) VALUES ({places}) "  # noqa: S608  constants, see above
        f"ON CONFLICT (seq) DO UPDATE SET {changed}"
    )


_PUT_TASK = _upsert("tasks", _TASK_COLUMNS, 3)
_PUT_FLOW = _upsert("flows", _FLOW_COLUMNS, 3)
_PUT_POSITION = "INSERT OR REPLACE INTO position VALUES (?, ?, ?, ?, ?, ?)"

_json = msgspec.json.Encoder()
_failure = msgspec.json.Decoder(Failure)
_steps = msgspec.json.Decoder(list[FlowStep])


class SqliteStore:
    """Rows in one SQLite file. stream, created: the journal, and when the server created it.

    WAL with synchronous=NORMAL: a killed process loses nothing, a power failure may lose the last
    transactions as a whole, and those are folded again from the journal. An fsync per batch would
    buy nothing. A file of another journal or of another schema is emptied: it holds nothing that
    the journal does not. Raises `sqlite3.Error` and `OSError` as they come.
    """

    def __init__(self, path: Path, *, stream: str, created: str = "") -> None:
        self._stream = stream
        self._created = created
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None)
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version != _SCHEMA or not self._is_of_this_journal():
                self.clear()
        except BaseException:
            self._database.close()
            raise

    def load(self) -> Changes:
        """The position and the rows that have not ended."""
        row = self._database.execute(
            "SELECT seq, epoch, void, malformed FROM position WHERE stream = ?", (self._stream,)
        ).fetchone()
        position, epoch, void, malformed = row or (0, 0, 0, 0)
        flows = [
            _flow(row)
            for row in self._database.execute(
                f"SELECT {_FLOW_COLUMNS} FROM flows WHERE state IN {_LIVE}"  # noqa: S608  constants
            )
        ]
        for flow in flows:
            rows = self._database.execute(
                "SELECT step, idx, state FROM tasks WHERE flow = ?", (flow.seq,)
            )
            for step, idx, state in rows:
                flow.known.add(f"{step}.{idx}")
                flow.open += state in ("waiting", "running")
        tasks = [
            _task(row)
            for row in self._database.execute(
                f"SELECT {_TASK_COLUMNS} FROM tasks WHERE state IN {_LIVE}"  # noqa: S608  constants
            )
        ]
        return Changes(
            position=position,
            epoch=epoch,
            void=void,
            malformed=malformed,
            tasks=tasks,
            flows=flows,
        )

    def save(self, changes: Changes) -> None:
        """Upsert what changed, drop what turned out to be a merge, move the position."""
        with self._transaction() as database:
            database.executemany(_PUT_TASK, map(_task_row, changes.tasks))
            database.executemany(_PUT_FLOW, map(_flow_row, changes.flows))
            for merge in changes.merges:
                database.execute("DELETE FROM tasks WHERE seq = ?", (merge.seq,))
                database.execute("DELETE FROM flows WHERE seq = ?", (merge.seq,))
                database.execute(
                    "INSERT OR REPLACE INTO merges VALUES (?, ?, ?)",
                    (merge.seq, merge.tenant, merge.same_as),
                )
            position = (changes.position, changes.epoch, changes.void, changes.malformed)
            database.execute(_PUT_POSITION, (self._stream, self._created, *position))

    def task(self, task_id: str) -> Task | None:
        """The task with this id: a post's sequence, or `<flow>.<step>.<index>`."""
        head, *rest = task_id.split(".")
        if not _is_number(head):
            return None
        if not rest:
            where, values = "seq = ? AND flow IS NULL", [head]
        elif len(rest) == 2 and _is_number(rest[1]):
            where, values = "flow = ? AND step = ? AND idx = ?", [head, *rest]
        else:
            return None
        row = self._database.execute(
            f"SELECT {_TASK_COLUMNS} FROM tasks WHERE {where}",  # noqa: S608  constants
            values,
        ).fetchone()
        return None if row is None else _task(row)

    def flow(self, seq: int) -> Flow | None:
        """The workflow posted at `seq`."""
        row = self._database.execute(
            f"SELECT {_FLOW_COLUMNS} FROM flows WHERE seq = ?",  # noqa: S608  constants
            (seq,),
        ).fetchone()
        return None if row is None else _flow(row)

    def merge(self, seq: int) -> Merge | None:
        """What the post at `seq` repeats."""
        row = self._database.execute(
            "SELECT seq, tenant, same_as FROM merges WHERE seq = ?", (seq,)
        ).fetchone()
        return None if row is None else Merge(*row)

    def find(self, query: Query) -> list[Task | Flow]:
        """The rows that `query` asks for, the newest first."""
        found: list[Task | Flow] = []
        if query.kind != "flow":
            found += [_task(row) for row in self._rows("tasks", _TASK_COLUMNS, query)]
        if query.kind != "task":
            found += [_flow(row) for row in self._rows("flows", _FLOW_COLUMNS, query)]
        found.sort(key=lambda row: row.seq, reverse=True)
        return found[: query.limit]

    def clear(self) -> None:
        """Drop every row and the position; also how a store of an older schema is rebuilt."""
        with self._transaction() as database:
            for table in ("position", "tasks", "flows", "merges"):
                database.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in _TABLES.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_SCHEMA}")

    def close(self) -> None:
        """Close the file; a later use raises `sqlite3.ProgrammingError`."""
        self._database.close()

    def _is_of_this_journal(self) -> bool:
        rows = self._database.execute("SELECT stream, created FROM position").fetchall()
        return rows in ([], [(self._stream, self._created)])

    def _rows(self, table: str, columns: str, query: Query) -> list[Any]:
        asked = {"tenant = ?": query.tenant, "state = ?": query.state, "seq < ?": query.before}
        wanted = {clause: value for clause, value in asked.items() if value is not None}
        if table == "tasks" and query.state not in (None, "succeeded"):
            wanted["state <> ?"] = "succeeded"  # names the partial index
        where = " AND ".join(wanted) or "true"
        return self._database.execute(
            f"SELECT {columns} FROM {table} WHERE {where} "  # noqa: S608  constants, values bound
            "ORDER BY seq DESC LIMIT ?",
            (*wanted.values(), query.limit),
        ).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18


def _task_row(task: Task) -> tuple[object, ...]:
    return (
        task.seq,
        task.tenant,
        task.capability,
        task.state,
        task.attempt,
        task.lost,
        task.secret,
        None if task.failure is None else _error(task.failure),
        task.priority,
        task.shard,
        task.posted_at,
        task.dispatched_at,
        task.ended_at,
        task.host,
        task.dispatch_seq,
        task.end_seq,
        task.flow,
        task.step,
        task.idx,
    )


def _flow_row(flow: Flow) -> tuple[object, ...]:
    return (
        flow.seq,
        flow.tenant,
        flow.name,
        flow.state,
        flow.posted_at,
        flow.ended_at,
        flow.end_seq,
        flow.shard,
        None if flow.error is None else _error(flow.error),
        _json.encode(list(flow.steps.values())).decode(),
    )


def _task(row: Sequence[Any]) -> Task:
    names = _TASK_COLUMNS.split(", ")
    fields = dict(zip(names, row, strict=True))
    error = fields.pop("error")
    task = Task(**fields, failure=None if error is None else _failure.decode(error))
    task.id = str(task.seq) if task.flow is None else f"{task.flow}.{task.step}.{task.idx}"
    return task


def _flow(row: Sequence[Any]) -> Flow:
    names = _FLOW_COLUMNS.split(", ")
    fields = dict(zip(names, row, strict=True))
    error, steps = fields.pop("error"), _steps.decode(fields.pop("steps"))
    return Flow(
        **fields,
        error=None if error is None else _failure.decode(error),
        steps={step.id: step for step in steps},
        known=set(),
    )


def _error(failure: Failure) -> str:
    """Without the trace, which may be long: it stands in the journal."""
    return _json.encode(Failure(failure.type, failure.message, field=failure.field)).decode()
