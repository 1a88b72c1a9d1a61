"""Writes down in AUDIT which key each host has announced in its beats.

A host may publish only its own beats, so a key that comes with them is that host's. Whoever signs
an outcome in its name with another key is found by whoever verifies.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time

from callboard_broker.connection import ApiError, Connection, NoResponder
from callboard_broker.direct import get_next
from callboard_broker.errors import BadInput, CallboardError
from callboard_broker.publisher import Publisher
from callboard_broker.signing import SigningKey
from callboard_broker.streams import Topology
from callboard_broker.wire import decode_beat
from callboard_ledger.notes import sign_note
from callboard_ledger.records import HostKey, read_record

__all__ = ["HostKeys"]

_log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0
_MOST_WAITING = 10_000


class HostKeys:
    """The keys that hosts have said are theirs. `run` for as long as the ledger runs."""

    def __init__(
        self, connection: Connection, publisher: Publisher, topology: Topology, key: SigningKey
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._topology = topology
        self._key = key
        self._known: dict[str, bytes | None] = {}
        self._waiting: asyncio.Queue[HostKey] = asyncio.Queue(_MOST_WAITING)

    async def run(self) -> None:
        """Learn what AUDIT knows, then hear the beats and add what is new, until cancelled."""
        await self._learn()
        sink = await self._connection.sink(self._topology.subjects.beats, self._heard)
        try:
            while True:
                await self._write(await self._waiting.get())
        finally:
            await sink.close()

    def _heard(self, subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        pool, host = subject.split(".")[2:4]
        name = f"{pool}/{host}"
        if b'"key":' not in data and name not in self._known:
            return
        try:
            beat = decode_beat(data)
            key = base64.b64decode(beat.key, validate=True) if beat.key else None
        except (BadInput, ValueError):
            return  # the router complains of it
        if beat.gone or self._known.get(name) == key or (key is not None and len(key) != 32):
            return
        found = HostKey(pool=pool, host=host, key=key, at=int(time.time() * 1000))
        if not self._waiting.full():
            self._known[name] = key
            self._waiting.put_nowait(found)

    async def _write(self, found: HostKey) -> None:
        note = sign_note(found.text(), self._key).encode()
        subject = self._topology.subjects.audit_records
        while True:
            try:
                await self._publisher.put(subject, note)
            except (CallboardError, ApiError, NoResponder, TimeoutError) as error:
                _log.warning("the key of host %s is not written down yet: %s", found.name, error)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return

    async def _learn(self) -> None:
        seq = 1
        while True:
            try:
                record = await get_next(
                    self._connection,
                    self._topology.audit,
                    self._topology.subjects.audit_records,
                    seq,
                )
            except (CallboardError, NoResponder, TimeoutError) as error:
                _log.warning("the keys of hosts cannot be read now: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            except LookupError:
                return
            seq = record.seq + 1
            try:
                found = read_record(record.data.decode(), [self._key.public])
            except (BadInput, UnicodeDecodeError):
                continue  # not this log's; verifying names it
            if isinstance(found, HostKey):
                self._known[found.name] = found.key
