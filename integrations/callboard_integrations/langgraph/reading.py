"""Turns rows into checkpoints: the values of the versions that one names, and its writes in order.

Of what a task wrote regularly the first call counts, of errors, interrupts and resumptions the
last; writes come ordered by the task's path, its id and their index, as LangGraph applies them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, CheckpointTuple, PendingWrite, writes_sort_key
from langgraph.checkpoint.serde.base import SerializerProtocol

from callboard_broker.record import Record
from callboard_integrations.langgraph.addresses import ThreadAddress, unword
from callboard_integrations.langgraph.packing import (
    Packing,
    StoredCheckpoint,
    StoredWrites,
    Typed,
)
from callboard_integrations.langgraph.table import Table

__all__ = ["Reading"]

_PAGE = 64  # checkpoints of a listing that are read at once

_decode_checkpoint = msgspec.msgpack.Decoder(StoredCheckpoint).decode
_decode_writes = msgspec.msgpack.Decoder(StoredWrites).decode
_decode_value = msgspec.msgpack.Decoder(Typed).decode


class Reading:
    """Reads for one saver, with its serializer."""

    def __init__(
        self, table: Table, packing: Packing, serde: SerializerProtocol, prefix: str
    ) -> None:
        self.table = table
        self.prefix = prefix
        self._packing = packing
        self._loads = serde.loads_typed

    def address(self, row: Record) -> ThreadAddress:
        """The thread to which a row belongs."""
        return ThreadAddress(".".join(row.subject.split(".", 3)[:3]), self.table.stream)

    async def stored(self, row: Record) -> StoredCheckpoint:
        """The checkpoint's row, its parts not decoded yet."""
        return _decode_checkpoint(await self._packing.unpack(row.data, self.address(row)))

    async def named(self, row: Record) -> Mapping[str, Any]:
        """The checkpoint itself, without values."""
        named: Mapping[str, Any] = self._loads((await self.stored(row)).checkpoint)
        return named

    async def metadata(self, row: Record) -> Mapping[str, Any]:
        """The checkpoint's metadata."""
        metadata: Mapping[str, Any] = self._loads((await self.stored(row)).metadata)
        return metadata

    async def has_metadata(self, row: Record, wanted: Mapping[str, Any]) -> bool:
        """Whether the checkpoint's metadata has these values."""
        metadata = await self.metadata(row)
        return all(metadata.get(key) == value for key, value in wanted.items())

    async def newest_first(self, checkpoints: str, *, before: str | None) -> AsyncIterator[Record]:
        """The rows of a filter, by the checkpoints' ids. before: only smaller ids."""
        ids = [
            (unword(subject.rpartition(".")[2]), subject)
            for subject in await self.table.keys(checkpoints)
        ]
        subjects = [
            subject for name, subject in sorted(ids, reverse=True) if not before or name < before
        ]
        for start in range(0, len(subjects), _PAGE):
            some = subjects[start : start + _PAGE]
            rows = await self.table.rows(some)
            for subject in some:
                if subject in rows:  # else it was deleted meanwhile
                    yield rows[subject]

    async def whole(self, row: Record) -> CheckpointTuple:
        """The checkpoint of a row, with its values and its writes."""
        address = self.address(row)
        stored = await self.stored(row)
        checkpoint: Checkpoint = self._loads(stored.checkpoint)
        ns, name = row.subject.split(".")[-2:]
        values, writes = await asyncio.gather(
            self._values(address, ns, checkpoint["channel_versions"]),
            self._writes(address, ns, name),
        )
        checkpoint["channel_values"] = values
        thread = unword(address.root.rpartition(".")[2])

        def config(checkpoint_id: str) -> RunnableConfig:
            return {
                "configurable": {
                    "thread_id": thread,
                    "checkpoint_ns": unword(ns),
                    "checkpoint_id": checkpoint_id,
                }
            }

        return CheckpointTuple(
            config(unword(name)),
            checkpoint,
            self._loads(stored.metadata),
            config(stored.parent) if stored.parent else None,
            writes,
        )

    async def _values(
        self, address: ThreadAddress, ns: str, versions: Mapping[str, Any]
    ) -> dict[str, Any]:
        subjects = {
            channel: address.value(ns, channel, version) for channel, version in versions.items()
        }
        rows = await self.table.rows(list(subjects.values()))
        values: dict[str, Any] = {}
        for channel, subject in subjects.items():
            if subject not in rows:
                continue
            kind, data = _decode_value(await self._packing.unpack(rows[subject].data, address))
            if kind != "empty":
                values[channel] = self._loads((kind, data))
        return values

    async def _writes(self, address: ThreadAddress, ns: str, name: str) -> list[PendingWrite]:
        places: dict[tuple[str, int], tuple[str, str, Typed]] = {}
        for row in await self.table.matching(f"{address.writes(ns, name)}.>"):
            call = _decode_writes(await self._packing.unpack(row.data, address))
            for index, channel, kind, data in call.writes:
                place = (call.task, index)
                if index < 0 or place not in places:
                    places[place] = (call.path, channel, (kind, data))
        ordered = sorted(places.items(), key=lambda entry: writes_sort_key(entry[1][0], *entry[0]))
        return [(task, channel, self._loads(value)) for (task, _), (_, channel, value) in ordered]
