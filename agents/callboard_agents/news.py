"""What a host tells a poster without storing it: that a handler has begun, how far it is, and parts
of its result."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from callboard_broker.connection import Connection
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Dispatch, encode

__all__ = ["News"]


class _RunningNews(msgspec.Struct):
    task: str
    attempt: int
    host: str
    state: str = "running"


class _ProgressNews(msgspec.Struct):
    task: str
    attempt: int
    progress: Raw


class _OutputNews(msgspec.Struct):
    task: str
    attempt: int
    number: int
    output: Raw


class News:
    """The news of one host; sent from its loop."""

    def __init__(self, connection: Connection, subjects: Subjects, host: str) -> None:
        self._connection = connection
        self._subjects = subjects
        self._host = host

    def begun(self, tenant: str, dispatch: Dispatch) -> None:
        """The handler of this attempt runs."""
        news = _RunningNews(dispatch.task, dispatch.attempt, self._host)
        self._connection.send(self._subjects.news(tenant, dispatch.shard), encode(news))

    def progress(self, tenant: str, dispatch: Dispatch, value: bytes) -> None:
        """The handler has told how far it is. value: JSON."""
        news = _ProgressNews(dispatch.task, dispatch.attempt, Raw(value))
        self._connection.send(self._subjects.news(tenant, dispatch.shard), encode(news))

    def output(self, tenant: str, dispatch: Dispatch, number: int, value: bytes) -> None:
        """The handler gives a part of its result. number: of its chunks. value: JSON.

        Left out while the connection is congested: its number says that it is missing.
        """
        if not self._connection.congested:
            news = _OutputNews(dispatch.task, dispatch.attempt, number, Raw(value))
            self._connection.send(self._subjects.news(tenant, dispatch.shard), encode(news))
