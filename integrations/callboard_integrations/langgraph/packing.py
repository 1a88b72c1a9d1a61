"""How values stand in messages: whole, or as a reference where they are too large for one.

The first byte says which. Large ones are cut into parts below the same thread, by the SHA-256 of
their content, so that they are deleted with the thread and stored once.
"""

from __future__ import annotations

import asyncio

import msgspec

from callboard_broker.blobs import BlobPlace, Blobs
from callboard_broker.bounds import check_size
from callboard_broker.connection import Connection
from callboard_broker.errors import BadInput
from callboard_broker.wire import BlobRef

__all__ = ["Packing", "StoredCheckpoint", "StoredWrites", "Typed", "read_reference"]

Typed = tuple[str, bytes]
"""What a serializer gives: the kind, and the bytes."""

_WHOLE, _REFERENCE = b"\x00", b"\x01"
_INLINE_BYTES = 256 * 1024
_HEADROOM_BYTES = 4096  # headers and subject count towards the server's limit
_LIMIT_BYTES = 64 * 1024 * 1024
_TRIES, _PAUSE_SECONDS = 40, 0.05  # a replica is behind its leader for less


class StoredCheckpoint(msgspec.Struct, frozen=True, array_like=True):
    """A checkpoint without its channels' values. parent: the id of the one before."""

    checkpoint: Typed
    metadata: Typed
    parent: str | None


class StoredWrites(msgspec.Struct, frozen=True, array_like=True):
    """What one call of `put_writes` was given: (index, channel, kind, bytes) each."""

    task: str
    path: str
    writes: list[tuple[int, str, str, bytes]]


_decode_ref = msgspec.msgpack.Decoder(BlobRef).decode


def read_reference(data: bytes) -> BlobRef | None:
    """The reference that a message is, or None if it holds its value. Raises `BadInput`."""
    if data[:1] == _WHOLE:
        return None
    if data[:1] != _REFERENCE:
        raise BadInput("row", f"{data[:20]!r} was not written by this program")
    try:
        return _decode_ref(data[1:])
    except msgspec.MsgspecError as error:
        raise BadInput("row", f"holds no reference: {error}") from error


class Packing:
    """Packs and unpacks for one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        limit = connection.link.max_payload - _HEADROOM_BYTES
        self._inline = min(_INLINE_BYTES, limit)

    async def pack(self, data: bytes, place: BlobPlace) -> bytes:
        """The message for `data`; large data is stored first. Raises `TooLarge` over 64 MiB."""
        if len(data) <= self._inline:
            return _WHOLE + data
        check_size(data, _LIMIT_BYTES, "value")
        ref = await Blobs(self._connection, place).put(data)
        return _REFERENCE + msgspec.msgpack.encode(ref)

    async def unpack(self, data: bytes, place: BlobPlace) -> bytes:
        """What was packed. Raises `BadInput`, `LookupError` if a part is gone."""
        ref = read_reference(data)
        if ref is None:
            return data[1:]
        blobs = Blobs(self._connection, place)
        for _ in range(_TRIES - 1):
            try:
                return await blobs.get(ref)
            except LookupError:
                await asyncio.sleep(_PAUSE_SECONDS)  # nothing tells when the replica has caught up
        return await blobs.get(ref)
