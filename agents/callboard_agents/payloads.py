"""Payloads that are not in the dispatch itself, and results too long for an outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import UNSET, Raw

from callboard_broker.blobs import Blobs
from callboard_broker.connection import Connection
from callboard_broker.direct import get_message
from callboard_broker.errors import StreamMissing
from callboard_broker.record import Record
from callboard_broker.streams import Topology
from callboard_broker.wire import BlobRef, Dispatch, decode_command, decode_post

__all__ = ["Payloads"]

_AGAIN_SECONDS = 0.2
_LOOKUPS = 10  # a replica that lags behind does not have the newest messages yet
_NULL = Raw(b"null")
_LOG = logging.getLogger("callboard.host")

T = TypeVar("T")


class Payloads:
    """Reads and writes through one connection; waits while the board cannot be reached.

    The waiting is bounded by the attempt's own timeout, and by its lease.
    """

    def __init__(self, connection: Connection, topology: Topology) -> None:
        self._connection = connection
        self._subjects = topology.subjects
        self._journal = topology.journal
        self._blobs = Blobs(connection, topology)

    async def read(self, dispatch: Dispatch) -> bytes | Raw:
        """Return the payload of `dispatch`. Raises `LookupError` if it is gone, `BadInput`."""
        if dispatch.payload is not UNSET:
            return dispatch.payload
        if dispatch.blob is not None:
            return await self._blob(dispatch.blob)
        if dispatch.post is None:
            return _NULL
        seq = dispatch.post
        record = await _patiently(lambda: get_message(self._connection, self._journal, seq))
        if self._subjects.parse(record.subject).kind == "flow":
            return _payload_of_command(record)
        post = decode_post(record.data)
        return post.payload if post.blob is None else await self._blob(post.blob)

    async def write(self, data: bytes) -> BlobRef:
        """Store a result; return what names it. Raises `BadInput` if it is too large."""
        return await _patiently(lambda: self._blobs.put(data))

    async def _blob(self, ref: BlobRef) -> bytes:
        return await _patiently(lambda: self._blobs.get(ref))


def _payload_of_command(record: Record) -> Raw:
    """What a redrive says instead of the post."""
    payload = decode_command(record.data).payload
    if payload is UNSET:
        raise LookupError(f"journal message {record.seq} has no payload")
    return payload


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    lookups = 0
    while True:
        try:
            return await ask()
        except StreamMissing as error:
            _LOG.warning("a payload must wait: %s", error)  # while a leader is elected
        except LookupError:
            lookups += 1
            if lookups >= _LOOKUPS:
                raise
        except OSError as error:
            _LOG.warning("a payload must wait: %s", error)
        await asyncio.sleep(_AGAIN_SECONDS)
