"""Bookmarks in the journal: how far a reader is that may be away for long, kept by the server.

A bookmark is a durable consumer that never reads: its metadata hold the position. The router
removes nothing behind the oldest one, whether its owner runs or not; who gives a reader up removes
its bookmark (`callboard projector forget`).
"""

from __future__ import annotations

import re

import msgspec

from callboard_broker.connection import ApiError, Connection
from callboard_broker.errors import BadInput
from callboard_broker.streams import Topology

__all__ = ["Bookmark", "read_bookmarks", "remove_bookmark", "set_bookmark"]

_PREFIX = "bookmark-"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_NO_CONSUMER = 10014


class Bookmark(msgspec.Struct, frozen=True, kw_only=True):
    """position: everything up to this sequence is safe with its owner. at: when it said so, Unix
    milliseconds of the server's clock. target: where its owner writes to, for a person. parked:
    rows that were refused there. problem: why nothing is written, if so; since: since when."""

    name: str
    position: int
    at: int = 0
    target: str = ""
    parked: int = 0
    problem: str = ""
    since: int = 0


async def set_bookmark(connection: Connection, topology: Topology, bookmark: Bookmark) -> None:
    """Create or move it. Raises `BadInput` for a name that is none, and what `api` raises."""
    if not _NAME.fullmatch(bookmark.name):
        raise BadInput("name", "must be 1 to 64 of a-z, 0-9, - and _, and begin with neither")
    fields = msgspec.to_builtins(bookmark)
    config = {
        "durable_name": _PREFIX + bookmark.name,
        "filter_subject": topology.subjects.epoch,  # one that costs nothing to be counted
        "deliver_policy": "new",
        "ack_policy": "none",
        "metadata": {f"callboard.{name}": str(value)[:500] for name, value in fields.items()},
    }
    await connection.api(
        f"CONSUMER.CREATE.{topology.journal}.{_PREFIX}{bookmark.name}.{topology.subjects.epoch}",
        {"stream_name": topology.journal, "config": config},
    )


async def remove_bookmark(connection: Connection, topology: Topology, name: str) -> bool:
    """Whether there was one of this name. Raises what `api` raises."""
    if not _NAME.fullmatch(name):
        return False
    try:
        await connection.api(f"CONSUMER.DELETE.{topology.journal}.{_PREFIX}{name}")
    except ApiError as error:
        if error.err_code == _NO_CONSUMER:
            return False
        raise
    return True


async def read_bookmarks(connection: Connection, topology: Topology) -> list[Bookmark]:
    """All of them, by name. Raises `BadInput` for an unreadable one, and what `api` raises."""
    found: list[Bookmark] = []
    offset = 0
    while True:
        page = await connection.api(f"CONSUMER.LIST.{topology.journal}", {"offset": offset})
        consumers = page.get("consumers") or []
        found += [_read(c["config"]) for c in consumers if c["name"].startswith(_PREFIX)]
        offset += len(consumers)
        if not consumers or offset >= int(page["total"]):
            return sorted(found, key=lambda bookmark: bookmark.name)


def _read(config: dict[str, object]) -> Bookmark:
    metadata = config.get("metadata")
    told = metadata if isinstance(metadata, dict) else {}
    fields = {
        name.removeprefix("callboard."): value
        for name, value in told.items()
        if name.startswith("callboard.")
    }
    try:
        return msgspec.convert(fields, Bookmark, strict=False)
    except msgspec.ValidationError as error:
        raise BadInput(
            "bookmark", f"{config.get('durable_name')} cannot be read: {error}"
        ) from error
