"""A host's mailbox: dispatches that are meant for this host alone.

The journal republishes them as they are stored, to a plain subscription. One that is missed, while
there is no connection, was never started: the router finds that nobody holds it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from callboard_agents.facts import Attempt
from callboard_agents.lane import Lane
from callboard_agents.options import HostOptions
from callboard_broker.connection import Connection
from callboard_broker.errors import BadInput
from callboard_broker.headers import header
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Dispatch, decode_event

__all__ = ["Mailbox", "Take"]

_LOG = logging.getLogger("callboard.host")


Take = Callable[[Lane, Dispatch, str, int], None]
"""Called with the lane, the dispatch, its tenant, and its sequence in the journal."""


class Mailbox:
    """The mailbox of one host. lanes: by capability. take: what checks and starts a dispatch."""

    def __init__(
        self,
        connection: Connection,
        options: HostOptions,
        lanes: Mapping[str, Lane],
        take: Take,
    ) -> None:
        self._connection = connection
        self._options = options
        self._lanes = lanes
        self._take = take
        self._subjects = Subjects(options.prefix)

    async def open(self) -> None:
        """Listen from now on, until the connection is closed."""
        await self._connection.sink(
            self._subjects.mailbox_filter(self._options.name), self._arrived
        )

    def _arrived(self, subject: str, _reply: str, headers: bytes, data: bytes) -> None:
        address = self._subjects.parse(header(headers, "Nats-Subject") or "")
        seq = header(headers, "Nats-Sequence") or ""
        if address.box != self._options.name or not seq.isdecimal():
            _LOG.warning("a message on %s is from no journal: passed over", subject)
            return
        try:
            dispatch = decode_event("dispatch", data)
        except BadInput as error:
            _LOG.warning("journal message %s is no dispatch: %s", seq, error)
            return
        assert isinstance(dispatch, Dispatch)  # noqa: S101  for the type checker: by its kind
        if dispatch.pool != self._options.pool:
            return  # there a host has the same name
        lane = self._lane(dispatch.capability)
        if lane is None:
            _LOG.warning(
                "task %s attempt %d not started: this host does not serve %r",
                dispatch.task,
                dispatch.attempt,
                dispatch.capability,
                extra=Attempt.of(dispatch, address.tenant, self._options.prefix).facts(),
            )
            return
        self._take(lane, dispatch, address.tenant, int(seq))

    def _lane(self, capability: str) -> Lane | None:
        """The capability's own lane, else the nearest ancestor's."""
        while capability:
            lane = self._lanes.get(capability)
            if lane is not None:
                return lane
            capability = capability.rpartition(".")[0]
        return None
