"""Fetches the upstream values that are too long for the state, a bounded number at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from callboard_broker.blobs import Blobs
from callboard_broker.connection import Connection
from callboard_broker.direct import get_message
from callboard_broker.errors import StreamMissing
from callboard_broker.record import Record
from callboard_broker.streams import Topology
from callboard_broker.wire import (
    BlobRef,
    Entered,
    Outcome,
    Settled,
    decode_command,
    decode_event,
    decode_flow_run,
    decode_post,
)
from callboard_router.values import Source

__all__ = ["Fetching"]

_AT_ONCE = 64
_PATIENCE_SECONDS = 5.0  # a replica that lags behind does not have yet what was stored
_PAUSE_SECONDS = 0.1


class Fetching:
    """The way to the values that sources name."""

    def __init__(self, connection: Connection, topology: Topology, blobs: Blobs) -> None:
        self._connection = connection
        self._topology = topology
        self._blobs = blobs
        self._window = asyncio.Semaphore(_AT_ONCE)

    async def value(self, source: Source) -> Any:
        """The value, decoded.

        Raises `OSError`, `StreamMissing` and `ApiError` where another try may help; `LookupError`,
        `ValueError`, `RecursionError` and `msgspec.MsgspecError` where the value is not to be had.
        """
        async with self._window:
            return await self._value(source)

    async def _value(self, source: Source) -> Any:
        blob = source.blob
        if blob is None:
            found = self._stands_in(await self._record(source.seq))
            if not isinstance(found, BlobRef):
                return msgspec.json.decode(found)
            blob = found
        return msgspec.json.decode(await self._blobs.get(blob))

    async def _record(self, seq: int) -> Record:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_SECONDS
        while True:
            try:
                return await get_message(self._connection, self._topology.journal, seq)
            except StreamMissing:
                raise
            except LookupError:
                if loop.time() > deadline:
                    raise
            await asyncio.sleep(_PAUSE_SECONDS)

    def _stands_in(self, record: Record) -> msgspec.Raw | BlobRef:
        """What the message says: a result, inputs, or what a person or a signal gave."""
        address = self._topology.subjects.parse(record.subject)
        found: Any = msgspec.UNSET
        blob: BlobRef | None = None
        if address.kind == "post":
            post = decode_post(record.data)
            found, blob = post.payload, post.blob
        elif address.kind == "flow" and address.rest == "run":
            found = decode_flow_run(record.data).inputs
        elif address.kind == "flow":
            found = decode_command(record.data).payload
        else:
            event = decode_event(address.kind, record.data)
            if isinstance(event, Outcome | Settled):
                found, blob = event.result, event.blob
            elif isinstance(event, Entered):
                found, blob = event.inputs, event.blob
        if blob is not None:
            return blob
        if not isinstance(found, msgspec.Raw):
            raise LookupError(f"no value in the message at {record.seq} ({record.subject})")  # noqa: TRY004  not a type: a value that is absent
        return found
