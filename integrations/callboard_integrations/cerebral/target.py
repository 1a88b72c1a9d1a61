"""The tracker's tables as a projector's target, by whichever way leads to their database.

The functions that write them lie beside the projector's own, in the same database: so a batch, its
position and the tracker's rows are one transaction, over a driver as over Supabase's API. The
tables themselves are never made or altered here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from callboard_broker.errors import SchemaMissing, TargetRefused
from callboard_ledger.projection.schema import Migration, migrations
from callboard_ledger.projection.target import Target, lacks_schema

__all__ = ["CerebralTarget", "Tables", "cerebral_migrations", "find_problems"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Names, with a schema (`tracker.tasks`) or in `public`. activities: None if there are none."""

    tasks: str = "cerebral_tasks"
    activities: str | None = "cerebral_activities"


class CerebralTarget:
    """Another target, with the tracker's tables in its database. board: its subjects' prefix."""

    def __init__(self, inner: Target, tables: Tables, *, board: str) -> None:
        self._inner = inner
        self._entry = _document(board=board, tasks=tables.tasks, activities=tables.activities)
        self._begun = False

    @property
    def name(self) -> str:
        """The inner one's."""
        return self._inner.name

    async def call(self, function: str, document: str) -> Any:
        """See `Target.call`. The first batch notes that this board is mirrored from here on."""
        if function != "callboard_project":
            return await self._inner.call(function, document)
        if not self._begun:
            await self._inner.call("callboard_cerebral_begin", self._entry)
            self._begun = True
        return await self._inner.call("callboard_cerebral_project", document)

    async def close(self) -> None:
        """Close the inner one."""
        await self._inner.close()


def cerebral_migrations() -> list[Migration]:
    """The functions that write the tracker's tables, and no table of the tracker."""
    return migrations(__package__ or "")


async def find_problems(target: Target, tables: Tables) -> list[str]:
    """What keeps the tables from being mirrored: each lacking table, column, key or right.

    Raises `SchemaMissing` if Callboard's functions are not there, and what `Target.call` raises.
    """
    question = _document(tasks=tables.tasks, activities=tables.activities)
    try:
        shape = await target.call("callboard_cerebral_check", question)
    except TargetRefused as error:
        if lacks_schema(error):
            wanted = [migration.version for migration in cerebral_migrations()]
            raise SchemaMissing(target.name, wanted, command="cerebral") from error
        raise
    return [str(problem) for problem in shape["problems"]]


def _document(**fields: object) -> str:
    return msgspec.json.encode(fields).decode()
