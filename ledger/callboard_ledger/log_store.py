"""The lines of handlers in a SQLite file of their own, beside the ledger's rows.

Lines and the position up to which LOGS was read are saved in one transaction, and a line that comes
twice is known by its number in its attempt, so a ledger that was killed goes on where it was.
What LOGS no longer holds leaves this file too: its bounds are the bounds of both. A file of its
own, because lines come and go in masses and none of them may hold up or endanger the state.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw

from callboard_broker.log_lines import LEVELS, LogBatch, LoggedLine, level_name

__all__ = ["Lines", "LogQuery", "LogStore", "Stored"]

_SCHEMA = 1
_SWEEP = 5000  # lines that leave at once
_PAGE_BYTES = 600 * 1024  # of an answer
_TABLES = """
CREATE TABLE position (stream TEXT PRIMARY KEY, created TEXT NOT NULL, seq INTEGER NOT NULL)
WITHOUT ROWID;
CREATE TABLE lines (
    id INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL, tenant TEXT NOT NULL,
    root TEXT NOT NULL, task TEXT NOT NULL, attempt INTEGER NOT NULL, n INTEGER NOT NULL,
    at INTEGER NOT NULL, level INTEGER NOT NULL, host TEXT NOT NULL, capability TEXT NOT NULL,
    trace TEXT NOT NULL, logger TEXT NOT NULL, message TEXT NOT NULL, fields BLOB,
    error TEXT NOT NULL
);
CREATE UNIQUE INDEX lines_of_task ON lines (tenant, task, attempt, n);
CREATE INDEX lines_of_root ON lines (tenant, root, id)
"""
_PUT = f"INSERT OR IGNORE INTO lines VALUES (NULL{', ?' * 15})"  # noqa: S608  constants
_COLUMNS = (
    "id, at, level, message, tenant, root, task, attempt, n, host, capability, trace, logger, "
    "fields, error"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message of LOGS. batch: None if it could not be read."""

    seq: int
    tenant: str
    batch: LogBatch | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Lines of one tenant's task, in the order in which they came. level: the least, as a number.

    after: only what came after the line with this id. last: only so many of the newest.
    """

    tenant: str
    task: str
    level: int = 0
    after: int = 0
    limit: int = 1000
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """An answer. next: the `after` of the next question. more: there are further ones now."""

    lines: list[LoggedLine]
    next: int
    more: bool


class LogStore:
    """The lines that LOGS holds. stream, created: which stream it is, and when it was created.

    Raises `sqlite3.Error` and `OSError` as they come.
    """

    def __init__(self, path: Path, *, stream: str, created: str) -> None:
        self._stream = stream
        self.created = created
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None)
        try:
            self._database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = NORMAL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version != _SCHEMA or not self._is_of_this_stream():
                self.clear()
            self.position = self._position()
        except BaseException:  # a Ctrl-C too: nobody else has this connection yet to close it
            self._database.close()
            raise

    def save(self, stored: Iterable[Stored]) -> None:
        """Add the lines of these messages, and move the position to the last of them."""
        position = self.position
        with self._transaction() as database:
            for message in stored:
                position = message.seq
                if message.batch is not None:
                    database.executemany(_PUT, _rows(message, message.batch))
            row = (self._stream, self.created, position)
            database.execute("INSERT OR REPLACE INTO position VALUES (?, ?, ?)", row)
        self.position = position

    def forget(self, first: int) -> bool:
        """Drop some of the oldest lines, as far as LOGS begins after them, at sequence `first`.

        Returns whether there may be more to drop.
        """
        oldest = "SELECT id FROM lines ORDER BY id LIMIT ?"
        drop = f"DELETE FROM lines WHERE id IN ({oldest}) AND seq < ?"  # noqa: S608  a constant
        with self._transaction() as database:
            dropped = database.execute(drop, (_SWEEP, first)).rowcount
        if dropped:
            self._database.execute("PRAGMA incremental_vacuum").fetchall()
        return dropped == _SWEEP

    def find(self, query: LogQuery) -> Lines:
        """The lines of a task and of all that is below it: of its steps, and, if it is not itself
        below another, of what those have spawned."""
        where, values = self._whose(query)
        where += " AND id > ?"
        values.append(query.after)
        if query.level > min(LEVELS.values()):
            where += " AND level >= ?"
            values.append(query.level)
        order, limit = ("DESC", query.last) if query.last is not None else ("ASC", query.limit)
        select = f"SELECT {_COLUMNS} FROM lines WHERE {where} ORDER BY id {order} LIMIT ?"  # noqa: S608  constants
        found: list[LoggedLine] = []
        size, highest, more = 0, query.after, False
        cursor = self._database.execute(select, (*values, limit))
        for row in cursor:
            size += _size(row)
            if found and size > _PAGE_BYTES:
                more = query.last is None
                break
            found.append(_line(row))
            highest = max(highest, row[0])
        else:
            more = query.last is None and len(found) == limit
        cursor.close()
        return Lines(found[::-1] if query.last is not None else found, highest, more)

    def clear(self) -> None:
        """Drop everything: LOGS will be read from its beginning."""
        with self._transaction() as database:
            for table in ("lines", "position"):
                database.execute(f"DROP TABLE IF EXISTS {table}")
            for statement in _TABLES.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_SCHEMA}")
        self.position = 0

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _whose(self, query: LogQuery) -> tuple[str, list[Any]]:
        root = "tenant = ? AND root = ?"
        values: list[Any] = [query.tenant, query.task]
        one = f"SELECT 1 FROM lines WHERE {root} LIMIT 1"  # noqa: S608  a constant
        if self._database.execute(one, values).fetchone():
            return root, values
        # `/` is what comes after `.`: everything whose id begins with this one and a dot
        below = "tenant = ? AND (task = ? OR (task > ? AND task < ?))"
        return below, [*values, f"{query.task}.", f"{query.task}/"]

    def _position(self) -> int:
        row = self._database.execute("SELECT seq FROM position").fetchone()
        return 0 if row is None else int(row[0])

    def _is_of_this_stream(self) -> bool:
        rows = self._database.execute("SELECT stream, created FROM position").fetchall()
        return rows in ([], [(self._stream, self.created)])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
        except BaseException:  # a Ctrl-C too: lines and position are saved together or not at all
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")


def _rows(message: Stored, batch: LogBatch) -> Iterator[tuple[Any, ...]]:
    for line in batch.lines:
        yield (
            message.seq,
            message.tenant,
            batch.workflow,
            batch.task,
            batch.attempt,
            line.n,
            line.at,
            LEVELS[line.level],
            batch.host,
            batch.capability,
            batch.trace,
            line.logger,
            line.message,
            bytes(line.fields) if isinstance(line.fields, Raw) else None,
            line.error,
        )


def _line(row: tuple[Any, ...]) -> LoggedLine:
    _, at, level, message, tenant, root, task, attempt, n, *rest = row
    host, capability, trace, logger, fields, error = rest
    return LoggedLine(
        at=at,
        level=level_name(level),
        message=message,
        tenant=tenant,
        workflow=root,
        task=task,
        attempt=attempt,
        n=n,
        host=host,
        capability=capability,
        trace=trace,
        logger=logger,
        fields=None if fields is None else msgspec.json.decode(fields),
        error=error,
    )


def _size(row: tuple[Any, ...]) -> int:
    """About what it takes in an answer, where a character may become six."""
    texts = [cell for cell in row if isinstance(cell, str | bytes)]
    return 300 + sum(map(len, texts))
