"""What is not in the dispatch itself (payloads, checkpoints), and what is too long for an event."""

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
from callboard_broker.wire import (
    BlobRef,
    Checkpoint,
    Dispatch,
    decode_command,
    decode_event,
    decode_post,
)

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
            return await self.blob(dispatch.blob)
        if dispatch.post is None:
            return _NULL
        seq = dispatch.post
        record = await _patiently(lambda: get_message(self._connection, self._journal, seq))
        if self._subjects.parse(record.subject).kind == "flow":
            return _payload_of_command(record)
        post = decode_post(record.data)
        return post.payload if post.blob is None else await self.blob(post.blob)

    async def restored(self, dispatch: Dispatch) -> bytes | Raw | None:
        """Return the checkpoint that the attempt begins with. Raises as `read` does."""
        if dispatch.restored is not UNSET:
            return dispatch.restored
        seq = dispatch.restored_at
        if seq is None:
            return None
        record = await _patiently(lambda: get_message(self._connection, self._journal, seq))
        event = decode_event("checkpoint", record.data)
        if not isinstance(event, Checkpoint) or event.task != dispatch.task:
            raise LookupError(f"journal message {seq} is no checkpoint of task {dispatch.task}")
        if event.blob is not None:
            return await self.blob(event.blob)
        return _NULL if event.value is UNSET else event.value

    async def write(self, data: bytes) -> BlobRef:
        """Store what is too long for an event; return what names it."""
        return await _patiently(lambda: self._blobs.put(data))

    async def blob(self, ref: BlobRef) -> bytes:
        """Return what a reference names. Raises `LookupError` if it is gone, `BadInput`."""
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
