"""Large payloads, kept by the SHA-256 of their content, in parts of 256 KiB.

A name says the digest and the size of the parts, so that a reference is enough to read: one direct
get per part, pipelined, without a consumer. Storing the same content again replaces each part by
an equal one. What is read is bounded before, and checked after: a reference may come from anyone.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Coroutine, Iterable
from typing import Protocol

from callboard_broker.connection import Connection
from callboard_broker.direct import get_last
from callboard_broker.errors import BadInput, StreamMissing, TooLarge
from callboard_broker.publisher import Publisher
from callboard_broker.wire import BlobRef

__all__ = ["BlobPlace", "Blobs"]

_PART_BYTES = 256 * 1024
_LEAST_PART_BYTES = 16 * 1024
_AT_ONCE = 16  # parts on their way: 4 MiB
_INLINE_HASH_BYTES = 256 * 1024  # 0.2 ms; more is hashed in a thread
_LIMIT_BYTES = 64 * 1024 * 1024
_NAME = re.compile(r"([0-9a-f]{64})-([1-9][0-9]{0,8})")


class BlobPlace(Protocol):
    """Where blobs lie; a board's are where its `Topology` says."""

    @property
    def blobs(self) -> str:
        """The stream."""
        ...

    def blob(self, name: str, part: int) -> str:
        """The subject of one part of a blob."""
        ...


class Blobs:
    """One blob store; every board has one."""

    def __init__(self, connection: Connection, topology: BlobPlace) -> None:
        self._connection = connection
        self._topology = topology

    async def put(self, data: bytes) -> BlobRef:
        """Store `data` and return its reference, when every part is acknowledged.

        Raises `StreamMissing`, `WriteRefused`, `WriteUnresolved`, `BoardUnreachable`; it may be
        repeated after any of them.
        """
        digest = await _digest(data)
        name = f"{digest}-{_PART_BYTES}"
        window = asyncio.Semaphore(_AT_ONCE)
        async with Publisher(self._connection) as publisher:

            async def store(part: int) -> None:
                async with window:
                    start = part * _PART_BYTES
                    subject = self._topology.blob(name, part)
                    await publisher.put(subject, data[start : start + _PART_BYTES])

            await _all(store(part) for part in range(_parts(len(data), _PART_BYTES)))
        return BlobRef(name=name, size=len(data), digest=digest)

    async def get(self, ref: BlobRef, limit: int = _LIMIT_BYTES) -> bytes:
        """Return the content of `ref`; limit: bytes that it may have.

        Raises `TooLarge` before anything is read, `BadInput` for a reference that cannot be or
        whose content has another digest, `LookupError` if the blob is not there, `StreamMissing`.
        """
        part_bytes = _check_ref(ref, limit)
        window = asyncio.Semaphore(_AT_ONCE)
        found: dict[int, bytes] = {}

        async def fetch(part: int) -> None:
            async with window:
                subject = self._topology.blob(ref.name, part)
                try:
                    record = await get_last(self._connection, self._topology.blobs, subject)
                except StreamMissing:
                    raise
                except LookupError:
                    raise LookupError(f"blob {ref.name} is not stored (any more)") from None
                # Checked at once: parts that are too long must not fill the memory first.
                if len(record.data) != min(part_bytes, ref.size - part * part_bytes):
                    raise _not_as_said(ref)
                found[part] = record.data

        count = _parts(ref.size, part_bytes)
        await _all(fetch(part) for part in range(count))
        data = b"".join(found[part] for part in range(count))
        if await _digest(data) != ref.digest:
            raise _not_as_said(ref)
        return data


def _check_ref(ref: BlobRef, limit: int) -> int:
    """Return the size of the parts."""
    named = _NAME.fullmatch(ref.name)
    if named is None or named[1] != ref.digest:
        raise BadInput("blob.name", f"{ref.name[:80]!r} does not name a blob of this digest")
    if ref.size > limit:
        raise TooLarge("blob", f"{ref.size:,} bytes; at most {limit:,} are accepted")
    part_bytes = int(named[2])
    if part_bytes < _LEAST_PART_BYTES:
        raise BadInput("blob.name", f"parts of {part_bytes} bytes are too small")
    return part_bytes


def _not_as_said(ref: BlobRef) -> BadInput:
    return BadInput("blob", f"the content of {ref.name} is not what the reference says")


def _parts(size: int, part_bytes: int) -> int:
    return -(-size // part_bytes)


async def _all(jobs: Iterable[Coroutine[None, None, None]]) -> None:
    """Run all; the first error ends the others and is raised as it is, not in a group."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _digest(data: bytes) -> str:
    if len(data) <= _INLINE_HASH_BYTES:
        return hashlib.sha256(data).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
