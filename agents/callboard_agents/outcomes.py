"""Outcomes on their way: each is sent until it is stored, and never after its lease has ended.

Sending one twice is harmless, because the fold takes the first; so an outcome that nobody
acknowledged is simply sent again, in the same bytes. Until the acknowledgement the host holds the
attempt in its beats.
"""

from __future__ import annotations

import asyncio
import logging

from callboard_agents.attempts import Attempts, Life
from callboard_agents.clock import lease_now
from callboard_broker.errors import BadInput
from callboard_broker.publisher import Publisher

__all__ = ["Outcomes"]

_AGAIN_SECONDS = 0.2
_LOG = logging.getLogger("callboard.host")


class Outcomes:
    """The outcomes of one host that are not yet stored."""

    def __init__(self, publisher: Publisher, attempts: Attempts) -> None:
        self._publisher = publisher
        self._attempts = attempts
        self._idle = asyncio.Event()
        self._idle.set()
        self.unstored = 0

    def send(
        self,
        life: Life,
        key: tuple[str, int],
        subject: str,
        data: bytes,
        *,
        headers: bytes = b"",
    ) -> None:
        """Publish the outcome of attempt `key`, which was started in `life`."""
        self.unstored += 1
        if self.unstored == 1:
            self._idle.clear()
        self._publish(_Outcome(self, life, key, (subject, data, headers)))

    async def settled(self) -> None:
        """Return when everything sent so far is stored, or void."""
        await self._idle.wait()

    def _publish(self, outcome: _Outcome) -> None:
        if not self._attempts.may_report(outcome.life, lease_now()):
            _LOG.warning(
                "outcome of task %s attempt %d dropped: no lease", *outcome.key, extra=outcome.facts
            )
            self._over(outcome)
            return
        try:
            subject, data, headers = outcome.message
            self._publisher.publish(subject, data, headers=headers, done=outcome.answered)
        except BadInput as error:  # the server takes only smaller messages than `blob_bytes`
            told = "outcome of task %s attempt %d cannot be sent: %s"
            _LOG.error(told, *outcome.key, error, extra=outcome.facts)
            self._over(outcome)

    def _stored(self, outcome: _Outcome, error: Exception | None) -> None:
        if error is None:
            self._over(outcome)
            return
        if not outcome.repeated:
            outcome.repeated = True
            told = "outcome of task %s attempt %d is sent again: %s"
            _LOG.warning(told, *outcome.key, error, extra=outcome.facts)
        asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._publish, outcome)

    def _over(self, outcome: _Outcome) -> None:
        self._attempts.release(outcome.life, *outcome.key)
        self.unstored -= 1
        if self.unstored == 0:
            self._idle.set()


class _Outcome:
    """One outcome; `answered` is what the publisher calls, without a closure per message."""

    __slots__ = ("key", "life", "message", "owner", "repeated")

    def __init__(
        self,
        owner: Outcomes,
        life: Life,
        key: tuple[str, int],
        message: tuple[str, bytes, bytes],
    ) -> None:
        self.owner = owner
        self.life = life
        self.key = key
        self.message = message
        self.repeated = False

    @property
    def facts(self) -> dict[str, object]:
        """What the lines of the log about it carry."""
        task, attempt = self.key
        tenant = self.message[0].split(".")[2]  # `cb.run.<tenant>.outcome.<shard>`
        return {"tenant": tenant, "task": task, "attempt": attempt}

    def answered(self, _seq: int | None, error: Exception | None) -> None:
        self.owner._stored(self, error)  # noqa: SLF001  one mechanism in two classes
