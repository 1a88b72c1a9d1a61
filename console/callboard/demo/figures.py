"""What the journal says about a run: how parallel it was, how fast work was handed on, and
whether the budget held. Nothing here was measured by the demo itself.

Hand-off is the time from the event that made an attempt possible to the moment its handler was
entered. That event is the last outcome its step depends on; or, where all tokens of the budget
were taken, the outcome that returned the one it got: tokens are matched in the order in which they
came free, so an idle one never makes the figure smaller. Handlers' times are whole milliseconds of
the server's clock as their host knows it.
"""

from __future__ import annotations

from collections import deque

import msgspec

from callboard.demo.report import RunFigures
from callboard_broker.errors import BadInput
from callboard_broker.graph import Graph, chart
from callboard_broker.record import Record
from callboard_broker.rule import Life, apply_dispatch, apply_lost, apply_outcome
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Budget, Dispatch, Expanded, FlowRun, Lost, Outcome
from callboard_ledger.reading import read

__all__ = ["HandOff", "JournalFigures"]


class HandOff(msgspec.Struct, frozen=True):
    """One hand-off in milliseconds: decided (the dispatch is stored), then entered."""

    task: str
    decided: float
    entered: float

    @property
    def total(self) -> float:
        return self.decided + self.entered


class _Going(msgspec.Struct):
    """An attempt under way. possible_ns: 0 for what followed no outcome."""

    possible_ns: int
    dispatched_ns: int


class JournalFigures:
    """Feed it the journal in order (`take`), then ask. flow: the id of the workflow."""

    def __init__(self, subjects: Subjects, flow: str) -> None:
        self._subjects = subjects
        self._flow = flow
        self._graph: Graph | None = None
        self._lives: dict[str, Life] = {}
        self._going: dict[str, _Going] = {}
        self._expected: dict[str, int] = {}
        self._complete_ns: dict[str, int] = {}
        self._finished: dict[str, int] = {}
        self._free: deque[int] = deque()
        self._spans: list[tuple[int, int]] = []
        self._held = 0
        self.tasks = 0
        self.limit = 0
        self.high_water = 0
        self.lost = 0
        self.handoffs: list[HandOff] = []

    def take(self, record: Record) -> None:
        """Fold the next record."""
        event = read(self._subjects, record).event
        if isinstance(event, FlowRun) and str(record.seq) == self._flow:
            self._graph = chart(event)
        elif isinstance(event, Budget):
            self._budget_changed(event)
        elif isinstance(event, Expanded) and event.task == self._flow:
            self._expected[event.step] = event.items
        elif isinstance(event, Dispatch):
            self._dispatched(event, record.at_ns)
        elif isinstance(event, Outcome):
            self._ended(event, record.at_ns)
        elif isinstance(event, Lost):
            life = self._lives.get(event.task)
            if life is not None and apply_lost(life, event):
                self.lost += 1
                self._returned(event.task, record.at_ns)

    def figures(
        self, *, seconds: float, audit_verified: bool | None, processes: list[str]
    ) -> RunFigures:
        """The figures of the run. Raises `BadInput` if the journal does not hold the workflow."""
        if self._graph is None:
            raise BadInput("flow", f"the journal holds no workflow {self._flow}")
        totals = sorted(each.total for each in self.handoffs)
        return RunFigures(
            tasks=self.tasks,
            parallelism=most_at_once(self._spans),
            handoff_p50_ms=percentile(totals, 0.50),
            handoff_p99_ms=percentile(totals, 0.99),
            budget_high_water=self.high_water,
            budget_limit=self.limit,
            attempts_lost=self.lost,
            audit_verified=audit_verified,
            seconds=seconds,
            processes=processes,
        )

    def _budget_changed(self, event: Budget) -> None:
        limits = event.base if event.base is not None else event.changed
        everywhere = limits.get("global")
        if everywhere is not None and everywhere.concurrency is not None:
            self.limit = everywhere.concurrency
            self._free = deque([0] * max(0, self.limit - self._held))

    def _dispatched(self, event: Dispatch, at_ns: int) -> None:
        life = self._lives.setdefault(event.task, Life())
        if not apply_dispatch(life, event):
            return
        self._held += 1
        self.high_water = max(self.high_water, self._held)
        freed_ns = self._free.popleft() if self._free else at_ns
        ready_ns = self._ready_ns(event.task)
        # What was lost waited for its host's death, and the first step for nobody's outcome.
        handed_on = ready_ns and event.attempt == 1
        possible_ns = max(ready_ns, freed_ns) if handed_on else 0
        self._going[event.task] = _Going(possible_ns, at_ns)

    def _ended(self, event: Outcome, at_ns: int) -> None:
        life = self._lives.get(event.task)
        if life is None or not apply_outcome(life, event):
            return
        going = self._going[event.task]
        if going.possible_ns:
            decided = (going.dispatched_ns - going.possible_ns) / 1e6
            entered = max(0.0, event.started_at - going.dispatched_ns / 1e6)
            self.handoffs.append(HandOff(event.task, decided, entered))
        # Hosts' clocks differ by a millisecond or two: no handler ran outside of its attempt.
        begun_ns = max(event.started_at * 1_000_000, going.dispatched_ns)
        self._spans.append((begun_ns, min((event.ended_at + 1) * 1_000_000, at_ns)))
        self._returned(event.task, at_ns)
        if event.error is None:
            self.tasks += 1
            step = event.task.split(".")[1]
            self._finished[step] = self._finished.get(step, 0) + 1
            if self._finished[step] == self._expected.get(step, 1):
                self._complete_ns[step] = at_ns

    def _returned(self, task: str, at_ns: int) -> None:
        self._held -= 1
        self._free.append(at_ns)
        self._going.pop(task)

    def _ready_ns(self, task: str) -> int:
        """When the last step that this one depends on was complete; 0 if it depends on none."""
        step = task.split(".")[1]
        node = None if self._graph is None else self._graph.nodes.get(step)
        needs = node.needs if node is not None else ()
        return max((self._complete_ns.get(need, 0) for need in needs), default=0)


def most_at_once(spans: list[tuple[int, int]]) -> int:
    """How many spans overlap at most; those that only touch do not."""
    turns = sorted(
        turn for begun, ended in spans if ended > begun for turn in ((begun, 1), (ended, -1))
    )
    now = most = 0
    for _, change in turns:
        now += change
        most = max(most, now)
    return most


def percentile(ordered: list[float], share: float) -> float:
    """The value below which `share` of the ordered values lie (nearest rank); 0 if none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
