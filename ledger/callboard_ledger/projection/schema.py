"""The migrations: SQL files that psql, `supabase db push` and `callboard projector migrate` apply.

Each can be applied again, and notes its version in the database itself, so that it does not matter
by which way it came there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from callboard_broker.errors import SchemaMissing, TargetRefused
from callboard_ledger.projection.target import Target, lacks_schema

__all__ = ["Migration", "check_schema", "copy_migrations", "migrations"]


@dataclass(frozen=True, slots=True)
class Migration:
    """name: of its file, as Supabase names them; it begins with the version."""

    name: str
    sql: str

    @property
    def version(self) -> str:
        return self.name.partition("_")[0]


def migrations(package: str = "callboard_ledger.projection") -> list[Migration]:
    """All of a package, in order; what else is written beside the projector's has its own."""
    folder = resources.files(package).joinpath("migrations")
    files = sorted(
        (file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda f: f.name
    )
    return [Migration(file.name, file.read_text(encoding="utf-8")) for file in files]


def copy_migrations(directory: Path, more: Sequence[Migration] = ()) -> list[Path]:
    """Write them into a directory, such as `supabase/migrations`. Raises `OSError`."""
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for migration in [*migrations(), *more]:
        path = directory / migration.name
        path.write_text(migration.sql, encoding="utf-8")
        written.append(path)
    return written


async def check_schema(target: Target) -> None:
    """Raises `SchemaMissing` if the database lacks a migration, and what `Target.call` raises."""
    wanted = [migration.version for migration in migrations()]
    try:
        there = await target.call("callboard_versions", "{}")
    except TargetRefused as error:
        if lacks_schema(error):
            raise SchemaMissing(target.name, []) from error
        raise
    missing = sorted(set(wanted) - set(there))
    if missing:
        raise SchemaMissing(target.name, missing)
