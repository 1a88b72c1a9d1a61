"""`JetStreamSaver`: a LangGraph checkpointer whose rows are the subjects of one JetStream stream.

A checkpoint is stored after the values that it names, and one call of `put_writes` is one message,
so that no crash leaves half of either. Everything is stored when a method returns; writes of a
thread whose lease is held here are refused by the server once somebody newer holds it. Values are
read by a serializer that builds only what is known to be harmless, or was allowed by name.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from callboard_broker.batch import is_clustered
from callboard_broker.connection import open_link
from callboard_broker.errors import BadInput
from callboard_broker.publisher import Publisher
from callboard_broker.streams import ensure_stream
from callboard_integrations.langgraph.addresses import (
    ThreadAddress,
    all_checkpoints,
    stream_name,
    word,
)
from callboard_integrations.langgraph.ended_threads import EndedThreads
from callboard_integrations.langgraph.leases import Lease, Leases
from callboard_integrations.langgraph.opening import Held, LoopBound, Opening
from callboard_integrations.langgraph.packing import Packing, StoredCheckpoint, StoredWrites
from callboard_integrations.langgraph.reading import Reading
from callboard_integrations.langgraph.sweeping import prune, remove_runs
from callboard_integrations.langgraph.table import Table

__all__ = ["JetStreamSaver"]

_PATIENCE_SECONDS = 30.0
_EMPTY = ("empty", b"")
_pack = msgspec.msgpack.Encoder().encode


class JetStreamSaver(BaseCheckpointSaver[str], LoopBound):
    """A checkpointer on JetStream. Made by `from_url`, which also closes it.

    Use the methods with an `a` on the loop on which it was opened, the others from any other
    thread. Errors are those of the board: `BoardUnreachable`, `WriteUnresolved`, `TooLarge` (a
    value of more than 64 MiB), `LeaseLost`.
    """

    def __init__(
        self, table: Table, *, prefix: str, leases: Leases, serde: SerializerProtocol
    ) -> None:
        BaseCheckpointSaver.__init__(self, serde=serde)
        LoopBound.__init__(self)
        self._table = table
        self._prefix = prefix
        self._leases = leases
        self._packing = Packing(table.connection)
        self._calls = itertools.count()
        self._name = secrets.token_hex(6)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "cb",
        allow: Collection[type | tuple[str, str]] = (),
        serde: SerializerProtocol | None = None,
        replicas: int = 1,
    ) -> Opening[JetStreamSaver]:
        """Open a saver with `async with`; or with `with`, for a program without a loop.

        prefix: the board's. allow: types of the graph's state, or (module, name), that may be built
        from a checkpoint beside the harmless ones. serde: another serializer altogether. replicas:
        copies on a cluster, 1 to 5. Raises `BoardUnreachable`, `StreamDrift`, `BadInput`.
        """
        if serde is not None and allow:
            raise BadInput("allow", "it says what our own serializer may build: leave out serde")
        strict = JsonPlusSerializer(allowed_msgpack_modules=None)
        chosen = serde or (strict.with_msgpack_allowlist(allow) if allow else strict)
        return Opening(lambda: _open(url, prefix, chosen, replicas))

    def lease(
        self, thread_id: str, *, seconds: float = 30.0, take_over: bool = False
    ) -> Held[Lease]:
        """Hold a thread for the length of an `async with`: nobody else writes to it meanwhile.

        In a program without a loop, for the length of a `with`.

        seconds: after so long without a sign of this process others may have it, 1 to 86,400.
        take_over: have it now; what its holder still writes is refused there with `LeaseLost`.
        Raises `LeaseHeld`.
        """
        address = self._address(thread_id)
        return Held(
            self, self._leases.hold(thread_id, address, seconds=seconds, take_over=take_over)
        )

    # -- writing

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, and the values of `new_versions` before it."""
        thread, ns = _place(config)
        address, in_ns = self._address(thread), word(ns)
        rest = dict(checkpoint)
        values: dict[str, Any] = rest.pop("channel_values")  # type: ignore[assignment]  # as typed
        dumps = self.serde.dumps_typed
        stored = [
            self._store(
                thread,
                address.value(in_ns, channel, version),
                _pack(dumps(values[channel]) if channel in values else _EMPTY),
                address,
            )
            for channel, version in new_versions.items()
        ]
        await _all(stored)
        row = StoredCheckpoint(
            dumps(rest),
            dumps(get_checkpoint_metadata(config, metadata)),
            get_checkpoint_id(config),
        )
        subject = address.checkpoint(in_ns, word(checkpoint["id"]))
        await self._store(thread, subject, _pack(row), address)
        return _config(thread, ns, checkpoint["id"])

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store what a task has written, all of it or nothing."""
        thread, ns = _place(config)
        address = self._address(thread)
        at = address.writes(word(ns), word(get_checkpoint_id(config)))
        dumps = self.serde.dumps_typed
        row = StoredWrites(
            task_id,
            task_path,
            [
                (WRITES_IDX_MAP.get(channel, index), channel, *dumps(value))
                for index, (channel, value) in enumerate(writes)
            ],
        )
        subject = f"{at}.{word(task_id)}.{self._name}-{next(self._calls)}"
        await self._store(thread, subject, _pack(row), address)

    async def adelete_thread(self, thread_id: str) -> None:
        """Remove everything of a thread; a run that holds its lease can write no more."""
        await self._table.purge(self._address(thread_id).everything)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of these runs, with their writes, in all threads."""
        if run_ids:
            await remove_runs(self._reading(), set(run_ids))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread: first values and writes, then the checkpoints that name them."""
        source, target = self._address(source_thread_id), self._address(target_thread_id)
        for kind in "pbwc":
            for row in await self._table.matching(f"{source.root}.{kind}.>"):
                copied = target.root + row.subject[len(source.root) :]
                await self._write(target_thread_id, copied, row.data)

    async def aprune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
    ) -> None:
        """`keep_latest`: of each namespace, and what it is built from. `delete`: keep nothing."""
        if strategy not in ("keep_latest", "delete"):
            raise BadInput("strategy", f"{strategy!r:.80} is neither keep_latest nor delete")
        for thread in thread_ids:
            if strategy == "delete":
                await self.adelete_thread(thread)
            else:
                await prune(self._reading(), self._address(thread))

    # -- of graphs that are agents

    async def anote_end(self, thread_id: str, *, tenant: str, task: str) -> None:
        """Note that a thread may be deleted once this task has succeeded; see `asweep_ended`."""
        address = self._address(thread_id)
        await self._write(thread_id, address.ended, EndedThreads.note(tenant, task))

    async def akeep_question(self, thread_id: str, place: str, data: bytes) -> None:
        """Keep what a node of the thread was asked, until the thread is deleted."""
        await self._write(thread_id, self._address(thread_id).question(place), data)

    async def aget_question(self, thread_id: str, place: str) -> bytes | None:
        """What was kept for `place`."""
        row = await self._table.last(self._address(thread_id).question(place))
        return None if row is None else row.data

    async def asweep_ended(self) -> int:
        """Delete threads whose tasks the ledger knows as succeeded, up to 16; how many."""
        return await EndedThreads(self._table, self._prefix).sweep()

    # -- reading

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that `config` names, else the thread's latest; None if there is none."""
        thread, ns = _place(config)
        checkpoint = get_checkpoint_id(config)
        at = word(checkpoint) if checkpoint else "*"
        row = await self._table.last(self._address(thread).checkpoint(word(ns), at))
        return None if row is None else await self._reading().whole(row)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[CheckpointTuple]:
        """The checkpoints of a thread, or of all, the newest first. filter: of metadata."""
        asked = (config or {}).get("configurable", {})
        ns, checkpoint = asked.get("checkpoint_ns"), asked.get("checkpoint_id")
        wanted = all_checkpoints(
            self._prefix,
            thread=word(asked["thread_id"]) if "thread_id" in asked else "*",
            ns="*" if ns is None else word(ns),
            checkpoint=word(checkpoint) if checkpoint else "*",
        )
        end = get_checkpoint_id(before) if before else None
        reading, given = self._reading(), 0
        async for row in reading.newest_first(wanted, before=end):
            if limit is not None and given >= limit:
                return
            if filter and not await reading.has_metadata(row, filter):
                continue
            given += 1
            yield await reading.whole(row)

    def get_next_version(self, current: str | None, channel: None) -> str:  # noqa: ARG002
        """A version that no fork of the same checkpoint gives another value."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random.random():016}"  # noqa: S311  unlike others', no secret

    # -- the same for threads without a loop

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """As `aput`."""
        return self.on_loop(self.aput(config, checkpoint, metadata, new_versions))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """As `aput_writes`."""
        self.on_loop(self.aput_writes(config, writes, task_id, task_path))

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """As `aget_tuple`."""
        return self.on_loop(self.aget_tuple(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002  LangGraph's name
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """As `alist`."""
        listing = self.alist(config, filter=filter, before=before, limit=limit)
        try:
            while (found := self.on_loop(_next(listing))) is not None:
                yield found
        finally:
            self.on_loop(listing.aclose())

    def delete_thread(self, thread_id: str) -> None:
        """As `adelete_thread`."""
        self.on_loop(self.adelete_thread(thread_id))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `adelete_for_runs`."""
        self.on_loop(self.adelete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `acopy_thread`."""
        self.on_loop(self.acopy_thread(source_thread_id, target_thread_id))

    def prune(
        self,
        thread_ids: Sequence[str],
        *,
        strategy: str = "keep_latest",
    ) -> None:
        """As `aprune`."""
        self.on_loop(self.aprune(thread_ids, strategy=strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As `aget_delta_channel_history`."""
        return self.on_loop(self.aget_delta_channel_history(config=config, channels=channels))

    # -- inside

    def _address(self, thread: str) -> ThreadAddress:
        return ThreadAddress.of(self._prefix, thread, self._table.stream)

    def _reading(self) -> Reading:
        return Reading(self._table, self._packing, self.serde, self._prefix)

    async def _store(self, thread: str, subject: str, data: bytes, address: ThreadAddress) -> None:
        await self._write(thread, subject, await self._packing.pack(data, address))

    async def _write(self, thread: str, subject: str, data: bytes) -> None:
        lease = self._leases.get(thread)
        if lease is None:
            await self._table.write(subject, data)
        else:
            await lease.write(self._table, subject, data)


@asynccontextmanager
async def _open(
    url: str, prefix: str, serde: SerializerProtocol, replicas: int
) -> AsyncIterator[JetStreamSaver]:
    stream = stream_name("CHECKPOINTS", prefix)
    settings = {
        "name": stream,
        "subjects": [f"{prefix}.ckpt.>"],
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "allow_atomic": True,
        "allow_msg_ttl": True,
    }
    async with open_link(url, name="callboard langgraph saver") as connection:
        await ensure_stream(connection, settings)
        async with Publisher(connection) as publisher:
            table = Table(connection, publisher, stream, patience=_PATIENCE_SECONDS)
            leases = Leases(table, batched=await is_clustered(connection, stream))
            yield JetStreamSaver(table, prefix=prefix, leases=leases, serde=serde)


def _place(config: RunnableConfig) -> tuple[str, str]:
    asked = config.get("configurable", {})
    if "thread_id" not in asked:
        raise BadInput("thread_id", 'is missing: pass {"configurable": {"thread_id": "..."}}')
    return str(asked["thread_id"]), asked.get("checkpoint_ns") or ""


def _config(thread: str, ns: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint}}


async def _all(jobs: Iterable[Any]) -> None:
    """Run all; the first error is raised when none runs any more."""
    results = await asyncio.gather(*jobs, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _next(listing: AsyncIterator[CheckpointTuple]) -> CheckpointTuple | None:
    return await anext(listing, None)
