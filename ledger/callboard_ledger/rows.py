"""The rows of the ledger: one a task, a workflow, a schedule or a command; what the fold changes
and a store keeps.

A task is a `Life` (so the broker's rule applies to it as it is) with its place in the journal.
Every row is created by exactly one record, whose sequence is the row's key in any store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from callboard_broker.rule import TERMINAL, Life, TaskState
from callboard_broker.wire import Cron, Failure, Gate
from callboard_ledger.allocations import Allocation
from callboard_ledger.budgets import Account, Draws
from callboard_ledger.performance import Performance

__all__ = [
    "MOST_REMEMBERED",
    "Changes",
    "CommandRow",
    "Flow",
    "FlowStep",
    "Merge",
    "Row",
    "Schedule",
    "StepPlan",
    "Task",
    "add_used",
    "remember",
]

MOST_REMEMBERED = 300
"""How many earlier events of one row are known by their sequences; the oldest are forgotten."""


class Task(Life, gc=False):
    """One task. Times are Unix milliseconds of the server's clock; sequences the journal's.

    seq: the record that created the row: the post; of a step its first dispatch (or, if it never
    came to that, its end); of a schedule's task the `fired`. flow, step, idx: set for a workflow's
    step (`undo` is what undoes one) and, with the step `cron`, for a schedule's task; flow alone
    for a task that a step spawned. parent: the task whose attempt spawned it. posted_at: None for
    a step. not_before: when it may start at the earliest. cancel: why it shall end. used: units
    that its attempts have used. void: the secrets of lost attempts, whose cost may still come.
    past: the sequences of its earlier events, beside the last dispatch and the end. payload_seq:
    the command that gave it another payload. agent: name and version of the handler that failed
    last. draws: on what an attempt draws beyond the budgets of its tenant and capability.
    """

    id: str = ""
    seq: int = 0
    tenant: str = ""
    capability: str = ""
    priority: int = 5
    shard: int | None = None
    posted_at: int | None = None
    dispatched_at: int | None = None
    ended_at: int | None = None
    host: str | None = None
    dispatch_seq: int | None = None
    end_seq: int | None = None
    flow: str | None = None
    step: str | None = None
    idx: int | None = None
    parent: str | None = None
    not_before: int | None = None
    cancel: str | None = None
    paused: bool = False
    used: dict[str, float] | None = None
    void: dict[int, str] | None = None
    past: list[int] | None = None
    payload_seq: int | None = None
    agent: tuple[str, str] | None = None
    draws: Draws | None = None
    dirty: bool = False

    @property
    def scheduled(self) -> bool:
        """Whether a schedule made it."""
        return self.step is not None and self.posted_at is not None

    @property
    def post_seq(self) -> int | None:
        """The sequence of the post (or of its schedule's); None for a step of a workflow."""
        if self.step is None:
            return self.seq
        return int(self.flow or "0") if self.scheduled else None

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def dead(self) -> bool:
        """It has ended without success, and can be started again."""
        return self.state in TERMINAL and self.state != "succeeded"


class StepPlan(msgspec.Struct, array_like=True, frozen=True):
    """What a step is, as it was posted. fans_out: it has elements, as many as `expanded` says.

    follows: the fan-out that it follows item by item. needs: the steps before it. tolerated: they
    that depend on it cope with its failure. flow: the steps of the workflow that it is. undo: the
    capability of what undoes it. draws: as a task's.
    """

    id: str
    capability: str = ""
    priority: int = 5
    fans_out: bool = False
    follows: str | None = None
    needs: tuple[str, ...] = ()
    tolerated: bool = False
    join: str | int = "all"
    gate: Gate | None = None
    flow: tuple[StepPlan, ...] | None = None
    undo: str = ""
    draws: Draws | None = None


class FlowStep(msgspec.Struct, array_like=True, gc=False):
    """One step of a workflow, counted by its elements. total: 1, or for a fan-out what `expanded`
    said (None until then). failed: have failed or expired. done_at: when the last one ended."""

    plan: StepPlan
    total: int | None = 1
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0
    done_at: int = 0

    @property
    def waiting(self) -> int:
        """How many have not begun or wait for another attempt; a fan-out counts as one at first."""
        known = 1 if self.total is None else self.total
        return max(0, known - self.running - self.ended)

    @property
    def ended(self) -> int:
        return self.succeeded + self.failed + self.cancelled + self.skipped

    @property
    def complete(self) -> bool:
        """Whether nothing of it is still to come."""
        return self.total is not None and self.ended >= self.total

    @property
    def state(self) -> TaskState:
        """One word for all; a step of which every element was skipped is `cancelled`."""
        if self.failed:
            return "failed"
        if self.running:
            return "running"
        if self.complete:
            return "succeeded" if self.succeeded or not self.total else "cancelled"
        return "running" if self.succeeded else "waiting"


class Flow(msgspec.Struct, kw_only=True):
    """One workflow. seq: the record that created it: its post, or what entered a sub-workflow.

    flow, step, idx: whose step it is, if it is one. rows: its elements (`build.0`) that are known;
    a sub-workflow stands for its own. edits: commands whose payloads changed its inputs. used:
    units, of all its tasks. woken: it goes on where it was, as the ledger expects. stored: its
    plan is in the store.
    """

    id: str
    seq: int
    tenant: str
    name: str = ""
    state: TaskState = "waiting"
    posted_at: int = 0
    ended_at: int | None = None
    end_seq: int | None = None
    shard: int | None = None
    error: Failure | None = None
    generation: int = 0
    flow: str | None = None
    step: str | None = None
    idx: int | None = None
    cancel: str | None = None
    paused: bool = False
    used: dict[str, float] | None = None
    past: list[int] | None = None
    edits: list[int] | None = None
    woken: bool = False
    steps: dict[str, FlowStep] = {}
    rows: dict[str, Task | Flow] = {}
    dirty: bool = False
    stored: bool = False

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def dead(self) -> bool:
        """It has ended without success, and can be resumed unless it was refused."""
        return self.state in TERMINAL and self.state != "succeeded"

    @property
    def refused(self) -> bool:
        """The router never took it in: it is no workflow, or came at a time of overload."""
        overload = self.error is not None and self.error.type == "Overloaded" and not self.rows
        return not self.steps or overload


class Schedule(msgspec.Struct, kw_only=True):
    """A post that makes a task at each of its times. number: tasks so far. last: the last one.

    state: `waiting`, until it ends.
    """

    seq: int
    tenant: str
    capability: str
    cron: Cron
    state: TaskState = "waiting"
    priority: int = 5
    posted_at: int = 0
    ended_at: int | None = None
    end_seq: int | None = None
    shard: int | None = None
    error: Failure | None = None
    number: int = 0
    next_at: int | None = None
    cancel: str | None = None
    paused: bool = False
    draws: Draws | None = None
    dirty: bool = False

    @property
    def id(self) -> str:
        return str(self.seq)

    @property
    def last(self) -> str | None:
        return f"{self.id}.cron.{self.number}" if self.number else None

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


class CommandRow(msgspec.Struct, kw_only=True):
    """Something was asked of `target`. state: `waiting`, until the router has answered; then
    `succeeded`, or `failed` if it was refused. source: the step from which a resume runs again.
    edits: it has a payload. done: the rows show it already."""

    seq: int
    tenant: str
    verb: str
    target: str = ""
    by: str = ""
    reason: str = ""
    shard: int | None = None
    posted_at: int = 0
    end_seq: int | None = None
    state: Literal["waiting", "succeeded", "failed"] = "waiting"
    error: Failure | None = None
    source: str | None = None
    edits: bool = False
    done: bool = False
    dirty: bool = False

    @property
    def id(self) -> str:
        return str(self.seq)

    @property
    def ended(self) -> bool:
        return self.state != "waiting"


Row = Task | Flow | Schedule | CommandRow


class Merge(msgspec.Struct, frozen=True, gc=False):
    """The post at `seq` is no task of its own: it repeats `same_as`."""

    seq: int
    tenant: str
    same_as: str


def remember(row: Task | Flow, seq: int | None) -> None:
    """The event at `seq` is no longer the row's last one of its kind."""
    if seq is None:
        return
    if row.past is None:
        row.past = [seq]
    elif len(row.past) < MOST_REMEMBERED:
        row.past.append(seq)
    else:
        row.past = [*row.past[1:], seq]


def add_used(row: Task | Flow, used: dict[str, float]) -> None:
    """Units were used for the row."""
    total = row.used = {} if row.used is None else row.used
    for unit, amount in used.items():
        total[unit] = total.get(unit, 0.0) + amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What one transaction of a store holds: everything up to `position`, and `position` itself.

    at_ms: the latest time of a record. epoch: the sequence of the active router's epoch. void,
    malformed: records that meant nothing. gone: tasks that turned out to be none, by sequence.
    performance: to be added to the figures that are stored. accounts: of budgets; closed: the keys
    of those that are no more.
    """

    position: int
    at_ms: int
    epoch: int
    void: int
    malformed: int
    tasks: list[Task] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    schedules: list[Schedule] = field(default_factory=list)
    commands: list[CommandRow] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    performance: Performance = field(default_factory=Performance)
    allocations: list[Allocation] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
