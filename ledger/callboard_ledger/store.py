"""What the ledger needs of a database, so that rows may live elsewhere than in SQLite.

`save` is one transaction that holds the changed rows and the position up to which the journal was
folded, so that a kill at any moment leaves rows and position that belong together; the journal is
read again from there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from callboard_broker.rule import TaskState
from callboard_ledger.allocations import Allocation
from callboard_ledger.budgets import Account
from callboard_ledger.hosts import Hosts
from callboard_ledger.performance import FailureKey, FailureTally, PerformanceKey, Tally
from callboard_ledger.rows import Changes, CommandRow, Flow, Merge, Schedule, Task

__all__ = [
    "MOST_COMPARED",
    "AllocationsQuery",
    "FailuresQuery",
    "FiguresQuery",
    "Overlap",
    "Query",
    "Store",
]

MOST_COMPARED = 20_000
"""Allocations that one question about overlaps looks at: the ledger waits for the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What `list` asks for: rows in the order of their sequences, the newest first.

    Every field may be left out. capability: this one, of tasks and schedules. name: this one, of
    workflows. flow: the steps of this workflow, what they spawned, and its sub-workflows; or the
    tasks of this schedule. dead: what has failed or expired. before: only rows below this sequence.
    """

    tenant: str | None = None
    state: TaskState | None = None
    kind: Literal["task", "flow", "schedule"] | None = None
    capability: str | None = None
    name: str | None = None
    flow: str | None = None
    dead: bool = False
    before: int | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FiguresQuery:
    """Whose performance, and from when to when (Unix milliseconds; whole hours are told)."""

    tenant: str | None = None
    capability: str | None = None
    since: int | None = None
    until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailuresQuery:
    """Which kinds of failures. since: that occurred at or after this time. type: of the error."""

    tenant: str | None = None
    capability: str | None = None
    type: str | None = None
    since: int | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationsQuery:
    """Which allocations, in the order of their dispatches, the newest first. held: only those that
    are not returned. before: only those dispatched below this sequence."""

    tenant: str | None = None
    pool: str | None = None
    host: str | None = None
    capability: str | None = None
    held: bool = False
    before: int | None = None
    limit: int = 100


class Overlap(NamedTuple):
    """most: so many attempts of the capability were run by the host at the same time, by its own
    clock, among those that have an outcome."""

    pool: str
    host: str
    capability: str
    most: int


class Store(Protocol):
    """What the ledger needs of a database. Calls block; they are short."""

    def load(self) -> Changes:
        """The position, and every row that an event may still change (empty for a new store).

        Those are: what has not ended, what has ended without success within the windows of the
        fold, all elements of such workflows, and commands that are not answered. Workflows come
        each after the one that it is inside of; what ended, in the order of its end. Likewise the
        allocations that are not returned, and the accounts of all budgets.
        """
        ...

    def save(self, changes: Changes) -> None:
        """Store `changes` in one transaction, position included."""
        ...

    def task(self, task_id: str) -> Task | None:
        """The task with this id."""
        ...

    def flow(self, flow_id: str) -> Flow | None:
        """The workflow with this id."""
        ...

    def schedule(self, seq: int) -> Schedule | None:
        """The schedule posted at `seq`."""
        ...

    def command(self, seq: int) -> CommandRow | None:
        """The command posted at `seq`."""
        ...

    def commands_about(self, targets: list[str], limit: int) -> list[CommandRow]:
        """The last commands to one of these ids, the oldest first."""
        ...

    def merge(self, seq: int) -> Merge | None:
        """What the post at `seq` repeats."""
        ...

    def find(self, query: Query) -> list[Task | Flow | Schedule]:
        """The rows that `query` asks for."""
        ...

    def figures(self, query: FiguresQuery) -> Iterable[tuple[PerformanceKey, Tally]]:
        """The performance that `query` asks for, by hour."""
        ...

    def failures(self, query: FailuresQuery) -> list[tuple[FailureKey, FailureTally]]:
        """The kinds of failures that `query` asks for, the most frequent first."""
        ...

    def allocations(self, query: AllocationsQuery) -> list[Allocation]:
        """The allocations that `query` asks for, the newest first."""
        ...

    def overlaps(self, most: int = MOST_COMPARED) -> list[Overlap]:
        """How many attempts each host has had at once, among the last `most` dispatches."""
        ...

    def accounts(self) -> list[Account]:
        """Every budget, by its key."""
        ...

    def save_hosts(self, hosts: Hosts) -> None:
        """Store what beats have said, and how far BEATS was read, in a transaction of its own."""
        ...

    def load_hosts(self, hosts: Hosts) -> None:
        """Give `hosts` what was saved of them."""
        ...

    def clear(self) -> None:
        """Forget everything: the journal will be folded from its beginning."""
        ...

    def close(self) -> None: ...
