"""The journal's old end is removed, up to the first message that anybody may still need.

Kept is what a live task, a dead letter or the latest snapshot refers to, what the ledger has not
saved, audited and archived, what no projector has written yet (`bookmarks`), what is younger than
the retention, and the newest epoch: without that message every guarded write would fail. The ledger
archives what it is told shall go; it goes with the purge after that. While no ledger answers,
nothing is removed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec

from callboard_broker.bookmarks import read_bookmarks
from callboard_broker.connection import ApiError, Connection, NoResponder
from callboard_broker.direct import get_first_since
from callboard_broker.errors import StreamMissing
from callboard_broker.streams import Topology
from callboard_broker.subjects import ALL_TENANTS
from callboard_broker.wire import BlobRef

__all__ = ["Needed", "drop_blob", "purge"]

_log = logging.getLogger(__name__)

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """Sequences of the router's own. floor: the oldest that its state refers to (`snapshot`).

    snapshot: the sequence of the latest snapshot. epoch: of the newest epoch message.
    """

    floor: int
    snapshot: int
    epoch: int

    @property
    def first(self) -> int:
        """The first message that must stay."""
        return min(self.floor, self.snapshot + 1, self.epoch)


class _Position(msgspec.Struct):
    saved: int
    audited: int
    archived: int = 0


async def purge(
    connection: Connection, topology: Topology, needed: Needed, *, retention_days: float
) -> int:
    """Remove what nobody needs and return how many messages went.

    Raises what `Connection.request` raises, `ApiError`, `StreamMissing`, `BadInput`.
    """
    if needed.first <= 1:
        return 0
    wanted = min(needed.first, await _first_young(connection, topology, retention_days))
    for bookmark in await read_bookmarks(connection, topology):
        wanted = min(wanted, bookmark.position + 1)
    if wanted <= 1:
        return 0
    first = min(wanted, await _first_unread(connection, topology, wanted - 1))
    if first <= 1:
        return 0
    answer = await connection.api(f"STREAM.PURGE.{topology.journal}", {"seq": first})
    return int(answer.get("purged", 0))


async def _first_unread(connection: Connection, topology: Topology, wanted: int) -> int:
    """The first message that the ledger has not saved, audited and archived; 0: it does not say.

    wanted: the last message that shall go.
    """
    subject = topology.subjects.ask(ALL_TENANTS, "position")
    try:
        reply = await connection.request(subject, b'{"archive":%d}' % max(0, wanted))
        position = msgspec.json.decode(reply.data, type=_Position)
    except (NoResponder, TimeoutError, msgspec.MsgspecError) as error:
        _log.info("nothing is purged while no ledger says how far it is: %s", error)
        return 0
    return min(position.saved, position.audited, position.archived) + 1


async def _first_young(connection: Connection, topology: Topology, days: float) -> int:
    since = connection.server_now_ms() - int(days * _DAY_MS)
    try:
        record = await get_first_since(connection, topology.journal, since)
    except StreamMissing:
        raise
    except LookupError:  # all are older
        info = await connection.api(f"STREAM.INFO.{topology.journal}")
        return int(info["state"]["last_seq"])
    return record.seq


async def drop_blob(connection: Connection, topology: Topology, blob: BlobRef) -> None:
    """Remove a snapshot's blob, which a newer one has replaced. Raises as `purge` does."""
    every_part = topology.blob(blob.name, 0).rpartition(".")[0] + ".*"
    try:
        await connection.api(f"STREAM.PURGE.{topology.blobs}", {"filter": every_part})
    except ApiError as error:
        _log.warning("an old snapshot could not be removed: %s", error)
