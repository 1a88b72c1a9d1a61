"""Reaches the board for a command that a person waits for: it gives up soon."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from callboard.connecting import Place, connect
from callboard_broker.client import Board
from callboard_broker.connection import Connection, open_link

__all__ = ["link_to", "reach"]

_TRIES_SECONDS = 1.5


def reach(
    nats: str | None, prefix: str | None, *, name: str, tenant: str = "default"
) -> AbstractAsyncContextManager[Board]:
    """A board, as the options of a command name it."""
    return connect(nats, prefix=prefix, tenant=tenant, name=name, tries_seconds=_TRIES_SECONDS)


def link_to(place: Place, *, name: str) -> AbstractAsyncContextManager[Connection]:
    """A bare connection to the server of `place`."""
    return open_link(place.url, name=name, tries_seconds=_TRIES_SECONDS)
