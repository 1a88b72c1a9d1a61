"""Large values of a handler: kept in the board's blob store, named by a reference in JSON.

A reference may come from anyone: it is checked, and what it names is bounded, before anything is
read; what is read has its digest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from callboard_broker.bounds import check_size
from callboard_broker.errors import BadInput, TooLarge
from callboard_broker.wire import BlobRef, encode

__all__ = ["Asker", "ContextBlobs"]

_MOST_BYTES = 64 * 1024 * 1024

Asker = Callable[[str, bytes], Awaitable[bytes]]
"""Has the host do something, by its kind; returns the answer."""

_ref = msgspec.json.Decoder(BlobRef).decode


class ContextBlobs:
    """`ctx.blob`. A plain function calls `ctx.wait(ctx.blob.get(ref))`."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Asker) -> None:
        self._ask = ask

    async def put(self, data: bytes) -> BlobRef:
        """Store up to 64 MiB and return the reference, which a payload or result may hold.

        It is stored by its content: the same once more takes no room, and whoever has the
        reference can read it. Raises `TooLarge`.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise BadInput("blob", f"a {type(data).__name__} is not bytes: encode it")
        content = bytes(data)
        check_size(content, _MOST_BYTES, "blob")
        return _ref(await self._ask("blob_put", content))

    async def get(self, ref: BlobRef | Mapping[str, Any], *, max_bytes: int = _MOST_BYTES) -> bytes:
        """Return the content. ref: as `put` returned it, or as it came in a payload or result.

        Raises `TooLarge` above `max_bytes`, `BadInput` for what is no reference, `LookupError` if
        there is no such blob.
        """
        found = _reference(ref)
        if found.size > max_bytes:
            raise TooLarge("blob", f"{found.size:,} bytes; at most {max_bytes:,} are accepted")
        return await self._ask("blob_get", encode(found))


def _reference(ref: object) -> BlobRef:
    """msgspec does not check a struct that was made by hand, so everything is converted."""
    try:
        return msgspec.convert(msgspec.to_builtins(ref), BlobRef)
    except (msgspec.ValidationError, TypeError) as error:
        raise BadInput("blob", f"not a reference: {error}") from error
