"""What a host says of its attempts: that a handler has begun, how far it is, and its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import UNSET, Raw

from callboard_agents.failures import failure_of
from callboard_agents.news import News
from callboard_agents.options import HostOptions
from callboard_agents.outcomes import Outcomes
from callboard_agents.payloads import Payloads
from callboard_agents.run import Run
from callboard_agents.signer import Signer
from callboard_broker.connection import Connection
from callboard_broker.errors import CallboardError
from callboard_broker.subjects import Subjects
from callboard_broker.wire import BlobRef, Failure, Outcome, encode

__all__ = ["Reports"]

_NOTHING: dict[str, float] = {}


class Reports:
    """The reports of one host; made on its loop.

    observer: told each outcome, and the capability of the agent.
    """

    def __init__(
        self,
        connection: Connection,
        subjects: Subjects,
        outcomes: Outcomes,
        payloads: Payloads,
        signer: Signer,
        options: HostOptions,
    ) -> None:
        self._connection = connection
        self._subjects = subjects
        self._outcomes = outcomes
        self._payloads = payloads
        self._host = options.name
        self._blob_bytes = options.blob_bytes
        self._signer = signer
        self.observer: Callable[[str, Outcome], None] | None = None
        self.news = News(connection, subjects, options.name)

    def now_ms(self) -> int:
        """Return the server's time."""
        return self._connection.server_now_ms()

    def fits(self, data: bytes) -> bool:
        """Whether an outcome carries such a result itself."""
        return len(data) <= self._blob_bytes

    def outcome(
        self,
        run: Run,
        data: bytes | None,
        failure: Failure | None,
        *,
        blob: BlobRef | None = None,
    ) -> None:
        """Send the run's outcome, until it is stored."""
        dispatch = run.dispatch
        outcome = Outcome(
            dispatch.task,
            dispatch.attempt,
            dispatch.secret,
            self._host,
            run.started_at,
            self._connection.server_now_ms(),
            UNSET if data is None else Raw(data),
            blob,
            failure,
            _NOTHING if run.side is None else run.side.used,
            list(run.layers),
            run.usage,
            agent=run.lane.agent.name,
            version=run.lane.agent.version,
        )
        if self.observer is not None:
            self.observer(run.lane.agent.capability, outcome)
        subject = self._subjects.run(run.tenant, "outcome", dispatch.shard)
        data = encode(outcome)
        headers = self._signer.headers(subject, run.lane.agent.capability, data)
        key = dispatch.task, dispatch.attempt
        self._outcomes.send(run.life, key, subject, data, headers=headers)

    async def long_outcome(self, run: Run, data: bytes) -> None:
        """Store the result, then send the outcome that names it; nothing if the run is stopped."""
        try:
            blob = await self._payloads.write(data)
        except asyncio.CancelledError:
            if run.stop is None:
                raise
        except (LookupError, CallboardError) as error:
            self.outcome(run, None, failure_of(error))
        else:
            self.outcome(run, None, None, blob=blob)
