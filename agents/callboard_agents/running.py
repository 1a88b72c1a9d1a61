"""The attempts that run now: from their start to the outcome, or to the order to stop.

An async handler is one task of the host's loop. A plain one is a call in a thread of its lane,
which cannot be stopped: it is told (`ctx.cancelled`), its outcome is decided without it, and its
slot stays taken until it really returns.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import Literal

import msgspec
from msgspec import UNSET, Raw

from callboard_agents.attempts import Life
from callboard_agents.context import Context
from callboard_agents.failures import bad_result, failure_of, timed_out
from callboard_agents.lane import Lane
from callboard_agents.outcomes import Outcomes
from callboard_agents.payloads import Payloads
from callboard_broker.bounds import check_size
from callboard_broker.connection import Connection
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput, CallboardError
from callboard_broker.subjects import Subjects
from callboard_broker.wire import BlobRef, Dispatch, Failure, Outcome, encode

__all__ = ["Running"]

_MAX_RESULT = 64 * 1024 * 1024  # what the reader of a blob accepts
_GRACE_SECONDS = 1.0  # for a handler to clean up after its timeout, before the outcome says so
_LOG = logging.getLogger("callboard.host")

Stop = Literal["timeout", "lease", "drain"]


class _RunningNews(msgspec.Struct):
    task: str
    attempt: int
    host: str
    state: str = "running"


class _ProgressNews(msgspec.Struct):
    task: str
    attempt: int
    progress: Raw


class _Run:
    """One attempt. `stop`: why it was told to end; `ended`: its outcome is decided."""

    __slots__ = (
        "context",
        "dispatch",
        "ended",
        "lane",
        "life",
        "started_at",
        "stop",
        "task",
        "tenant",
        "timeout",
        "timer",
    )

    def __init__(self, lane: Lane, dispatch: Dispatch, tenant: str, life: Life) -> None:
        self.lane = lane
        self.dispatch = dispatch
        self.tenant = tenant
        self.life = life
        self.context: Context | None = None
        self.started_at = 0
        self.timeout = dispatch.timeout or lane.timeout
        self.timer: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[None] | None = None
        self.stop: Stop | None = None
        self.ended = False


class Running:
    """All attempts that run on this host."""

    def __init__(
        self,
        connection: Connection,
        subjects: Subjects,
        outcomes: Outcomes,
        payloads: Payloads,
        group: asyncio.TaskGroup,
        *,
        host: str,
        blob_bytes: int,
    ) -> None:
        self._connection = connection
        self._subjects = subjects
        self._outcomes = outcomes
        self._payloads = payloads
        self._group = group
        self._host = host
        self._blob_bytes = blob_bytes
        self._loop = asyncio.get_running_loop()
        self._runs: set[_Run] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Return when nothing runs, and every result is on its way."""
        await self._idle.wait()

    def __len__(self) -> int:
        """How many run, or are stopped and have not ended yet."""
        return len(self._runs)

    def start(self, lane: Lane, dispatch: Dispatch, tenant: str, life: Life) -> None:
        """Run the attempt; its slot in `lane` is taken already."""
        run = _Run(lane, dispatch, tenant, life)
        if not self._runs:
            self._idle.clear()
        self._runs.add(run)
        run.started_at = self._connection.server_now_ms()
        run.timer = self._loop.call_later(run.timeout, self._late, run)
        if lane.agent.takes_context or lane.threads is not None:
            run.context = self._context(run)
        if lane.threads is not None and dispatch.payload is not UNSET:
            self._submit(run, dispatch.payload)
        else:
            run.task = self._group.create_task(self._work(run))

    def stop(self, why: Stop, life: Life | None = None) -> None:
        """Stop what runs (of `life` only) and never report it."""
        for run in list(self._runs):
            if life is None or run.life is life:
                run.ended = True
                self._tell_to_stop(run, why)

    # -- one attempt

    async def _work(self, run: _Run) -> None:
        data: bytes | None = None
        failure: Failure | None = None
        agent = run.lane.agent
        try:
            given = run.dispatch.payload
            payload = given if given is not UNSET else await self._payloads.read(run.dispatch)
            if run.lane.threads is not None:
                run.task = None
                self._submit(run, payload)
                return
            self._tell(run)
            result = agent.start(payload, run.context)
            if agent.is_async:
                result = await result
            data, failure = _encode(result)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if run.stop is None and task is not None and task.cancelling():
                raise  # the host itself is ending
            failure = failure_of(error)
        except BaseException as error:  # noqa: BLE001  whatever a handler raises is its outcome
            failure = failure_of(error)
        self._end(run, data, failure)

    def _submit(self, run: _Run, payload: bytes | Raw) -> None:
        if run.lane.threads is not None:
            self._tell(run)
            run.lane.threads.submit(functools.partial(self._call, run, payload))

    def _call(self, run: _Run, payload: bytes | Raw) -> None:
        """In a thread of the lane."""
        data: bytes | None = None
        try:
            data, failure = _encode(run.lane.agent.start(payload, run.context))
        except BaseException as error:  # noqa: BLE001  whatever a handler raises is its outcome
            failure = failure_of(error)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_call, run, data, failure)

    def _end_call(self, run: _Run, data: bytes | None, failure: Failure | None) -> None:
        if run.lane.threads is not None:
            run.lane.threads.freed()
        self._end(run, data, failure)

    def _end(self, run: _Run, data: bytes | None, failure: Failure | None) -> None:
        if run.timer is not None:
            run.timer.cancel()
        run.lane.leave()
        if run.ended:
            self._forget(run)
            return
        run.ended = True
        if run.stop == "timeout":
            data, failure = None, timed_out(run.timeout)
        if data is not None and len(data) > self._blob_bytes:
            run.task = self._group.create_task(self._report_long(run, data))
            return
        self._send(run, data, None, failure)
        self._forget(run)

    def _forget(self, run: _Run) -> None:
        self._runs.discard(run)
        if not self._runs:
            self._idle.set()

    def _late(self, run: _Run) -> None:
        if run.stop is None:
            self._tell_to_stop(run, "timeout")
            run.timer = self._loop.call_later(_GRACE_SECONDS, self._late, run)
        elif not run.ended:
            run.ended = True
            _LOG.error(
                "task %s does not end after its timeout; its slot is lost", run.dispatch.task
            )
            self._send(run, None, None, timed_out(run.timeout))

    def _tell_to_stop(self, run: _Run, why: Stop) -> None:
        run.stop = why
        if run.context is not None:
            run.context.cancel()
        if run.task is not None:
            run.task.cancel()

    # -- what it says

    async def _report_long(self, run: _Run, data: bytes) -> None:
        try:
            blob = await self._payloads.write(data)
        except asyncio.CancelledError:
            if run.stop is None:
                raise
        except (LookupError, CallboardError) as error:
            self._send(run, None, None, failure_of(error))
        else:
            self._send(run, None, blob, None)
        self._forget(run)

    def _send(
        self, run: _Run, data: bytes | None, blob: BlobRef | None, failure: Failure | None
    ) -> None:
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
        )
        subject = self._subjects.run(run.tenant, "outcome", dispatch.shard)
        self._outcomes.send(run.life, (dispatch.task, dispatch.attempt), subject, encode(outcome))

    def _tell(self, run: _Run) -> None:
        dispatch = run.dispatch
        news = _RunningNews(dispatch.task, dispatch.attempt, self._host)
        self._connection.send(self._subjects.news(run.tenant, dispatch.shard), encode(news))

    def _context(self, run: _Run) -> Context:
        dispatch = run.dispatch
        return Context(
            task=dispatch.task,
            attempt=dispatch.attempt,
            tenant=run.tenant,
            capability=run.lane.agent.capability,
            deadline=time.monotonic() + run.timeout,
            tell=functools.partial(self._progress, run),
            room=None if run.lane.threads is not None else self._connection.drained,
        )

    def _progress(self, run: _Run, value: bytes) -> None:
        news = encode(_ProgressNews(run.dispatch.task, run.dispatch.attempt, Raw(value)))
        subject = self._subjects.news(run.tenant, run.dispatch.shard)
        if run.lane.threads is None:
            self._connection.send(subject, news)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._connection.send, subject, news)


def _encode(result: object) -> tuple[bytes | None, Failure | None]:
    try:
        data = encode_payload(result, field="result")
        check_size(data, _MAX_RESULT, "result")
    except BadInput as error:
        return None, bad_result(error)
    return data, None
