"""The database of a projector: from an option or the settings, its key from where none can look.

A password or a key on a command line is there for every user of the machine to read, so an address
that holds one is refused there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from callboard_broker.errors import BadInput
from callboard_config import Settings, SettingsError, load_settings

if TYPE_CHECKING:
    from callboard_ledger.projection import Target

__all__ = ["KEY_VARIABLE", "address_of", "open_target"]

KEY_VARIABLE = "CALLBOARD_SUPABASE_KEY"
_KEY_BYTES = 8192


def address_of(given: str | None, settings: Settings, option: str = "--to") -> str:
    """`given` by an option, else what the settings say. Raises `BadInput`, `SettingsError`."""
    if given is None:
        if settings.projection.to is None:
            raise BadInput(
                option.lstrip("-"),
                f"no database is named: {option} postgres://user@host/database, {option} supabase, "
                "or projection.to in the settings (CALLBOARD_PROJECTION__TO)",
            )
        return settings.projection.to
    if _holds_password(given):
        raise BadInput(
            option.lstrip("-"),
            "a password on a command line is there for everybody to read: leave it out and set "
            "PGPASSWORD, use ~/.pgpass, or put the address into CALLBOARD_PROJECTION__TO",
        )
    checked = load_settings(overrides={"projection.to": given}).projection.to
    if checked is None:
        raise BadInput(option.lstrip("-"), "names no database")
    return checked


def open_target(address: str, settings: Settings) -> Target:
    """The database at `address`; nothing is connected yet. Raises `BadInput`, `OSError`."""
    if address != "supabase":
        from callboard_ledger.projection.postgres import PostgresTarget  # noqa: PLC0415  an extra

        return PostgresTarget(address)
    from callboard_integrations.supabase import SupabaseTarget  # noqa: PLC0415  an extra

    url = settings.projection.supabase_url
    if url is None:
        raise BadInput("supabase_url", "is not set; set CALLBOARD_SUPABASE_URL=https://...")
    return SupabaseTarget(url, _key(settings.projection.supabase_key_file))


def _key(file: Path | None) -> str:
    key = os.environ.get(KEY_VARIABLE, "")
    if key:
        return key
    if file is None:
        raise BadInput(
            "supabase_key",
            f"is not set; set {KEY_VARIABLE}, or projection.supabase_key_file to a file with it",
        )
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(
            "projection.supabase_key_file",
            f"{file} can be read by others; chmod 600 it",
            source="settings",
        )
    with file.open(encoding="utf-8") as opened:
        return opened.read(_KEY_BYTES).strip()


def _holds_password(address: str) -> bool:
    try:
        return bool(urlsplit(address).password)
    except ValueError:
        return False
