"""`JetStreamStore`: LangGraph's long-term memory, an item the last message of its subject.

    <prefix>.items.<word>....<word>.<key>     the namespace's words, then the key, all base64url

A time to live is the server's: it removes the message, and no sweeper of ours runs. There is no
index of meanings: a search by text is refused instead of being answered with anything.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
)

from callboard_broker.batch import GUARD_FAILED
from callboard_broker.bounds import check_size
from callboard_broker.connection import open_link
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput, WriteRefused
from callboard_broker.headers import raw_headers
from callboard_broker.publisher import Publisher
from callboard_broker.record import Record
from callboard_broker.streams import ensure_stream
from callboard_integrations.langgraph.addresses import stream_name, unword, word
from callboard_integrations.langgraph.matching import holds, matches
from callboard_integrations.langgraph.opening import LoopBound, Opening
from callboard_integrations.langgraph.table import Table

__all__ = ["JetStreamStore"]

_PATIENCE_SECONDS = 30.0
_MOST_MINUTES = 50_000_000  # 95 years
_HEADROOM_BYTES = 4096
_NO_INDEX = (
    "this store has no index of meanings; leave it out and filter by fields, or keep what is to be "
    "found by meaning in a store that has one, such as LangGraph's PostgresStore"
)


class _Row(msgspec.Struct, frozen=True, array_like=True):
    """An item. at: Unix microseconds. ttl: seconds that it lives after a write or a refresh."""

    value: msgspec.Raw
    at: int
    ttl: int | None = None


_decode = msgspec.json.Decoder(_Row).decode
_encode = msgspec.json.Encoder().encode


class JetStreamStore(BaseStore, LoopBound):
    """A `BaseStore` on JetStream. Made by `from_url`, which also closes it.

    Values are what JSON can hold. A search gives what was written last first. Use the methods with
    an `a` on the loop on which it was opened, the others from any other thread. Errors are those of
    the board, and `BadInput` for a search by text or an index, `TooLarge` for what is no message.
    """

    supports_ttl = True

    def __init__(self, table: Table, *, prefix: str, ttl: TTLConfig | None) -> None:
        LoopBound.__init__(self)
        self.ttl_config = ttl
        self._table = table
        self._root = f"{prefix}.items"

    @classmethod
    def from_url(
        cls, url: str, *, prefix: str = "cb", ttl: TTLConfig | None = None, replicas: int = 1
    ) -> Opening[JetStreamStore]:
        """Open a store with `async with`; or with `with`, for a program without a loop.

        prefix: the board's. ttl: `default_ttl` (minutes) and `refresh_on_read`, as LangGraph has
        them; nothing has to be swept. replicas: copies on a cluster, 1 to 5. Raises
        `BoardUnreachable`, `StreamDrift`, `BadInput`.
        """
        return Opening(lambda: _open(url, prefix, ttl, replicas))

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """As `abatch`."""
        return self.on_loop(self.abatch(ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do all operations; reads see what was stored before, and of two puts the last counts."""
        given = list(ops)
        puts = {(op.namespace, op.key): op for op in given if isinstance(op, PutOp)}
        for op in given:
            _check(op)
        results = await asyncio.gather(*[self._read(op) for op in given])
        await asyncio.gather(*[self._put(op) for op in puts.values()])
        return results

    # -- reading

    async def _read(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            row = await self._table.last(self._subject(op.namespace, op.key))
            if row is None:
                return None
            if op.refresh_ttl:
                await self._refresh(row)
            return Item(**self._fields(row))
        if isinstance(op, SearchOp):
            return await self._search(op)
        if isinstance(op, ListNamespacesOp):
            return await self._namespaces(op)
        return None

    async def _search(self, op: SearchOp) -> list[SearchItem]:
        below = ".".join([self._root, *map(word, op.namespace_prefix), ">"])
        rows = await self._table.matching(below)
        found = [
            (row, fields)
            for row, fields in ((row, self._fields(row)) for row in reversed(rows))
            if all(holds(fields["value"].get(key), each) for key, each in (op.filter or {}).items())
        ][op.offset : op.offset + op.limit]
        if op.refresh_ttl:
            await asyncio.gather(*[self._refresh(row) for row, _ in found])
        return [SearchItem(**fields) for _, fields in found]

    async def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        keys = await self._table.keys(f"{self._root}.>")
        found = {self._place(subject)[0] for subject in keys}
        wanted = {
            namespace[: op.max_depth]
            for namespace in found
            if all(matches(condition, namespace) for condition in op.match_conditions or ())
        }
        return sorted(wanted)[op.offset : op.offset + op.limit]

    # -- writing

    async def _put(self, op: PutOp) -> None:
        subject = self._subject(op.namespace, op.key)
        if op.value is None:
            await self._table.purge(subject)
            return
        value = msgspec.Raw(encode_payload(op.value, field="value"))
        ttl = None if op.ttl is None else _seconds(op.ttl)
        data = _encode(_Row(value, _now_us(), ttl))
        check_size(data, self._table.connection.link.max_payload - _HEADROOM_BYTES, "value")
        await self._table.write(subject, data, headers=_ttl_headers(ttl))

    async def _refresh(self, row: Record) -> None:
        """Let an item live on, unless it was written meanwhile."""
        ttl = _decode(row.data).ttl
        if ttl is None:
            return
        headers = _ttl_headers(ttl, {"Nats-Expected-Last-Subject-Sequence": str(row.seq)})
        try:
            await self._table.write(row.subject, row.data, headers=headers)
        except WriteRefused as refusal:
            if refusal.code != GUARD_FAILED:
                raise

    # -- inside

    def _subject(self, namespace: Sequence[str], key: str) -> str:
        return ".".join([self._root, *map(word, namespace), word(key)])

    def _place(self, subject: str) -> tuple[tuple[str, ...], str]:
        *namespace, key = map(unword, subject[len(self._root) + 1 :].split("."))
        return tuple(namespace), key

    def _fields(self, row: Record) -> dict[str, Any]:
        namespace, key = self._place(row.subject)
        stored = _decode(row.data)
        at = datetime.fromtimestamp(stored.at / 1e6, UTC)
        return {
            "value": msgspec.json.decode(stored.value),
            "key": key,
            "namespace": namespace,
            "created_at": at,
            "updated_at": at,
        }


def _check(op: Op) -> None:
    if isinstance(op, SearchOp) and op.query:
        raise BadInput("query", _NO_INDEX)
    if isinstance(op, PutOp) and op.index:
        raise BadInput("index", _NO_INDEX)


def _seconds(minutes: float) -> int:
    if not 0 < minutes <= _MOST_MINUTES:
        raise BadInput("ttl", f"{minutes!r} is not above 0 and at most {_MOST_MINUTES} minutes")
    return max(1, math.ceil(minutes * 60))  # the server's least is a second


def _now_us() -> int:
    return int(datetime.now(UTC).timestamp() * 1e6)


def _ttl_headers(ttl: int | None, further: Mapping[str, str] | None = None) -> bytes:
    headers = {**({} if ttl is None else {"Nats-TTL": f"{ttl}s"}), **(further or {})}
    return raw_headers(headers) if headers else b""


@asynccontextmanager
async def _open(
    url: str, prefix: str, ttl: TTLConfig | None, replicas: int
) -> AsyncIterator[JetStreamStore]:
    stream = stream_name("ITEMS", prefix)
    settings = {
        "name": stream,
        "subjects": [f"{prefix}.items.>"],
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "allow_atomic": True,
        "allow_msg_ttl": True,
    }
    async with open_link(url, name="callboard langgraph store") as connection:
        await ensure_stream(connection, settings)
        async with Publisher(connection) as publisher:
            table = Table(connection, publisher, stream, patience=_PATIENCE_SECONDS)
            yield JetStreamStore(table, prefix=prefix, ttl=ttl)
