"""Requests to stop attempts, as the active router repeats them while these run.

They are not stored, and a host that holds none of the attempts takes no notice.
"""

from __future__ import annotations

import logging

import msgspec

from callboard_agents.running import Running
from callboard_broker.connection import Connection
from callboard_broker.subjects import Subjects

__all__ = ["listen_for_stops"]

_LOG = logging.getLogger("callboard.host")


class _StopRequest(msgspec.Struct):
    stop: list[tuple[str, int]]
    why: str = ""


_decode = msgspec.json.Decoder(_StopRequest).decode


async def listen_for_stops(
    connection: Connection, subjects: Subjects, pool: str, running: Running
) -> None:
    """Do as the pool's hosts are asked, until the connection is closed."""

    def arrived(_subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        try:
            request = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _LOG.warning("a request to stop cannot be read: %s", error)
            return
        running.cancel(set(request.stop), request.why)

    await connection.sink(subjects.stop(pool), arrived)
