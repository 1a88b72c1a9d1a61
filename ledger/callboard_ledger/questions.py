"""What may be asked of the ledger (`cb.ask.<tenant>.<verb>`); an unknown field is refused."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from callboard_broker.rule import TaskState

__all__ = [
    "VERBS",
    "HistoryQuestion",
    "ListQuestion",
    "PositionQuestion",
    "Question",
    "StatusQuestion",
]

Id = Annotated[str, Meta(min_length=1, max_length=512)]


class StatusQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task, workflow, schedule or command. fresh: answer only when everything stored by now
    has been folded. payload, result: whether to fetch them from the journal; why: likewise what
    the router knew when it dispatched the task."""

    id: Id
    fresh: bool = False
    payload: bool = False
    result: bool = True
    why: bool = False


class ListQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tasks, workflows and schedules, the newest first, below the id `before`.

    capability: of tasks and schedules. flow: the steps and sub-workflows of this workflow and what
    its steps spawned, or the tasks of this schedule. dead: only what has failed or expired.
    """

    state: TaskState | None = None
    kind: Literal["task", "flow", "schedule"] | None = None
    capability: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    flow: Id | None = None
    dead: bool = False
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    before: Id | None = None
    fresh: bool = False


class HistoryQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What happened to one task or workflow, as far as the journal has it."""

    id: Id
    fresh: bool = False


class PositionQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the ledger is."""


Question = StatusQuestion | ListQuestion | HistoryQuestion | PositionQuestion

VERBS: dict[str, type[Question]] = {
    "history": HistoryQuestion,
    "list": ListQuestion,
    "position": PositionQuestion,
    "status": StatusQuestion,
}
