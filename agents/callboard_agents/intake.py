"""How dispatches reach the lanes, by queue or by mailbox: each is checked on arrival.

The router makes a durable when it hears from the beats that the queue is offered. A dispatch is
acknowledged on receipt, whatever becomes of it: from then on the host's lease speaks for it. What
may be an old dispatch delivered again waits for the router's word.
"""

from __future__ import annotations

import asyncio
import functools
import logging

import msgspec

from callboard_agents.attempts import Attempts, Confirm, Life, Refuse, Start
from callboard_agents.clock import lease_now
from callboard_agents.facts import Attempt
from callboard_agents.lane import Lane
from callboard_agents.options import HostOptions
from callboard_agents.running import Running
from callboard_broker.connection import ApiError, Connection
from callboard_broker.errors import BadInput
from callboard_broker.pull import Delivery, Pull, durable_name
from callboard_broker.streams import Topology, last_sequence
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Dispatch, decode_event

__all__ = ["Intake"]

_DURABLE_POLL_SECONDS = 0.075
_LEASE_POLL_SECONDS = 0.025
_ASK_SECONDS = 2.0
_AGAIN_SECONDS = 0.1
_NO_CONSUMER = 10014
_LOG = logging.getLogger("callboard.host")


class _Word(msgspec.Struct):
    """What the router answers: may it start, or shall it be asked again?"""

    go: bool = False
    wait: bool = False
    why: str = ""


_decode_word = msgspec.json.Decoder(_Word).decode


class Intake:
    """The way in for one host."""

    def __init__(
        self,
        connection: Connection,
        options: HostOptions,
        attempts: Attempts,
        running: Running,
        group: asyncio.TaskGroup,
    ) -> None:
        self._connection = connection
        self._options = options
        self._attempts = attempts
        self._running = running
        self._group = group
        self._subjects = Subjects(options.prefix)
        self._journal = Topology(self._subjects).journal
        self._known = asyncio.Event()
        self._closed = False
        connection.at_lost(self._lost)
        connection.at_restore(self.learn)

    def close(self) -> None:
        """Start nothing more."""
        self._closed = True

    async def serve(self, lane: Lane, opened: asyncio.Event) -> None:
        """Read the lane's queue, once the router has made its durable; until cancelled."""
        durable = durable_name(self._options.pool, lane.agent.capability)
        await self._made(durable)
        deliver = functools.partial(self.deliver, lane)
        async with Pull(
            self._connection, self._journal, durable, deliver, slots=lane.free
        ) as lane.pull:
            opened.set()
            await asyncio.get_running_loop().create_future()

    async def learn(self) -> None:
        """Find out what was stored before this connection; until then everything may be old."""
        generation = self._connection.generation
        while self._connection.generation == generation:
            try:
                seq, _ = await last_sequence(self._connection, self._journal)
            except (OSError, LookupError, ApiError) as error:
                _LOG.debug("the journal does not answer yet: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            if self._connection.generation == generation:
                self._attempts.stored_before(seq)
                self._known.set()
            return

    def _lost(self) -> None:
        self._attempts.connected()
        self._known.clear()

    async def _made(self, durable: str) -> None:
        verb = f"CONSUMER.INFO.{self._journal}.{durable}"
        waited = False
        while True:
            try:
                await self._connection.api(verb)
            except (OSError, LookupError) as error:
                _LOG.debug("waiting for the journal: %s", error)
            except ApiError as error:
                if error.err_code != _NO_CONSUMER and error.code < 500:
                    raise
                if not waited:
                    waited = True
                    _LOG.info("waiting for the router to make the queue %s", durable)
            else:
                return
            await asyncio.sleep(_DURABLE_POLL_SECONDS)

    def deliver(self, lane: Lane, delivery: Delivery) -> None:
        """Acknowledge what a queue has handed over, and start it."""
        delivery.ack()
        try:
            dispatch = decode_event("dispatch", delivery.data)
        except BadInput as error:
            _LOG.warning("journal message %d is no dispatch: %s", delivery.seq, error)
            lane.refill()
            return
        assert isinstance(dispatch, Dispatch)  # noqa: S101  for the type checker: by its kind
        tenant = self._subjects.parse(delivery.subject).tenant
        self.take(lane, dispatch, tenant, delivery.seq)

    def take(self, lane: Lane, dispatch: Dispatch, tenant: str, seq: int) -> None:
        """Start what has arrived, as soon as it has a slot, a lease and, if need be, a word."""
        now = lease_now()
        if self._closed:
            self._refused(dispatch, tenant, Refuse("this host is drained"))
        elif lane.full:
            lane.line_up(functools.partial(self.take, lane, dispatch, tenant, seq))
        elif self._attempts.may_report(self._attempts.life, now):
            self._offer(lane, dispatch, tenant, seq, now)
        else:
            lane.enter()
            self._group.create_task(self._offer_later(lane, dispatch, tenant, seq))

    def _offer(self, lane: Lane, dispatch: Dispatch, tenant: str, seq: int, now: float) -> None:
        now_ms = self._connection.server_now_ms()
        verdict = self._attempts.offered(dispatch, seq, now_ms=now_ms, now=now)
        if isinstance(verdict, Start):
            lane.enter()
            self._running.start(lane, dispatch, tenant, verdict.life)
        elif isinstance(verdict, Confirm):
            lane.enter()
            self._group.create_task(self._confirm(lane, dispatch, tenant, verdict.life, seq))
        else:
            self._refused(dispatch, tenant, verdict)
            lane.refill()

    async def _offer_later(self, lane: Lane, dispatch: Dispatch, tenant: str, seq: int) -> None:
        """What was asked for in a life that has ended since waits for the next one's lease.

        Nobody else will get it: to refuse it now would cost the task an attempt.
        """
        attempts = self._attempts
        while not self._closed and self._connection.server_now_ms() <= dispatch.start_by:
            now = lease_now()
            if attempts.may_report(attempts.life, now):
                lane.leave()
                self.take(lane, dispatch, tenant, seq)
                return
            await asyncio.sleep(_LEASE_POLL_SECONDS)
        lane.leave()
        self._refused(dispatch, tenant, Refuse("this host has no lease"))

    async def _confirm(
        self, lane: Lane, dispatch: Dispatch, tenant: str, life: Life, seq: int
    ) -> None:
        verdict: Start | Refuse = Refuse("this host is drained")
        why = await self._ask(dispatch, life, seq)
        if why:
            verdict = Refuse(why)
        elif not self._closed:
            verdict = self._attempts.confirmed(
                life, dispatch, now_ms=self._connection.server_now_ms(), now=lease_now()
            )
        if isinstance(verdict, Start):
            self._running.start(lane, dispatch, tenant, life)
        else:
            lane.leave()
            self._refused(dispatch, tenant, verdict)

    async def _ask(self, dispatch: Dispatch, life: Life, seq: int) -> str:
        """Return why the router forbids the start, or an empty string."""
        question = msgspec.json.encode(
            {
                "task": dispatch.task,
                "attempt": dispatch.attempt,
                "secret": dispatch.secret,
                "host": self._options.name,
                "incarnation": life.incarnation,
                "seq": seq,
            }
        )
        subject = self._subjects.ask(self._options.pool, "confirm")
        while not self._closed and self._connection.server_now_ms() <= dispatch.start_by:
            try:
                async with asyncio.timeout(_ASK_SECONDS):
                    await self._known.wait()
                if not self._attempts.needs_word(seq):
                    return ""
                reply = await self._connection.request(subject, question, timeout=_ASK_SECONDS)
                word = _decode_word(reply.data)
            except (OSError, LookupError, msgspec.MsgspecError) as error:
                _LOG.debug("the router does not answer: %s", error)
            else:
                if word.go:
                    return ""
                if not word.wait:
                    return word.why or "the router says no"
            await asyncio.sleep(_AGAIN_SECONDS)
        return "nobody confirmed it in time"

    def _refused(self, dispatch: Dispatch, tenant: str, verdict: Refuse) -> None:
        if _LOG.isEnabledFor(logging.INFO):
            about = Attempt.of(dispatch, tenant, self._options.prefix).facts()
            key = (dispatch.task, dispatch.attempt)
            _LOG.info("task %s attempt %d not started: %s", *key, verdict.reason, extra=about)
