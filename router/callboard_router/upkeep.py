"""Snapshots and purges: now and then the active router writes its state down, and tidies up.

A copy of the process writes the state; it goes to the blob store, and a new epoch of this router
names it. Once that epoch is read back, the snapshot before is removed, and the journal's old end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial

import msgspec

from callboard_broker.blobs import Blobs
from callboard_broker.connection import ApiError, Connection
from callboard_broker.errors import CallboardError
from callboard_broker.streams import Topology
from callboard_broker.wire import Snapshot
from callboard_router.engine import Engine
from callboard_router.forked import ForkFailed, forked
from callboard_router.purge import Needed, drop_blob, purge
from callboard_router.snapshot import Picture, compressed
from callboard_router.state import FOLD_VERSION
from callboard_router.tenure import Role

__all__ = ["Upkeep", "UpkeepOptions"]

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_FEWEST_EVENTS = 1000
_REST = 10  # times what the last one took: so much of a busy router may go into snapshots
_AGAIN_SECONDS = 30.0
_CONFIRM_SECONDS = 30.0

_picture = msgspec.msgpack.Decoder(Picture)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepOptions:
    """snapshot_events, snapshot_seconds: when a snapshot is due (the latter after a thousand
    events). retention_days: how long every message stays. purge_seconds: between two purges."""

    snapshot_events: int = 100_000
    snapshot_seconds: float = 300.0
    retention_days: float = 7.0
    purge_seconds: float = 3600.0


class Upkeep:
    """One router's; it does something only while that is the active one."""

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        engine: Engine,
        blobs: Blobs,
        options: UpkeepOptions,
    ) -> None:
        self._connection = connection
        self._topology = topology
        self._engine = engine
        self._blobs = blobs
        self._options = options
        self._needed: Needed | None = None
        self._mistrusted: Snapshot | None = None
        self._last_at = time.monotonic()
        self._rest_until = 0.0
        self._purged_at = 0.0

    def mistrust(self, snapshot: Snapshot | None) -> None:
        """This snapshot is named and could not be used: another one is due."""
        self._mistrusted = snapshot

    async def run(self) -> None:
        """Look after it until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._engine.tenure.role is not Role.LEADER:
                self._needed = None
                continue
            now = time.monotonic()
            try:
                if self._is_due(now):
                    await self._snapshot()
                if self._needed is not None and now >= self._purged_at:
                    self._purged_at = now + self._options.purge_seconds
                    await self._purge(self._needed)
            except (CallboardError, ApiError, ForkFailed, OSError, LookupError) as error:
                _log.warning("the upkeep of the journal goes on later: %s", error)
                self._rest_until = time.monotonic() + _AGAIN_SECONDS

    def _is_due(self, now: float) -> bool:
        state = self._engine.state
        known = state.snapshot
        usable = known is not None and known.fold == FOLD_VERSION and known != self._mistrusted
        events = state.seq - (known.seq if known is not None and usable else 0)
        if now < self._rest_until or events < _FEWEST_EVENTS:
            return False
        options = self._options
        return events >= options.snapshot_events or now - self._last_at >= options.snapshot_seconds

    async def _snapshot(self) -> None:
        engine = self._engine
        began = time.monotonic()
        picture = _picture.decode(await forked(partial(compressed, engine.state)))
        blob = await self._blobs.put(picture.body)
        taken = Snapshot(picture.seq, FOLD_VERSION, picture.digest, blob)
        before = engine.state.snapshot
        if engine.tenure.role is not Role.LEADER:
            return  # whoever leads now takes its own; this one is never named
        engine.snapshot_taken(taken, time.monotonic())
        if not await self._is_named(taken):
            return
        self._last_at = ended = time.monotonic()
        self._rest_until = ended + _REST * (ended - began)
        _log.info("snapshot at %d: %d bytes, %.2f s", taken.seq, blob.size, ended - began)
        if before is not None and before.fold == FOLD_VERSION and before.blob != blob:
            await drop_blob(self._connection, self._topology, before.blob)
        epoch = engine.state.epoch
        self._needed = Needed(floor=picture.floor, snapshot=taken.seq, epoch=epoch)
        self._purged_at = 0.0

    async def _is_named(self, taken: Snapshot) -> bool:
        """Whether an epoch has come that names it; not if another router took over."""
        deadline = time.monotonic() + _CONFIRM_SECONDS
        while self._engine.state.snapshot != taken:
            if self._engine.tenure.role is Role.FOLLOWER or time.monotonic() > deadline:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    async def _purge(self, needed: Needed) -> None:
        days = self._options.retention_days
        count = await purge(self._connection, self._topology, needed, retention_days=days)
        if count:
            _log.info("%d messages of the journal were purged", count)
