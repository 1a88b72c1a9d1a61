"""Postgres as a target, by psycopg 3: one connection, one transaction a call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from callboard_broker.errors import BadInput, TargetAway, TargetRefused
from callboard_ledger.projection.schema import Migration, migrations

__all__ = ["PostgresTarget", "migrate", "shown_address"]

_CONNECT_SECONDS = 5
_CALL_SECONDS = 30.0
_ONE_AT_A_TIME = 0x63616C6C626F6172  # "callboar": the lock of whoever migrates
_TRANSIENT = ("08", "40", "53", "55", "57", "58")

try:
    import psycopg
    from psycopg import sql
except ImportError as error:  # pragma: no cover  the tests have it
    raise BadInput("to", "Postgres needs a driver: pip install 'callboard[postgres]'") from error


class PostgresTarget:
    """A database by its URL, as libpq reads it: what the URL leaves out comes from PGPASSWORD,
    ~/.pgpass and so on."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._turn = asyncio.Lock()

    @property
    def name(self) -> str:
        """The address without user and password."""
        return shown_address(self._url)

    async def call(self, function: str, document: str) -> Any:
        """See `Target.call`. A call is a transaction of its own, and is over within 30 s."""
        async with self._turn:
            try:
                async with asyncio.timeout(_CALL_SECONDS):
                    return await self._call(function, document)
            except TimeoutError:
                await self._drop()
                raise TargetAway(
                    f"{self.name} does not answer within {_CALL_SECONDS:g} s"
                ) from None
            except (psycopg.Error, OSError) as error:
                found = _told(self.name, error)
                if isinstance(found, TargetAway):
                    await self._drop()
                raise found from None
            except asyncio.CancelledError:
                await self._drop()  # nobody knows in which state the call has left it
                raise

    async def _call(self, function: str, document: str) -> Any:
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connection = await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                application_name="callboard projector",
                prepare_threshold=None,  # a pooler in between forgets prepared statements
                keepalives_idle=10,
                tcp_user_timeout=20_000,
            )
        statement = sql.SQL("SELECT public.{}(%s)").format(sql.Identifier(function))
        cursor = await connection.execute(statement, (document,))
        row = await cursor.fetchone()
        return None if row is None else row[0]

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def close(self) -> None:
        """Close the connection."""
        await self._drop()


def shown_address(url: str) -> str:
    """`postgres://host:port/database`, without user, password and parameters."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "postgres://"
    return f"postgres://{host}{f':{port}' if port else ''}{parts.path}"


async def migrate(url: str, more: Sequence[Migration] = ()) -> list[str]:
    """Apply every migration, in one transaction; return the versions that were not there before.

    Raises `TargetAway`, `TargetRefused`.
    """
    name = shown_address(url)
    try:
        async with await psycopg.AsyncConnection.connect(
            url, connect_timeout=_CONNECT_SECONDS, application_name="callboard migrate"
        ) as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ONE_AT_A_TIME,))
            await connection.execute("SET LOCAL client_min_messages = warning")
            before = await _versions(connection)
            for migration in [*migrations(), *more]:
                await connection.execute(migration.sql.encode())
            after = await _versions(connection)
    except (psycopg.Error, OSError) as error:
        raise _told(name, error) from None
    return sorted(after - before)


async def _versions(connection: psycopg.AsyncConnection[tuple[Any, ...]]) -> set[str]:
    found = await connection.execute("SELECT to_regclass('public.callboard_migrations')")
    row = await found.fetchone()
    if row is None or row[0] is None:
        return set()
    found = await connection.execute("SELECT version FROM public.callboard_migrations")
    return {version for (version,) in await found.fetchall()}


def _told(name: str, error: psycopg.Error | OSError) -> TargetAway | TargetRefused:
    """What went wrong, without the connection string that a driver's message may repeat."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    text = primary or str(error).strip().partition("\n")[0] or type(error).__name__
    if state is None and isinstance(error, psycopg.DataError):
        return TargetRefused("22000", text)  # the driver itself refuses it
    if state is None or state.startswith(_TRANSIENT):
        return TargetAway(f"{name}: {text}")
    return TargetRefused(state, text)
