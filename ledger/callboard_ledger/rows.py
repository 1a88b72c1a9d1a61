"""The rows of the ledger: one a task, one a workflow; what the fold changes and a store keeps.

A task is a `Life` (so the broker's rule applies to it as it is) with its place in the journal.
Every row is created by exactly one record, whose sequence is the row's key in any store.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from callboard_broker.rule import TERMINAL, Life, TaskState
from callboard_broker.wire import Failure

__all__ = ["Changes", "Flow", "FlowStep", "Merge", "Task"]


class Task(Life, gc=False):
    """One task. Times are Unix milliseconds of the server's clock; sequences the journal's.

    seq: the record that created the row: the post, or a step's first dispatch (or, if it never
    came to that, its end). flow, step, idx: set for a workflow's step. posted_at: None for a step.
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
    flow: int | None = None
    step: str | None = None
    idx: int | None = None
    dirty: bool = False

    @property
    def post_seq(self) -> int | None:
        """The sequence of the post; None for a step of a workflow."""
        return self.seq if self.flow is None else None

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


class FlowStep(msgspec.Struct, array_like=True, gc=False):
    """One step of a workflow, counted. total: 1, or for a fan-out what `expanded` said (None
    until then). failed: ended without success. follows: the fan-out that it follows item by item.
    """

    id: str
    capability: str
    total: int | None = 1
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    priority: int = 5
    follows: str | None = None

    @property
    def waiting(self) -> int:
        """How many have not begun or wait for another attempt; a fan-out counts as one at first."""
        known = 1 if self.total is None else self.total
        return max(0, known - self.running - self.succeeded - self.failed)

    @property
    def state(self) -> TaskState:
        if self.failed:
            return "failed"
        if self.running:
            return "running"
        if self.total is not None and self.succeeded >= self.total:
            return "succeeded"
        return "waiting" if not self.succeeded else "running"


class Flow(msgspec.Struct, kw_only=True):
    """One workflow. seq: the sequence of its post. known: its steps (`build.0`) that have rows;
    open: how many of those have not ended."""

    seq: int
    tenant: str
    name: str = ""
    state: TaskState = "waiting"
    posted_at: int = 0
    ended_at: int | None = None
    end_seq: int | None = None
    shard: int | None = None
    error: Failure | None = None
    steps: dict[str, FlowStep] = {}
    known: set[str] = set()
    open: int = 0
    dirty: bool = False

    @property
    def id(self) -> str:
        return str(self.seq)

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL


class Merge(msgspec.Struct, frozen=True, gc=False):
    """The post at `seq` is no task of its own: it repeats `same_as`."""

    seq: int
    tenant: str
    same_as: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What one transaction of a store holds: everything up to `position`, and `position` itself.

    epoch: the sequence of the active router's epoch. void, malformed: records that meant nothing.
    """

    position: int
    epoch: int
    void: int
    malformed: int
    tasks: list[Task] = field(default_factory=list)
    flows: list[Flow] = field(default_factory=list)
    merges: list[Merge] = field(default_factory=list)
