"""Allocations, budgets and hosts in SQLite.

Allocations and budgets are written in the transaction that moves the journal's position; hosts in
one of their own, with the position of BEATS. What was returned more than thirty days ago is
dropped, an hour's worth at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from callboard_broker.beats import Beat
from callboard_broker.limits import Limit
from callboard_ledger.allocations import Allocation
from callboard_ledger.budgets import Account
from callboard_ledger.hosts import HostRow
from callboard_ledger.store import AllocationsQuery, Overlap

__all__ = [
    "TABLES",
    "drop_old",
    "find_allocations",
    "find_overlaps",
    "load_accounts",
    "load_held",
    "load_hosts",
    "put_accounts",
    "put_allocations",
    "put_hosts",
]

TABLES = {
    "allocations": """CREATE TABLE allocations (
        seq INTEGER PRIMARY KEY, task TEXT NOT NULL, attempt INTEGER NOT NULL,
        tenant TEXT NOT NULL, pool TEXT NOT NULL, capability TEXT NOT NULL, since INTEGER NOT NULL,
        host TEXT, end_seq INTEGER, returned_at INTEGER, ending TEXT,
        started_at INTEGER, ended_at INTEGER
    );
    CREATE INDEX allocations_held ON allocations (seq) WHERE end_seq IS NULL;
    CREATE INDEX allocations_of_host ON allocations (host, seq)""",
    "budgets": """CREATE TABLE budgets (
        key TEXT PRIMARY KEY, base TEXT, changed TEXT, "limit" TEXT, in_use INTEGER NOT NULL,
        most INTEGER NOT NULL, exceeded INTEGER NOT NULL, reserved TEXT, used TEXT
    ) WITHOUT ROWID""",
    "hosts": """CREATE TABLE hosts (
        pool TEXT NOT NULL, host TEXT NOT NULL, seq INTEGER NOT NULL, seen_at INTEGER NOT NULL,
        since INTEGER NOT NULL, gone INTEGER NOT NULL, beat TEXT NOT NULL,
        PRIMARY KEY (pool, host)
    ) WITHOUT ROWID""",
    "beats": "CREATE TABLE beats (created TEXT NOT NULL, seq INTEGER NOT NULL)",
}

KEPT_MS = 30 * 24 * 3600 * 1000
"""How long a returned allocation is known."""

_ALLOCATION = (
    "seq, task, attempt, tenant, pool, capability, since, host, end_seq, returned_at, ending, "
    "started_at, ended_at"
)
_ACCOUNT = 'key, base, changed, "limit", in_use, most, exceeded, reserved, used'
_HOST = "pool, host, seq, seen_at, since, gone, beat"


def _put(table: str, columns: str) -> str:
    places = ", ".join("?" * len(columns.split(", ")))
    return f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({places})"  # noqa: S608  constants


_PUT_ALLOCATION = _put("allocations", _ALLOCATION)
_PUT_ACCOUNT = _put("budgets", _ACCOUNT)
_PUT_HOST = _put("hosts", _HOST)

_OVERLAPS = """
    WITH recent AS (
        SELECT pool, host, capability, started_at, ended_at FROM allocations
            ORDER BY seq DESC LIMIT ?
    )
    SELECT pool, host, capability, max(held) FROM (
        SELECT pool, host, capability, sum(step) OVER (
            PARTITION BY pool, host, capability ORDER BY at, step
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS held FROM (
            SELECT pool, host, capability, started_at AS at, 1 AS step FROM recent
                WHERE ended_at > started_at
            UNION ALL SELECT pool, host, capability, ended_at, -1 FROM recent
                WHERE ended_at > started_at
        )
    ) GROUP BY pool, host, capability ORDER BY pool, host, capability
"""

_json = msgspec.json.Encoder()
_limit = msgspec.json.Decoder(Limit)
_units = msgspec.json.Decoder(dict[str, float])
_beat = msgspec.json.Decoder(Beat)


def put_allocations(database: sqlite3.Connection, rows: Iterable[Allocation]) -> None:
    """Write what was given and returned."""
    database.executemany(_PUT_ALLOCATION, map(msgspec.structs.astuple, rows))


def put_accounts(
    database: sqlite3.Connection, rows: Iterable[Account], closed: Iterable[str]
) -> None:
    """Write the accounts that changed; drop those that are no more."""
    database.executemany("DELETE FROM budgets WHERE key = ?", ((key,) for key in closed))
    database.executemany(_PUT_ACCOUNT, map(_account_row, rows))


def _account_row(row: Account) -> tuple[object, ...]:
    return (
        row.key,
        _text(row.base),
        _text(row.changed),
        _text(row.limit),
        row.in_use,
        row.most,
        row.exceeded,
        _text(row.reserved or None),
        _text(row.used or None),
    )


def _text(value: Limit | dict[str, float] | None) -> str | None:
    return None if value is None else _json.encode(value).decode()


def load_accounts(database: sqlite3.Connection) -> list[Account]:
    """Every account, by its key."""
    rows = database.execute(f"SELECT {_ACCOUNT} FROM budgets ORDER BY key")  # noqa: S608
    return [_account_of(row) for row in rows]


def _account_of(row: tuple[Any, ...]) -> Account:
    key, base, changed, limit, in_use, most, exceeded, reserved, used = row
    return Account(
        key,
        _limit_of(base),
        _limit_of(changed),
        _limit_of(limit),
        in_use,
        most,
        exceeded,
        {} if reserved is None else _units.decode(reserved),
        {} if used is None else _units.decode(used),
    )


def _limit_of(text: str | None) -> Limit | None:
    return None if text is None else _limit.decode(text)


def load_held(database: sqlite3.Connection) -> list[Allocation]:
    """What is not returned."""
    held = f"SELECT {_ALLOCATION} FROM allocations WHERE end_seq IS NULL ORDER BY seq"  # noqa: S608
    return [Allocation(*row) for row in database.execute(held)]


def find_allocations(database: sqlite3.Connection, query: AllocationsQuery) -> list[Allocation]:
    """What `query` asks for, the newest first."""
    wanted = {
        "tenant = ?": query.tenant,
        "host = ?": query.host,
        "pool = ?": query.pool,
        "capability = ?": query.capability,
        "seq < ?": query.before,
    }
    given = {clause: value for clause, value in wanted.items() if value is not None}
    where = [*given, *(["end_seq IS NULL"] if query.held else [])]
    rows = database.execute(
        f"SELECT {_ALLOCATION} FROM allocations WHERE {' AND '.join(where) or 'true'} "  # noqa: S608
        "ORDER BY seq DESC LIMIT ?",
        [*given.values(), query.limit],
    )
    return [Allocation(*row) for row in rows]


def find_overlaps(database: sqlite3.Connection, most: int) -> list[Overlap]:
    """See `Store.overlaps`."""
    return [Overlap(*row) for row in database.execute(_OVERLAPS, (most,))]


def drop_old(database: sqlite3.Connection, at_ms: int) -> None:
    """Forget what was dispatched too long ago, unless it is held."""
    oldest = "SELECT seq FROM allocations WHERE since >= ? ORDER BY seq LIMIT 1"
    found = database.execute(oldest, (at_ms - KEPT_MS,)).fetchone()
    if found is not None:
        gone = "DELETE FROM allocations WHERE seq < ? AND end_seq IS NOT NULL"
        database.execute(gone, found)


def put_hosts(
    database: sqlite3.Connection,
    place: tuple[str, int],
    rows: Iterable[HostRow],
    gone: Iterable[tuple[str, str]],
) -> None:
    """Write the hosts that were heard. place: when BEATS was made, and its last sequence."""
    database.executemany("DELETE FROM hosts WHERE pool = ? AND host = ?", gone)
    database.executemany(_PUT_HOST, map(_host_row, rows))
    database.execute("DELETE FROM beats")
    database.execute("INSERT INTO beats VALUES (?, ?)", place)


def _host_row(row: HostRow) -> tuple[object, ...]:
    beat = _json.encode(row.beat).decode()
    return row.pool, row.host, row.seq, row.seen_at, row.since, row.gone, beat


def load_hosts(database: sqlite3.Connection) -> tuple[str, int, list[HostRow]]:
    """When BEATS was made, its last sequence that was read, and every host."""
    created, position = database.execute("SELECT created, seq FROM beats").fetchone() or ("", 0)
    rows = database.execute(f"SELECT {_HOST} FROM hosts ORDER BY pool, host")  # noqa: S608
    hosts = [
        HostRow(
            pool=pool,
            host=host,
            seq=seq,
            seen_at=seen_at,
            since=since,
            gone=bool(gone),
            beat=_beat.decode(beat),
        )
        for pool, host, seq, seen_at, since, gone, beat in rows
    ]
    return created, position, hosts
