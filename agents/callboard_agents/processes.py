"""Attempts in child processes: each has a prepared child of its own, for this one task, unless its
agent lets a child run several tasks of one tenant.

What a child says is heard as from a stranger: its result and its failure are checked and bounded,
its requests are done by the run's side, a few at a time. An attempt that cannot be kept apart as
its tenant requires is not run here, and its outcome says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
from msgspec import UNSET, Raw

from callboard_agents.executors import ChildWords, Watching
from callboard_agents.failures import bounded, crashed, failure_of, with_peak
from callboard_agents.kept_nursery import KeptNursery
from callboard_agents.policy import IsolationMissing, Policy
from callboard_agents.results import check_result
from callboard_agents.run import Run
from callboard_agents.sandbox import Child, Ending, TaskHeader
from callboard_broker.errors import BadInput, CallboardError
from callboard_broker.wire import Failure, Usage

__all__ = ["Processes"]

_MOST_QUESTIONS = 64
_MOST_ASKED = 64 * 1024 * 1024  # bytes of the questions that are unanswered, beyond the first
_BULKY = ("blob_put", "blob_get")  # one at a time, until the child has taken the answer
_LONG_RESULT = 1024 * 1024  # is checked in a thread
_LAST_MOMENT = 0.5  # for a handler to end in the drain of its host


class Busy(CallboardError, RuntimeError):
    """A handler waits for too many answers of its host at once."""


class Processes:
    """The executor of process agents, and of tenants that demand it.

    side_of: makes the side of a run, when its child is there.
    """

    def __init__(
        self,
        watching: Watching,
        group: asyncio.TaskGroup,
        nursery: KeptNursery,
        policy: Policy,
        side_of: Callable[[Run], ChildWords],
    ) -> None:
        self._watching = watching
        self._group = group
        self._nursery = nursery
        self._policy = policy
        self._side_of = side_of
        self._loop = asyncio.get_running_loop()
        self._talks: dict[Run, _Talk] = {}

    def start(self, run: Run, payload: bytes | Raw) -> None:
        """Give the task to a child, now or as soon as there is one."""
        demand = self._policy.demand(run.tenant)
        missing = demand.missing(self._nursery.layers, self._nursery.reasons)
        if missing:
            failure = failure_of(IsolationMissing(missing))
            self._loop.call_soon(self._watching.ended, run, None, failure)
            return
        tenant = None if "fresh" in demand.require else run.tenant
        child = self._nursery.take(run.lane.agent.capability, tenant)
        if child is None:
            run.task = self._group.create_task(self._wait(run, payload, tenant))
        else:
            self._begin(run, child, payload, waited=False)

    def stop(self, run: Run) -> None:
        """Ask the child to stop; at the end of the lease, there is nothing to wait for."""
        talk = self._talks.get(run)
        if talk is None:
            return
        if run.stop == "lease":
            talk.child.kill()
            return
        talk.child.cancel()
        if run.stop == "drain":
            self._loop.call_later(_LAST_MOMENT, talk.child.kill)

    def kill(self, run: Run) -> bool:
        """Kill the child, with all that it has started; its end follows."""
        talk = self._talks.get(run)
        if talk is not None:
            talk.child.kill()
        return talk is not None

    def close(self) -> None:
        """The children are the nursery's."""

    async def _wait(self, run: Run, payload: bytes | Raw, tenant: str | None) -> None:
        try:
            child = await self._nursery.wait(run.lane.agent.capability, tenant)
        except asyncio.CancelledError:
            if run.stop is None:
                raise  # the host itself is ending
            self._watching.ended(run, None, None)
            return
        except Exception as error:  # noqa: BLE001  whatever is wrong is the outcome
            self._watching.ended(run, None, failure_of(error))
            return
        run.task = None
        if run.stop is None:
            self._begin(run, child, payload, waited=True)
        else:  # told in this very moment
            child.kill()
            self._watching.ended(run, None, None)

    def _begin(self, run: Run, child: Child, payload: bytes | Raw, *, waited: bool) -> None:
        dispatch = run.dispatch
        run.side = side = self._side_of(run)
        talk = self._talks[run] = _Talk(self, run, child, side)
        self._watching.begun(run, waited=waited)
        header = TaskHeader(
            dispatch.task,
            dispatch.attempt,
            run.tenant,
            dispatch.capability or run.lane.agent.capability,
            run.timeout,
            UNSET if run.restored is None else Raw(run.restored),
            dispatch.heartbeat,
            root=dispatch.root,
            trace=side.attempt.origin.trace_of(dispatch.task),
            level=side.level,
        )
        child.start(header, bytes(payload), talk)

    # -- what the talks tell

    def asked(self, talk: _Talk, number: int, kind: str, data: bytes) -> None:
        """Do what the child wants."""
        much = talk.asked_bytes and talk.asked_bytes + len(data) > _MOST_ASKED
        if len(talk.questions) >= _MOST_QUESTIONS or much:
            error = Busy(f"{_MOST_QUESTIONS} requests of this attempt are unanswered: await some")
            talk.child.answer(number, failure_of(error))
            return
        talk.asked_bytes += len(data)
        question = self._group.create_task(talk.answer(number, kind, data))
        talk.questions.add(question)
        question.add_done_callback(talk.questions.discard)

    def gone(self, talk: _Talk, ending: Ending) -> None:
        """The child has ended and was reaped."""
        run = talk.run
        del self._talks[run]
        for question in talk.questions:
            question.cancel()
        used = ending.usage
        run.layers, run.usage = ending.layers, Usage(used.cpu_s, used.memory_mb, used.wall_s)
        failure = talk.broken or ending.failure
        if failure is not None:
            self._watching.ended(run, None, with_peak(bounded(failure), used.memory_mb))
        elif ending.result is None:
            self._watching.ended(run, None, crashed("the child process said nothing"))
        elif len(ending.result) > _LONG_RESULT:
            run.task = self._group.create_task(self._check(run, ending.result))
        else:
            self._watching.ended(run, *check_result(ending.result))

    async def _check(self, run: Run, result: bytes) -> None:
        """Check a long result where it holds nobody up."""
        checked: tuple[bytes | None, Failure | None] = (None, None)
        try:
            checked = await asyncio.to_thread(check_result, result)
        except asyncio.CancelledError:
            if run.stop is None:
                raise
        self._watching.ended(run, *checked)


class _Talk:
    """One child's words (`Heard`), and what is done about them."""

    __slots__ = ("asked_bytes", "broken", "bulk", "child", "owner", "questions", "run", "side")

    def __init__(self, owner: Processes, run: Run, child: Child, side: ChildWords) -> None:
        self.owner = owner
        self.run = run
        self.child = child
        self.side = side
        self.questions: set[asyncio.Task[None]] = set()
        self.asked_bytes = 0
        self.bulk = asyncio.Lock()
        self.broken: Failure | None = None

    def told(self, kind: str, data: bytes) -> None:
        """It says something."""
        try:
            self.side.tell(kind, data)
        except (BadInput, msgspec.MsgspecError, UnicodeDecodeError) as error:
            # Nothing of ours speaks like that: the child is in other hands.
            self.broken = crashed(f"it said what no handler says ({kind:.40}): {error}")
            self.child.kill()

    def asked(self, number: int, kind: str, data: bytes) -> None:
        """It wants an answer."""
        if self.broken is None and not self.run.ended:
            self.owner.asked(self, number, kind, data)

    def ended(self, ending: Ending) -> None:
        """It is gone."""
        self.owner.gone(self, ending)

    async def answer(self, number: int, kind: str, data: bytes) -> None:
        """Do it; whatever goes wrong is the handler's to know."""
        if kind in _BULKY:
            async with self.bulk:
                await self._answer(number, kind, data)
        else:
            await self._answer(number, kind, data)
        self.asked_bytes -= len(data)

    async def _answer(self, number: int, kind: str, data: bytes) -> None:
        """Done when the child has taken it: else one that never reads would fill this process."""
        try:
            answer: bytes | Failure = await self.side.ask(kind, data)
        except Exception as error:  # noqa: BLE001  it is told to whoever asked
            answer = failure_of(error)
        self.child.answer(number, answer)
        await self.child.taken()
