"""Finds the board and connects to it: a URL, else CALLBOARD_NATS_URL or `./config/`, else the
running `callboard up` of this project, else 127.0.0.1:4222.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from callboard.board_note import BoardNote, find_note
from callboard_broker import client
from callboard_broker.endpoint import Endpoint
from callboard_broker.submission import SubmitMiddleware
from callboard_config import Settings, load_settings

__all__ = ["Place", "connect", "locate"]

_DEFAULT_URL = "nats://127.0.0.1:4222"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a board is. origin: what said so. note: of the `callboard up` that runs it, if any."""

    url: str
    prefix: str
    origin: str
    settings: Settings
    note: BoardNote | None = None

    @property
    def metrics(self) -> Endpoint | None:
        """Where the settings want metrics to be shown."""
        wanted = self.settings.metrics
        return None if wanted.port is None else Endpoint(wanted.port, wanted.address)


def locate(
    url: str | None = None,
    prefix: str | None = None,
    *,
    overrides: Mapping[str, object] | None = None,
) -> Place:
    """Say where the board is. overrides: as in `load_settings`. Raises `SettingsError`."""
    given = {**(overrides or {}), "nats.url": url, "board.prefix": prefix}
    settings = load_settings(overrides=given)
    note = None if settings.nats.url is not None else find_note()
    found = settings.board.prefix
    if settings.nats.url is not None:
        where, origin = settings.nats.url, settings.origin("nats.url")
    elif note is not None:
        where, origin = note.url, f"the running `callboard up` (process {note.pid})"
        if settings.origin("board.prefix").startswith("default"):
            found = note.prefix
    else:
        where, origin = _DEFAULT_URL, "default"
    return Place(url=where, prefix=found, origin=origin, settings=settings, note=note)


@asynccontextmanager
async def connect(
    url: str | None = None,
    *,
    tenant: str = "default",
    prefix: str | None = None,
    name: str = "callboard client",
    tries_seconds: float = 5.0,
    middleware: Sequence[SubmitMiddleware] = (),
) -> AsyncIterator[client.Board]:
    """Connect to a board; it is closed at the end of the `async with`.

    tenant: of posts that name none. name: shown by the server's monitoring. tries_seconds: how
    long to try before `BoardUnreachable`. middleware: around each `submit`, the first outermost.
    Raises also `SettingsError`, `BadInput`.
    """
    place = locate(url, prefix)
    options = client.BoardOptions(
        tenant=tenant,
        prefix=place.prefix,
        name=name,
        post_bytes=place.settings.payload.post_bytes,
        middleware=tuple(middleware),
    )
    async with client.connect(place.url, options, tries_seconds=tries_seconds) as board:
        yield board
