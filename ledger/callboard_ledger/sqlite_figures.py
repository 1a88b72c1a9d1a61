"""The figures of performance and failures in SQLite: added to, never overwritten.

Called inside the transaction that moves the position. Figures are kept for ninety days, and of one
tenant's failures so many kinds: beyond, they are counted as `other`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import msgspec

from callboard_ledger.histogram import Histogram
from callboard_ledger.performance import (
    HOUR_MS,
    FailureKey,
    FailureTally,
    Performance,
    PerformanceKey,
    Tally,
)
from callboard_ledger.store import FailuresQuery, FiguresQuery

__all__ = ["TABLES", "add_figures", "find_failures", "find_figures"]

TABLES = {
    "performance": """CREATE TABLE performance (
        hour INTEGER NOT NULL, tenant TEXT NOT NULL, capability TEXT NOT NULL,
        agent TEXT NOT NULL, version TEXT NOT NULL,
        succeeded INTEGER NOT NULL, failed INTEGER NOT NULL, lost INTEGER NOT NULL,
        wait TEXT NOT NULL, handoff TEXT NOT NULL, run TEXT NOT NULL, used TEXT NOT NULL,
        PRIMARY KEY (hour, tenant, capability, agent, version)
    ) WITHOUT ROWID""",
    "failures": """CREATE TABLE failures (
        tenant TEXT NOT NULL, type TEXT NOT NULL, pattern TEXT NOT NULL,
        capability TEXT NOT NULL, agent TEXT NOT NULL, version TEXT NOT NULL,
        count INTEGER NOT NULL, first_at INTEGER NOT NULL, last_at INTEGER NOT NULL,
        example TEXT NOT NULL, message TEXT NOT NULL,
        PRIMARY KEY (tenant, type, pattern, capability, agent, version)
    ) WITHOUT ROWID;
    CREATE INDEX failures_by_time ON failures (last_at)""",
}

_KEPT_HOURS = 90 * 24
_MOST_KINDS = 10_000
_OTHER = "other"

_OF_KEY = "hour = ? AND tenant = ? AND capability = ? AND agent = ? AND version = ?"
_OF_KIND = (
    "tenant = ? AND type = ? AND pattern = ? AND capability = ? AND agent = ? AND version = ?"
)
_FIGURES = "succeeded, failed, lost, wait, handoff, run, used"

_json = msgspec.json.Encoder()
_histogram = msgspec.json.Decoder(Histogram)
_units = msgspec.json.Decoder(dict[str, float])


def add_figures(database: sqlite3.Connection, added: Performance) -> None:
    """Add what the fold has counted since the last save."""
    for key, tally in added.by_key.items():
        found = database.execute(
            f"SELECT {_FIGURES} FROM performance WHERE {_OF_KEY}",  # noqa: S608  constants
            key,
        ).fetchone()
        if found is None:
            database.execute("DELETE FROM performance WHERE hour < ?", (key.hour - _KEPT_HOURS,))
        else:
            total = _tally(found)
            total.add(tally)
            tally = total  # noqa: PLW2901  what is stored is the sum
        texts = (tally.wait, tally.handoff, tally.run, tally.used)
        database.execute(
            "INSERT OR REPLACE INTO performance VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *key,
                tally.succeeded,
                tally.failed,
                tally.lost,
                *(_json.encode(text).decode() for text in texts),
            ),
        )
    for kind, failure in added.failures.items():
        _add_failure(database, kind, failure)


def _add_failure(database: sqlite3.Connection, kind: FailureKey, new: FailureTally) -> None:
    found = _failure_at(database, kind)
    if found is None:
        oldest = new.last_at - _KEPT_HOURS * HOUR_MS
        database.execute("DELETE FROM failures WHERE last_at < ?", (oldest,))
        counted = "SELECT count(*) FROM failures WHERE tenant = ?"
        if database.execute(counted, (kind.tenant,)).fetchone()[0] >= _MOST_KINDS:
            kind = FailureKey(kind.tenant, _OTHER, "", kind.capability, "", "")
            found = _failure_at(database, kind)
    if found is not None:
        found.add(new)
        new = found
    row = (*kind, new.count, new.first_at, new.last_at, new.example, new.message)
    places = ", ".join("?" * len(row))
    database.execute(f"INSERT OR REPLACE INTO failures VALUES ({places})", row)  # noqa: S608


def _failure_at(database: sqlite3.Connection, kind: FailureKey) -> FailureTally | None:
    row = database.execute(
        f"SELECT count, first_at, last_at, example, message FROM failures WHERE {_OF_KIND}",  # noqa: S608
        kind,
    ).fetchone()
    return None if row is None else FailureTally(*row)


def find_figures(
    database: sqlite3.Connection, query: FiguresQuery
) -> Iterator[tuple[PerformanceKey, Tally]]:
    """The rows that `query` asks for, by hour."""
    wanted = {
        "hour >= ?": None if query.since is None else query.since // HOUR_MS,
        "hour < ?": None if query.until is None else -(-query.until // HOUR_MS),
        "tenant = ?": query.tenant,
        "capability = ?": query.capability,
    }
    where, values = _where(wanted)
    rows = database.execute(
        f"SELECT hour, tenant, capability, agent, version, {_FIGURES} FROM performance {where} "  # noqa: S608
        "ORDER BY hour",
        values,
    )
    for row in rows:
        yield PerformanceKey(*row[:5]), _tally(row[5:])


def find_failures(
    database: sqlite3.Connection, query: FailuresQuery
) -> list[tuple[FailureKey, FailureTally]]:
    """The kinds that `query` asks for, the most frequent first."""
    wanted = {
        "last_at >= ?": query.since,
        "tenant = ?": query.tenant,
        "capability = ?": query.capability,
        "type = ?": query.type,
    }
    where, values = _where(wanted)
    rows = database.execute(
        "SELECT tenant, type, pattern, capability, agent, version, count, first_at, last_at, "  # noqa: S608
        f"example, message FROM failures {where} ORDER BY count DESC, last_at DESC LIMIT ?",
        [*values, query.limit],
    )
    return [(FailureKey(*row[:6]), FailureTally(*row[6:])) for row in rows]


def _where(wanted: dict[str, int | str | None]) -> tuple[str, list[int | str]]:
    given = {clause: value for clause, value in wanted.items() if value is not None}
    return f"WHERE {' AND '.join(given)}" if given else "", [*given.values()]


def _tally(row: tuple[int, int, int, str, str, str, str]) -> Tally:
    succeeded, failed, lost, wait, handoff, run, used = row
    return Tally(
        succeeded,
        failed,
        lost,
        _histogram.decode(wait),
        _histogram.decode(handoff),
        _histogram.decode(run),
        _units.decode(used),
    )
