"""The attempts that run now: from their start to the outcome, or to the order to stop.

An async handler is one task of the host's loop. A plain one is a call in a thread of its lane,
which cannot be stopped: it is told (`ctx.cancelled`), its outcome is decided without it, and its
slot stays taken until it really returns. A coroutine that ignores its cancellation fares the same.
What a handler returns or raises after it was told to stop no longer matters.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Set as AbstractSet

from msgspec import UNSET, Raw

from callboard_agents.attempts import Life
from callboard_agents.context import Context, HostSide
from callboard_agents.failures import bad_result, failure_of
from callboard_agents.lane import Lane
from callboard_agents.news import News
from callboard_agents.options import HostOptions
from callboard_agents.outcomes import Outcomes
from callboard_agents.payloads import Payloads
from callboard_agents.run import Run, Stop
from callboard_agents.spawning import Spawner
from callboard_broker.bounds import check_size
from callboard_broker.connection import Connection
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput, CallboardError
from callboard_broker.subjects import Subjects
from callboard_broker.wire import BlobRef, Dispatch, Failure, Outcome, encode

__all__ = ["Running"]

_MAX_RESULT = 64 * 1024 * 1024  # what the reader of a blob accepts
_GRACE_SECONDS = 1.0  # for a handler to clean up once it was told to stop, before the outcome
_NOTHING: dict[str, float] = {}
_LOG = logging.getLogger("callboard.host")


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
        options: HostOptions,
        spawn: Spawner,
    ) -> None:
        self._connection = connection
        self._subjects = subjects
        self._outcomes = outcomes
        self._payloads = payloads
        self._group = group
        self._news = News(connection, subjects, options.name)
        self._host = options.name
        self._blob_bytes = options.blob_bytes
        self._loop = asyncio.get_running_loop()
        self._inline = HostSide(room=connection.drained, spawn=spawn)
        self._threaded = HostSide(spawn=spawn, loop=self._loop)
        self._runs: set[Run] = set()
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
        run = Run(lane, dispatch, tenant, life)
        if not self._runs:
            self._idle.clear()
        self._runs.add(run)
        run.started_at = self._connection.server_now_ms()
        run.timer = self._loop.call_later(run.timeout, self._late, run)
        if lane.agent.takes_context or lane.threads is not None or dispatch.heartbeat is not None:
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

    def cancel(self, wanted: AbstractSet[tuple[str, int]], reason: str) -> None:
        """Stop these attempts, as far as they run here; their outcome says that it was done."""
        for run in list(self._runs):
            if (run.dispatch.task, run.dispatch.attempt) in wanted:
                self._ask_to_stop(run, "cancel", reason)

    # -- one attempt

    async def _work(self, run: Run) -> None:
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
            self._begun(run)
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

    def _submit(self, run: Run, payload: bytes | Raw) -> None:
        if run.lane.threads is not None:
            self._begun(run)
            run.lane.threads.submit(functools.partial(self._call, run, payload))

    def _call(self, run: Run, payload: bytes | Raw) -> None:
        """In a thread of the lane."""
        data: bytes | None = None
        try:
            data, failure = _encode(run.lane.agent.start(payload, run.context))
        except BaseException as error:  # noqa: BLE001  whatever a handler raises is its outcome
            failure = failure_of(error)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_call, run, data, failure)

    def _end_call(self, run: Run, data: bytes | None, failure: Failure | None) -> None:
        if run.lane.threads is not None:
            run.lane.threads.freed()
        self._end(run, data, failure)

    def _end(self, run: Run, data: bytes | None, failure: Failure | None) -> None:
        if run.timer is not None:
            run.timer.cancel()
        if run.watch is not None:
            run.watch.cancel()
        run.lane.leave()
        if run.ended:
            self._forget(run)
            return
        run.ended = True
        if run.stop is not None:
            data, failure = None, run.failure()
        if data is not None and len(data) > self._blob_bytes:
            run.task = self._group.create_task(self._report_long(run, data))
            return
        self._send(run, data, None, failure)
        self._forget(run)

    def _forget(self, run: Run) -> None:
        self._runs.discard(run)
        if not self._runs:
            self._idle.set()

    # -- its end before its time

    def _late(self, run: Run) -> None:
        self._ask_to_stop(run, "timeout")

    def _listen(self, run: Run) -> None:
        """Look at when the handler was heard last, and again when it may have been too long ago."""
        context, heartbeat = run.context, run.dispatch.heartbeat
        if context is None or heartbeat is None or run.ended:
            return
        left = heartbeat - (time.monotonic() - context.heard_at)
        if left > 0:
            run.watch = self._loop.call_later(left, self._listen, run)
        else:
            self._ask_to_stop(run, "heartbeat")

    def _ask_to_stop(self, run: Run, why: Stop, reason: str = "") -> None:
        """Tell it once; what does not end then is reported without it."""
        if run.stop is not None or run.ended:
            return
        run.reason = reason
        self._tell_to_stop(run, why)
        if run.timer is not None:
            run.timer.cancel()
        run.timer = self._loop.call_later(_GRACE_SECONDS, self._give_up, run)

    def _give_up(self, run: Run) -> None:
        if not run.ended:
            run.ended = True
            _LOG.error(
                "task %s does not end when told to (%s); its slot stays taken until it does",
                run.dispatch.task,
                run.stop,
            )
            self._send(run, None, None, run.failure())

    def _tell_to_stop(self, run: Run, why: Stop) -> None:
        run.stop = why
        if run.context is not None:
            run.context.cancel()
        if run.task is not None:
            # Not at once: a task that is cancelled before its first step never reaches `_end`.
            self._loop.call_soon(run.task.cancel)

    # -- what it says

    async def _report_long(self, run: Run, data: bytes) -> None:
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
        self, run: Run, data: bytes | None, blob: BlobRef | None, failure: Failure | None
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
            _NOTHING if run.context is None else run.context.used,
        )
        subject = self._subjects.run(run.tenant, "outcome", dispatch.shard)
        self._outcomes.send(run.life, (dispatch.task, dispatch.attempt), subject, encode(outcome))

    def _begun(self, run: Run) -> None:
        dispatch = run.dispatch
        self._news.begun(run.tenant, dispatch)
        if dispatch.heartbeat is not None and run.context is not None:
            run.context.heard_at = time.monotonic()
            run.watch = self._loop.call_later(dispatch.heartbeat, self._listen, run)

    def _context(self, run: Run) -> Context:
        dispatch = run.dispatch
        return Context(
            task=dispatch.task,
            attempt=dispatch.attempt,
            tenant=run.tenant,
            capability=dispatch.capability or run.lane.agent.capability,
            deadline=time.monotonic() + run.timeout,
            secret=dispatch.secret,
            tell=functools.partial(self._progress, run),
            host=self._inline if run.lane.threads is None else self._threaded,
        )

    def _progress(self, run: Run, value: bytes) -> None:
        if run.lane.threads is None:
            self._news.progress(run.tenant, run.dispatch, value)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.progress, run.tenant, run.dispatch, value)


def _encode(result: object) -> tuple[bytes | None, Failure | None]:
    try:
        data = encode_payload(result, field="result")
        check_size(data, _MAX_RESULT, "result")
    except BadInput as error:
        return None, bad_result(error)
    return data, None
