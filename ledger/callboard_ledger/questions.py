"""What may be asked of the ledger (`cb.ask.<tenant>.<verb>`); an unknown field is refused."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from callboard_broker.rule import TaskState

__all__ = [
    "VERBS",
    "AgentsQuestion",
    "AllocationsQuestion",
    "BudgetsQuestion",
    "FailuresQuestion",
    "Grouping",
    "HistoryQuestion",
    "ListQuestion",
    "LogsQuestion",
    "PositionQuestion",
    "Question",
    "StatsQuestion",
    "StatusQuestion",
]

Id = Annotated[str, Meta(min_length=1, max_length=512)]
Word = Annotated[str, Meta(min_length=1, max_length=128)]
Time = Annotated[int, Meta(ge=0, le=1 << 53)]


class StatusQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task, workflow, schedule or command. fresh: answer only when everything stored by now
    has been folded. payload, result: whether to fetch them from the journal, the result with what
    the last outcome says of usage and layers; why: likewise what the router knew when it
    dispatched the task."""

    id: Id
    fresh: bool = False
    payload: bool = False
    result: bool = True
    why: bool = False


class ListQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tasks, workflows and schedules, the newest first, below the id `before`.

    capability: of tasks and schedules. name: of workflows. flow: the steps and sub-workflows of
    this workflow and what its steps spawned, or the tasks of this schedule. dead: only what has
    failed or expired.
    """

    state: TaskState | None = None
    kind: Literal["task", "flow", "schedule"] | None = None
    capability: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    name: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    flow: Id | None = None
    dead: bool = False
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    before: Id | None = None
    fresh: bool = False


class HistoryQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happened to one task or workflow, as far as the journal has it."""

    id: Id
    fresh: bool = False


class LogsQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the handlers of a task and of everything below it have logged, in the order in which it
    came. level: the least. after: the `next` of the answer before. last: only so many of the
    newest. fresh: answer only when every line stored by now is read."""

    id: Id
    level: Annotated[str, Meta(max_length=16)] = "debug"
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    last: Annotated[int, Meta(ge=1, le=1000)] | None = None
    fresh: bool = False


class PositionQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the ledger is. archive: up to this event somebody wants to purge the journal: what is
    not archived of it begins to be."""

    archive: Annotated[int, Meta(ge=0)] = 0


Grouping = Literal["hour", "tenant", "capability", "agent", "version"]


class StatsQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How agents and capabilities perform, grouped; `agent` tells its version with it.

    since, until: Unix milliseconds; whole hours are told.
    """

    by: Annotated[tuple[Grouping, ...], Meta(max_length=5)] = ("capability",)
    capability: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    since: Time | None = None
    until: Time | None = None
    fresh: bool = False


class FailuresQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which kinds of failures there were, the most frequent first. type: of the error. since: that
    occurred again after this time, Unix milliseconds."""

    capability: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    type: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    since: Time | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    fresh: bool = False


class AgentsQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The hosts of agents, sorted by pool and name, from `pool/host` `after` on.

    capability: that offer it. at_once: also how many attempts each has run at the same time, among
    the last 20,000 of the board. fresh: answer only when every beat stored by now is read.
    """

    pool: Word | None = None
    host: Word | None = None
    capability: Word | None = None
    state: Literal["here", "silent", "gone"] | None = None
    at_once: bool = False
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: Annotated[str, Meta(max_length=200)] | None = None
    fresh: bool = False


class AllocationsQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What attempts hold and have held, the last dispatch first, below the sequence `before`.
    held: only what is not returned. capability: of the queue that it was dispatched to."""

    pool: Word | None = None
    host: Word | None = None
    capability: Word | None = None
    held: bool = False
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    before: Annotated[int, Meta(ge=0, le=1 << 53)] | None = None
    fresh: bool = False


class BudgetsQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What limits budgets, and how much of them is taken, sorted by their keys, from `after` on."""

    key: Annotated[str, Meta(max_length=300)] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000
    after: Annotated[str, Meta(max_length=300)] | None = None
    fresh: bool = False


Question = (
    AgentsQuestion
    | AllocationsQuestion
    | BudgetsQuestion
    | StatusQuestion
    | ListQuestion
    | HistoryQuestion
    | LogsQuestion
    | PositionQuestion
    | StatsQuestion
    | FailuresQuestion
)

VERBS: dict[str, type[Question]] = {
    "agents": AgentsQuestion,
    "allocations": AllocationsQuestion,
    "budgets": BudgetsQuestion,
    "failures": FailuresQuestion,
    "history": HistoryQuestion,
    "list": ListQuestion,
    "logs": LogsQuestion,
    "position": PositionQuestion,
    "stats": StatsQuestion,
    "status": StatusQuestion,
}
