"""The state from which a starting router reads on: the latest snapshot, or nothing at all.

The last epoch message names the snapshot. One that another version of the fold has written, or
that is not whole, is passed over, and the whole journal folded again; where it is not whole any
more, a router must not start, because it would give tasks away again that have ended long ago.
"""

from __future__ import annotations

import asyncio
import logging

from callboard_broker.blobs import Blobs
from callboard_broker.connection import ApiError, Connection
from callboard_broker.direct import get_last
from callboard_broker.errors import BadInput, CallboardError, StreamMissing
from callboard_broker.streams import Topology, first_sequence
from callboard_broker.wire import Epoch, Snapshot, decode_event
from callboard_router.snapshot import SnapshotBroken, expand
from callboard_router.state import FOLD_VERSION, State

__all__ = ["MAX_SNAPSHOT_BYTES", "JournalCut", "starting_state"]

_log = logging.getLogger(__name__)

MAX_SNAPSHOT_BYTES = 1024 * 1024 * 1024

_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.2


class JournalCut(CallboardError, LookupError):
    """The journal begins at `.first`, and no snapshot says what was before."""

    def __init__(self, stream: str, first: int, why: str) -> None:
        super().__init__(
            f"{stream} begins at {first}, and what was before it is not known: {why}. Start a "
            "router of the version that wrote the last snapshot, or restore a backup of the "
            "journal and its blobs"
        )
        self.first = first


async def starting_state(connection: Connection, topology: Topology, blobs: Blobs) -> State | None:
    """The state of the latest snapshot; None: fold the journal from its first message.

    Raises `JournalCut`, and what `Connection.request` raises for 30 s: a cluster may be electing.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE_SECONDS
    while True:
        try:
            return await _found(connection, topology, blobs)
        except (OSError, StreamMissing, ApiError) as error:
            if loop.time() > deadline:
                raise
            _log.debug("the journal does not answer yet: %s", error)
        await asyncio.sleep(_PAUSE_SECONDS)


async def _found(connection: Connection, topology: Topology, blobs: Blobs) -> State | None:
    named = await _named(connection, topology)
    while named is not None:
        try:
            return await _read(blobs, named)
        except StreamMissing:
            raise
        except (LookupError, BadInput, SnapshotBroken) as error:
            problem = f"the snapshot at {named.seq} cannot be used ({error})"
        again = await _named(connection, topology)
        if again == named:
            break
        named = again  # a newer one has taken its place meanwhile
    else:
        problem = "there is no snapshot"
    first = await first_sequence(connection, topology.journal)
    if first > 1:
        raise JournalCut(topology.journal, first, problem)
    if named is not None:
        _log.warning("%s: the whole journal is folded instead", problem)
    return None


async def _named(connection: Connection, topology: Topology) -> Snapshot | None:
    """What the last epoch message says."""
    try:
        record = await get_last(connection, topology.journal, topology.subjects.epoch)
        event = decode_event("epoch", record.data)
    except StreamMissing:
        raise
    except (LookupError, BadInput) as error:
        _log.debug("no epoch, no snapshot: %s", error)
        return None
    return event.snapshot if isinstance(event, Epoch) else None


async def _read(blobs: Blobs, named: Snapshot) -> State:
    if named.fold != FOLD_VERSION:
        raise SnapshotBroken(f"written by fold {named.fold}, this is fold {FOLD_VERSION}")
    body = await blobs.get(named.blob, limit=MAX_SNAPSHOT_BYTES)
    state = expand(body, named.digest)
    if state.seq != named.seq:
        raise SnapshotBroken(f"it is of sequence {state.seq}")
    return state
