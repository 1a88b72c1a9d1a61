"""The tracker's tables, as they were published, and what its tests read of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from callboard_broker.record import Record
from callboard_integrations.cerebral.mirror import Mirror
from callboard_integrations.cerebral.names import Names
from callboard_integrations.cerebral.target import CerebralTarget, Tables, cerebral_migrations
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.projection.batch import Batch, Gathering
from callboard_ledger.projection.delivery import Delivery, Standing
from callboard_ledger.projection.postgres import PostgresTarget, migrate
from callboard_ledger.projection.reader import TargetReader
from callboard_ledger.projection.target import Target
from callboard_ledger.reading import read
from tests.databases import Database
from tests.ledger_journal import SUBJECTS
from tests.projections import STREAM, projecting
from tests.servers import NatsServer

__all__ = [
    "ACME",
    "GLOBEX",
    "NAMES",
    "PUBLISHED",
    "SMALL",
    "add_row",
    "batches",
    "mirroring",
    "opened",
    "rows_of",
    "send",
    "tracked",
]

ROOT = Path(__file__).parent.parent
ACME = "0a0a0a0a-0000-4000-8000-00000000000a"
GLOBEX = "0b0b0b0b-0000-4000-8000-00000000000b"
PROJECT = "0c0c0c0c-0000-4000-8000-00000000000c"
NAMES = Names(tenants={"acme": ACME, "globex": GLOBEX}, projects={"acme": PROJECT})

PUBLISHED = (ROOT / "examples/cerebral/tracker.sql").read_text()
SMALL = """
create table cerebraflow_tasks (
  id uuid primary key default gen_random_uuid(), title text not null, description text,
  status text default 'pending', priority text default 'medium', metadata jsonb default '{}');
"""


async def tracked(database: Database, tables: str = PUBLISHED) -> Database:
    """The same database, with the tracker's tables and Callboard's functions."""
    database.run(tables)
    await migrate(database.url, cerebral_migrations())
    return database


@asynccontextmanager
async def opened(database: Database, tables: Tables | None = None) -> AsyncIterator[CerebralTarget]:
    """The target of a mirror."""
    inner = PostgresTarget(database.url)
    try:
        yield CerebralTarget(inner, tables or Tables(), board="cb")
    finally:
        await inner.close()


def batches(
    records: list[Record], sizes: list[int], *, stream: str = STREAM, names: Names = NAMES
) -> list[Batch]:
    """A journal as the batches of a mirror; sizes: of the first ones, the last goes on."""
    aggregator = Aggregator(SUBJECTS)
    gathering = Gathering(stream, "cb", 0, event_bytes=4096, beside=Mirror(names))
    made: list[Batch] = []
    for record in records:
        reading = read(SUBJECTS, record)
        gathering.add(record, reading, aggregator.fold(record, reading))
        if len(gathering) >= sizes[min(len(made), len(sizes) - 1)] or record is records[-1]:
            changes = aggregator.changes()
            made.append(gathering.take(changes))
            aggregator.saved(changes)
    return made


async def send(
    target: Target, records: list[Record], *sizes: int, stream: str = STREAM
) -> Standing:
    """Mirror a journal that no server holds, from where the database is; sizes: of batches."""
    standing = Standing()
    delivery = Delivery(target, standing)
    position = (await TargetReader(target, stream).head()).position
    begun = [position] if position else []
    for batch in batches(records, [*begun, *(sizes or (100,))], stream=stream):
        if batch.position > position:
            async with asyncio.timeout(60):
                await delivery.deliver(batch)
    return standing


def rows_of(database: Database, tenant: str | None = None) -> dict[str, dict[str, Any]]:
    """Every row of the tracker by the board's id of it; a person's by its title. Without what
    depends on how the journal was cut into batches."""
    found: dict[str, dict[str, Any]] = {}
    where = "" if tenant is None else f" where tenant_id = '{tenant}'"
    for (row,) in database.run(f"select to_jsonb(t) from cerebral_tasks t{where}"):
        own = row["metadata"].get("callboard", {})
        own.pop("seq", None)
        found[own.get("task", row["title"])] = row
    return found


def add_row(database: Database, tenant: str, title: str, **columns: Any) -> str:
    """A person adds a row; its id."""
    columns = {"tenant_id": tenant, "project_id": PROJECT, "title": title, **columns}
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    statement = f"insert into cerebral_tasks ({names}) values ({marks}) returning task_id::text"
    return str(database.run(statement, *columns.values())[0][0])


@asynccontextmanager
async def mirroring(
    nats: NatsServer, to: str, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`callboard cerebral mirror` as a process, which is ready; killed at the end."""
    tenants = f'{{"acme": "{ACME}", "globex": "{GLOBEX}"}}'
    command = ("cerebral", "mirror")
    async with projecting(nats, to, command, CEREBRAL__TENANTS=tenants, **settings) as process:
        yield process
