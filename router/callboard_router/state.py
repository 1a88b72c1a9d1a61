"""The state that the fold builds: live tasks and workflows, tokens in use, limits, the epoch.

Only what is still needed is kept. A finished task leaves at once; a finished step leaves its
result, by value up to `INLINE` bytes and by the outcome's sequence above. What ended without
success stays for a while, so that it can be run again. `fresh` is the fold's letterbox to the
policy and no part of the state: it names what may have become possible.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

import msgspec

from callboard_broker.rule import Life
from callboard_broker.wire import BlobRef, Cron, Failure, Snapshot, Terms
from callboard_router.budget import Accounts, Need
from callboard_router.flow import Flow, Result
from callboard_router.tally import Tally

__all__ = ["FOLD_VERSION", "Answer", "Schedule", "State", "Task"]

FOLD_VERSION = 3


class Task(msgspec.Struct, kw_only=True, gc=False):
    """A live task. order: the journal sequence that made it ready; older goes first.

    since: when it became ready, in milliseconds. not_before: when it may start at the earliest.
    payload: its JSON, if short; else it stands in the message at `payload_at`, or in `blob`.
    need: the tokens and units of one attempt. queue: (pool, capability) of the attempt that runs;
    host: whose mailbox it went to. avoid: hosts that shall not get it again.
    cancel: why it shall end as soon as it can. parent: the task whose attempt spawned it.
    children: live tasks that it spawned. decided: what a person or a signal said to a gate.
    void: the secrets of lost attempts, whose cost may still come. ran_on: the host of the last
    outcome. checkpoint: the last one of this generation's attempts, by value or by its sequence.
    root: the outermost task or workflow, where the id does not say it. trace: if one was given.
    """

    id: str
    tenant: str
    capability: str
    shard: int
    order: int
    since: int
    life: Life
    need: Need
    priority: int = 5
    timeout: float | None = None
    payload: bytes | None = None
    blob: BlobRef | None = None
    payload_at: int = 0
    terms: Terms | None = None
    flow: str | None = None
    step: str = ""
    index: int = 0
    queue: tuple[str, str] = ("", "")
    host: str | None = None
    not_before: int = 0
    avoid: list[str] = []
    cancel: str | None = None
    paused: bool = False
    parent: str | None = None
    children: list[str] = []
    decided: Result | None = None
    void: dict[int, str] = {}
    ran_on: str = ""
    checkpoint: Result | None = None
    root: str = ""
    trace: str = ""

    @property
    def is_gate(self) -> bool:
        """Nobody works on it: a person or a signal decides."""
        return self.flow is not None and not self.capability


class Schedule(msgspec.Struct, kw_only=True):
    """A task that comes again and again. number: of the last one. next_at: of the next, in ms."""

    id: str
    tenant: str
    capability: str
    shard: int
    seq: int
    since: int
    cron: Cron
    template: Task
    number: int = 0
    next_at: int | None = None
    last: str | None = None
    paused: bool = False
    cancel: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """A command was read: it waits to be answered. error: why it is refused."""

    tenant: str
    shard: int
    error: Failure | None = None


@dataclass(slots=True)
class State:
    """Everything that the journal says, up to `seq`.

    waiting: tasks of each tenant that are live and do not run. dead, dead_flows: what ended
    without success, oldest first, with the time of its end.
    """

    seq: int = 0
    at_ms: int = 0
    epoch: int = 0
    router: str = ""
    snapshot: Snapshot | None = None
    accounts: Accounts = field(default_factory=Accounts)
    tasks: dict[str, Task] = field(default_factory=dict)
    flows: dict[str, Flow] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    running: Tally[tuple[str, str]] = field(default_factory=Tally)
    boxes: Tally[str] = field(default_factory=Tally)
    waiting: Tally[str] = field(default_factory=Tally)
    dead: OrderedDict[str, tuple[int, Task]] = field(default_factory=OrderedDict)
    dead_flows: OrderedDict[str, tuple[int, Flow]] = field(default_factory=OrderedDict)
    nonces: OrderedDict[tuple[str, str], tuple[str, int]] = field(default_factory=OrderedDict)
    keys: dict[str, OrderedDict[str, tuple[str, int]]] = field(default_factory=dict)
    merges: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    to_expand: dict[tuple[str, str], None] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    finished: Tally[str] = field(default_factory=Tally)
    void: int = 0
    fresh: deque[str] = field(default_factory=deque)

    def add(self, task: Task) -> None:
        """A task is live from here on, and waits."""
        self.tasks[task.id] = task
        self.waiting[task.tenant] += 1
        self.fresh.append(task.id)

    def remove(self, task: Task) -> None:
        """A task that waits is live no longer."""
        del self.tasks[task.id]
        self.stop_waiting(task.tenant)

    def stop_waiting(self, tenant: str) -> None:
        """One task of the tenant runs, or has ended."""
        left = self.waiting[tenant] - 1
        if left:
            self.waiting[tenant] = left
        else:
            del self.waiting[tenant]
