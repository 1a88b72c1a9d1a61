"""Checkpoints on their way into the journal: each is written until it is stored.

They are numbered as they are asked for, so that one that is written twice, or is overtaken by a
later one, changes nothing. None is written once the lease has ended under which its attempt began.
"""

from __future__ import annotations

import asyncio
import logging

from msgspec import UNSET, Raw

from callboard_agents.attempts import Attempts
from callboard_agents.clock import lease_now
from callboard_agents.options import HostOptions
from callboard_agents.payloads import Payloads
from callboard_agents.run import Run
from callboard_broker.errors import (
    BadInput,
    BoardUnreachable,
    CallboardError,
    StreamMissing,
    WriteUnresolved,
)
from callboard_broker.publisher import Publisher
from callboard_broker.rule import MAX_CHECKPOINTS
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Checkpoint, encode

__all__ = ["Checkpoints", "LeaseEnded"]

_AGAIN_SECONDS = 0.2
_LOG = logging.getLogger("callboard.host")


class LeaseEnded(CallboardError, RuntimeError):
    """The host has lost its lease: the attempt is void, and another one may run already."""


class Checkpoints:
    """The checkpoints of one host."""

    def __init__(
        self, publisher: Publisher, payloads: Payloads, attempts: Attempts, options: HostOptions
    ) -> None:
        self._publisher = publisher
        self._payloads = payloads
        self._attempts = attempts
        self._subjects = Subjects(options.prefix)
        self._host = options.name
        self._blob_bytes = options.blob_bytes

    async def store(self, run: Run, data: bytes) -> None:
        """Return when it is stored. data: JSON.

        Raises `BadInput` if the attempt has left too many already, `LeaseEnded`, `WriteRefused`.
        """
        if run.checkpoints >= MAX_CHECKPOINTS:
            raise BadInput("checkpoint", f"{MAX_CHECKPOINTS:,} of one attempt are enough")
        run.checkpoints += 1
        dispatch, number = run.dispatch, run.checkpoints
        short = len(data) <= self._blob_bytes
        event = Checkpoint(
            dispatch.task,
            dispatch.attempt,
            dispatch.secret,
            self._host,
            number,
            Raw(data) if short else UNSET,
            None if short else await self._payloads.write(data),
        )
        await self._write(
            run, self._subjects.run(run.tenant, "checkpoint", dispatch.shard), encode(event)
        )

    async def _write(self, run: Run, subject: str, data: bytes) -> None:
        while True:
            if not self._attempts.may_report(run.life, lease_now()):
                raise LeaseEnded(f"the lease of attempt {run.dispatch.attempt} has ended")
            try:
                await self._publisher.put(subject, data)
            except (BoardUnreachable, StreamMissing, WriteUnresolved) as error:
                _LOG.warning("a checkpoint of task %s is sent again: %s", run.dispatch.task, error)
            else:
                return
            await asyncio.sleep(_AGAIN_SECONDS)
