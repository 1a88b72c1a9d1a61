"""The attempts that run now: from their start to the outcome, or to the order to stop.

How one runs is its executor's affair: on the host's loop, in a thread, or in a child process, by
the stricter of what its agent declares and its tenant demands. Here are its timers and its end: a
handler that is told to stop has a moment to do so, then it is killed, or reported without. What it
returns or raises after it was told no longer matters, and its slot stays taken until it has ended.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from msgspec import Raw

from callboard_agents.attempts import Life
from callboard_agents.child_side import ChildSide
from callboard_agents.context import Context, HostSide
from callboard_agents.executors import Executor
from callboard_agents.facts import Attempt
from callboard_agents.failures import failure_of
from callboard_agents.inline import Inline
from callboard_agents.kept_nursery import KeptNursery
from callboard_agents.lane import Lane
from callboard_agents.policy import Policy
from callboard_agents.processes import Processes
from callboard_agents.reports import Reports
from callboard_agents.run import Run, Stop
from callboard_agents.sandbox import CellPlan
from callboard_agents.sandbox.rlimits import MIB
from callboard_agents.stagehand import Stagehand
from callboard_agents.threads import Threaded
from callboard_broker.posts import Parent
from callboard_broker.trace import Origin
from callboard_broker.wire import Dispatch, Failure

__all__ = ["Running"]

_GRACE_SECONDS = 1.0  # for a handler to clean up once it was told to stop, before the outcome
_LOG = logging.getLogger("callboard.host")


class Running:
    """All attempts that run on this host. inline, threaded: what contexts need of it there.
    board: its prefix."""

    def __init__(
        self,
        stagehand: Stagehand,
        reports: Reports,
        group: asyncio.TaskGroup,
        *,
        board: str,
        inline: HostSide,
        threaded: HostSide,
    ) -> None:
        self._stagehand = stagehand
        self._reports = reports
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._board = board
        self._sides = {"inline": inline, "thread": threaded}
        self._now = inline.now
        self._executors: dict[str, Executor] = {
            "inline": Inline(self, group),
            "thread": Threaded(self, threaded),
        }
        self._policy: Policy | None = None
        self._most_bytes: dict[str, int] = {}
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
        run.started_at = self._reports.now_ms()
        run.deadline = self._now() + run.timeout
        run.timer = self._loop.call_later(run.timeout, self._late, run)
        isolation = lane.agent.isolation
        if self._policy is not None and self._policy.demand(tenant).process:
            isolation = "process"
        run.executor = self._executors[isolation]
        payload = self._stagehand.at_hand(run)
        if payload is not None:
            self._begin(run, payload)
        else:
            run.task = self._group.create_task(self._fetch(run))

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

    def isolate(self, nursery: KeptNursery, policy: Policy, plans: Sequence[CellPlan]) -> None:
        """Run in children what agents declare so, and what tenants demand."""
        self._policy = policy
        self._most_bytes = {plan.capability: int(plan.grant.output_mb * MIB) for plan in plans}
        self._executors["process"] = Processes(self, self._group, nursery, policy, self._side_of)

    def close(self) -> None:
        """Let the threads end."""
        for executor in self._executors.values():
            executor.close()

    # -- one attempt

    def _begin(self, run: Run, payload: bytes | Raw) -> None:
        if run.executor is not self._executors.get("process"):
            self._prepare(run)
        run.executor.start(run, payload)

    def _prepare(self, run: Run) -> None:
        """Make the context of a handler that may use one, or must be heard."""
        dispatch, agent = run.dispatch, run.lane.agent
        inline = agent.isolation == "inline"
        if inline and not run.lane.needs_context and dispatch.heartbeat is None:
            return
        run.side = run.context = Context(
            task=dispatch.task,
            attempt=dispatch.attempt,
            tenant=run.tenant,
            capability=dispatch.capability or agent.capability,
            deadline=run.deadline,
            secret=dispatch.secret,
            tell=functools.partial(self._tell, run),
            ask=functools.partial(self._stagehand.ask, run),
            restored=run.restored,
            host=self._sides[agent.isolation],
            origin=Origin(self._board, dispatch.root, dispatch.trace, dispatch.shard),
        )

    def _side_of(self, run: Run) -> ChildSide:
        dispatch, inline = run.dispatch, self._sides["inline"]
        return ChildSide(
            Parent(dispatch.task, dispatch.attempt, dispatch.secret),
            Attempt.of(dispatch, run.tenant, self._board, run.lane.agent.capability),
            tell=functools.partial(self._stagehand.tell, run),
            ask=functools.partial(self._stagehand.ask, run),
            spawn=inline.spawn,
            most_bytes=self._most_bytes.get(run.lane.agent.capability, 0),
            logs=inline.logs,
        )

    async def _fetch(self, run: Run) -> None:
        """Start the attempt with what is not in its dispatch."""
        try:
            payload = await self._stagehand.fetch(run)
        except asyncio.CancelledError as error:
            if run.stop is None:
                raise  # the host itself is ending
            self.ended(run, None, failure_of(error))
        except Exception as error:  # noqa: BLE001  whatever is wrong with a payload is the outcome
            self.ended(run, None, failure_of(error))
        else:
            run.task = None
            if run.stop is None:
                self._begin(run, payload)
            else:  # told in this very moment
                self.ended(run, None, None)

    # -- what executors tell

    def begun(self, run: Run, *, waited: bool = False) -> None:
        """The handler runs now."""
        dispatch = run.dispatch
        run.begun = True
        self._reports.news.begun(run.tenant, dispatch)
        if waited and run.timer is not None:
            run.timer.cancel()
            run.deadline = self._now() + run.timeout
            run.timer = self._loop.call_later(run.timeout, self._late, run)
        if dispatch.heartbeat is not None and run.side is not None:
            run.side.heard_at = self._now()
            run.watch = self._loop.call_later(dispatch.heartbeat, self._listen, run)

    def ended(self, run: Run, data: bytes | None, failure: Failure | None) -> None:
        """The handler has ended; what it returned counts, unless it was told to stop before."""
        if run.timer is not None:
            run.timer.cancel()
        if run.watch is not None:
            run.watch.cancel()
        run.lane.leave()
        if run.side is not None and run.side.page is not None:
            run.side.page.end()  # before the outcome, so that whoever hears of that has heard this
        if run.ended:
            self._forget(run)
            return
        run.ended = True
        if run.stop is not None:
            data, failure = None, run.failure(self._now())
        if data is not None and not self._reports.fits(data):
            run.task = self._group.create_task(self._report_long(run, data))
            return
        self._reports.outcome(run, data, failure)
        self._forget(run)

    async def _report_long(self, run: Run, data: bytes) -> None:
        await self._reports.long_outcome(run, data)
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
        side, heartbeat = run.side, run.dispatch.heartbeat
        if side is None or heartbeat is None or run.ended:
            return
        left = heartbeat - (self._now() - side.heard_at)
        if left > 0:
            run.watch = self._loop.call_later(left, self._listen, run)
        else:
            self._ask_to_stop(run, "heartbeat")

    def _ask_to_stop(self, run: Run, why: Stop, reason: str = "") -> None:
        """Tell it once; what does not end then is killed, or reported without it."""
        if run.stop is not None or run.ended:
            return
        run.reason = reason
        self._tell_to_stop(run, why)
        if run.timer is not None:
            run.timer.cancel()
        run.timer = self._loop.call_later(_GRACE_SECONDS, self._give_up, run)

    def _give_up(self, run: Run, *, killed: bool = False) -> None:
        if run.ended:
            return
        if not killed and run.executor.kill(run):
            last = functools.partial(self._give_up, run, killed=True)
            run.timer = self._loop.call_later(_GRACE_SECONDS, last)
            return
        run.ended = True
        _LOG.error(
            "task %s does not end when told to (%s); its slot stays taken until it does",
            run.dispatch.task,
            run.stop,
            extra=Attempt.of(run.dispatch, run.tenant, self._board).facts(),
        )
        self._reports.outcome(run, None, run.failure(self._now()))

    def _tell_to_stop(self, run: Run, why: Stop) -> None:
        run.stop = why
        if run.side is not None:
            run.side.cancel()
        run.executor.stop(run)
        if run.task is not None:
            # Not at once: a task that is cancelled before its first step never reaches its end.
            self._loop.call_soon(run.task.cancel)

    def _tell(self, run: Run, kind: str, value: bytes) -> None:
        tell = self._stagehand.tell
        if run.lane.agent.isolation == "inline":
            tell(run, kind, value)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(tell, run, kind, value)
