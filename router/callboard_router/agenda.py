"""What may have become possible: waiting tasks, ends to be decided, timers, values to fetch.

The agenda is derived: it can be thrown away and made again from the state at any time. Delays,
retries, timeouts and schedules are entries of one heap, so a tick costs what is due and no more.
"""

from __future__ import annotations

import heapq

from callboard_broker.wire import Failure
from callboard_router.filling import Missing, Source, Values
from callboard_router.flow import Flow
from callboard_router.queueing import Waiting
from callboard_router.state import Schedule, State, Task
from callboard_router.stopping import flow_paused

__all__ = ["Agenda", "Limits", "expires_at", "total_deadline"]


class Limits:
    """How many attempts of a task may be lost. lost: with their hosts. unstarted: begun by none."""

    __slots__ = ("lost", "unstarted")

    def __init__(self, *, lost: int, unstarted: int) -> None:
        self.lost = lost
        self.unstarted = unstarted

    def reached(self, task: Task) -> bool:
        return task.life.lost >= self.lost or task.life.unstarted >= self.unstarted


class Agenda:
    """The policy's working set over one state.

    now_ms: the time as the last decision saw it, on the server's clock. undecided: tasks,
    workflows and schedules whose next step is to be written. to_answer: posts and commands to be
    merged, answered or quarantined. entering: steps that are workflows, or gates, and may begin.
    to_stop: attempts that shall end, with the reason. wanted: values to be fetched from the journal
    or the blob store, handed in by `fetched`. unfillable: why a task, fan-out or workflow cannot
    get its payload, elements or result.
    """

    def __init__(self, state: State, limits: Limits, waiting: Waiting) -> None:
        self.waiting = waiting
        self.now_ms = 0
        self.undecided: dict[str, None] = {}
        self.to_answer: dict[str, None] = {}
        self.entering: dict[str, None] = {}
        self.to_stop: dict[str, str] = {}
        self.values = Values()
        self.wanted: dict[Source, None] = {}
        self.unfillable: dict[str, Failure] = {}
        self._state = state
        self._limits = limits
        self._due: list[tuple[int, str]] = []
        self._parked: dict[str, tuple[str, set[Source]]] = {}
        self._waiting_for: dict[Source, list[str]] = {}

    # -- what has changed

    def take_fresh(self) -> None:
        """Look at what the fold says has changed."""
        fresh = self._state.fresh
        while fresh:
            self.look_at(fresh.popleft())

    def look_at_everything(self) -> None:
        """Begin anew, as a router does whose epoch begins."""
        state = self._state
        self.waiting.clear()
        self.undecided.clear()
        self.entering.clear()
        self.to_stop.clear()
        self._due.clear()
        state.fresh.clear()
        for names in (state.tasks, state.flows, state.schedules, state.merges, state.answers):
            for name in names:
                self.look_at(name)
        for seq in state.unreadable:
            self.look_at(f"!{seq}")

    @property
    def next_ms(self) -> int | None:
        """When the next thing is due."""
        return self._due[0][0] if self._due else None

    def take_due(self, now_ms: int) -> None:
        """Look at whatever the mere passing of time may have changed."""
        self.now_ms = max(self.now_ms, now_ms)
        while self._due and self._due[0][0] <= self.now_ms:
            self.look_at(heapq.heappop(self._due)[1])

    def look_at(self, name: str) -> None:
        """See where a task, workflow, schedule, command or unreadable message belongs."""
        state = self._state
        task = state.tasks.get(name)
        if task is not None:
            if task.life.state == "running":
                self._look_at_running(task)
            else:
                self._look_at_waiting(task)
        elif name in state.flows:
            self._look_at_flow(state.flows[name])
        elif name in state.schedules:
            self._look_at_schedule(state.schedules[name])
        elif name in state.merges or name in state.answers or name.startswith("!"):
            self.to_answer[name] = None
        else:
            self.values.drop(name)

    def _look_at_waiting(self, task: Task) -> None:
        name, life = task.id, task.life
        if life.attempt:
            self.to_stop.pop(name, None)
        if (
            life.failure is not None
            or task.cancel is not None
            or task.decided is not None
            or (self.unfillable and name in self.unfillable)
            or (life.attempt and self._limits.reached(task))
        ):
            self.undecided[name] = None
            return
        if task.terms is not None and task.terms.timeouts is not None:
            deadline = expires_at(task)
            if deadline is not None:
                if deadline <= self.now_ms:
                    self.undecided[name] = None
                    return
                self._at(deadline, name)
        if task.paused or (task.flow is not None and self.is_paused(task)):
            return
        if task.not_before > self.now_ms:
            self._at(task.not_before, name)
        elif task.capability:
            self.waiting.push(task)
        elif task.step:
            self.entering[name] = None  # a workflow of its own, or a gate

    def _look_at_running(self, task: Task) -> None:
        total = total_deadline(task)
        if task.cancel is not None:
            self.to_stop[task.id] = task.cancel
        elif total is not None:
            if total <= self.now_ms:
                self.to_stop[task.id] = "its total timeout has passed"
            else:
                self._at(total, task.id)

    def _look_at_flow(self, flow: Flow) -> None:
        if not flow.open:
            self.undecided[flow.id] = None
        elif flow.expires_at is not None and flow.ending is None:
            if flow.expires_at <= self.now_ms:
                self.undecided[flow.id] = None
            else:
                self._at(flow.expires_at, flow.id)

    def _look_at_schedule(self, schedule: Schedule) -> None:
        if schedule.cancel is not None or schedule.next_at is None:
            self.undecided[schedule.id] = None
        elif not schedule.paused:
            if schedule.next_at <= self.now_ms:
                self.undecided[schedule.id] = None
            else:
                self._at(schedule.next_at, schedule.id)

    def _at(self, when_ms: int, name: str) -> None:
        heapq.heappush(self._due, (when_ms, name))

    # -- what a decision asks

    def is_paused(self, task: Task) -> bool:
        """Whether the task, or a workflow that it belongs to, is paused."""
        if task.paused:
            return True
        flow = self._state.flows.get(task.flow) if task.flow is not None else None
        return flow is not None and flow_paused(self._state, flow)

    def may_start(self, task: Task) -> bool:
        """The last look at a task before it is dispatched: it was queued some time ago."""
        life = task.life
        return (
            life.state == "waiting"
            and life.failure is None
            and task.cancel is None
            and not task.paused
            and task.not_before <= self.now_ms
            and not (self._parked and task.id in self._parked)
            and not (self.unfillable and task.id in self.unfillable)
            and (task.flow is None or not self.is_paused(task))
        )

    # -- values to fetch

    def is_parked(self, key: str) -> bool:
        """Whether the values that it needs are being fetched."""
        return key in self._parked

    def park(self, key: str, flow: str, missing: Missing) -> None:
        """Wait until the missing values have come."""
        self._parked[key] = (flow, set(missing.sources))
        for source in missing.sources:
            if source not in self._waiting_for:
                self.wanted[source] = None
            self._waiting_for.setdefault(source, []).append(key)

    def fetched(self, source: Source, value: object) -> None:
        """A wanted value has come; a `Failure` says that it is not to be had."""
        for key in self._waiting_for.pop(source, ()):
            flow, sources = self._parked.get(key, ("", set()))
            if source not in sources:
                continue
            if isinstance(value, Failure):
                self.unfillable[key] = value
            elif flow in self._state.flows:
                self.values.put(flow, source, value)
            sources.discard(source)
            if not sources or isinstance(value, Failure):
                del self._parked[key]
                self.look_at(key)

    def give_up(self, key: str, failure: Failure) -> None:
        """Its payload or result cannot be made."""
        self.unfillable[key] = failure
        self.undecided[key] = None


def total_deadline(task: Task) -> int | None:
    """When its total timeout ends, in ms."""
    timeouts = None if task.terms is None else task.terms.timeouts
    if timeouts is None or timeouts.total is None:
        return None
    return task.since + int(timeouts.total * 1000)


def expires_at(task: Task) -> int | None:
    """When a task that waits expires: by its total timeout, or as long as it was never begun, by
    that of its queue."""
    timeouts = None if task.terms is None else task.terms.timeouts
    if timeouts is None:
        return None
    total, life = total_deadline(task), task.life
    begun = life.errors or life.lost or life.unstarted
    if timeouts.queue is None or begun:
        return total
    queued = max(task.since, task.not_before) + int(timeouts.queue * 1000)
    return queued if total is None else min(queued, total)
