"""The settings of a projector: into which database the journal is written, and how."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, Field

from callboard_config.section import Name, Section, StorePath

__all__ = ["ProjectionSettings"]


def _check_target(value: str | None) -> str | None:
    """Raises ValueError; its message never repeats the address, which may hold a password."""
    if value is None or value == "supabase":
        return value
    try:
        parts = urlsplit(value)
        _, host, query = parts.port, parts.hostname, dict(parse_qsl(parts.query))
    except ValueError:
        raise ValueError("not an address; write postgres://host:5432/database") from None
    if parts.scheme not in ("postgres", "postgresql") or re.search(r"[\s\x00]", value):
        raise ValueError("write postgres://host:5432/database, or supabase")
    if not host and "host" not in query:
        raise ValueError("names no host; write postgres://host:5432/database")
    if "password" in query or "sslpassword" in query:
        raise ValueError("a password stands before the @, in PGPASSWORD or in ~/.pgpass")
    return value


def _check_project(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]+/?", value):
        raise ValueError("not the address of a project; write https://....supabase.co")
    return value


class ProjectionSettings(Section):
    """The database into which a projector writes."""

    to: Annotated[str | None, Field(repr=False), AfterValidator(_check_target)]
    """`postgres://user@host:5432/database`, or `supabase`; null: none. Hidden in repr, because it
    may hold a password."""

    supabase_url: Annotated[str | None, AfterValidator(_check_project)]
    """`https://....supabase.co` (CALLBOARD_SUPABASE_URL). The key comes from
    CALLBOARD_SUPABASE_KEY or from the file below."""

    supabase_key_file: StorePath
    """A file that holds the key of the service role and nothing else; null: none."""

    name: Name
    """Of its bookmark in the journal: two projectors of one board have two."""

    batch: Annotated[int, Field(ge=1, le=5000)]
    """Events written in one transaction at most."""

    flush_seconds: Annotated[float, Field(gt=0, le=60)]
    """Seconds that an event may wait for others to be written with."""

    event_bytes: Annotated[int, Field(ge=0, le=1_000_000)]
    """Bytes of an event's body above which only its hash is kept in the database."""
