"""What the ledger answers: the public shape of tasks, workflows, schedules and commands, in JSON.

Payloads and results stand in the journal; they are read from there when somebody asks. Those that
are blobs are given as references. Times are Unix milliseconds of the server's clock.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from callboard_broker.log_lines import LoggedLine
from callboard_broker.rule import TaskState
from callboard_broker.wire import BlobRef, Failure, Usage
from callboard_ledger.figures import FailuresView, FiguresView
from callboard_ledger.holding_views import AgentsView, AllocationsView, BudgetsView

__all__ = [
    "Answer",
    "AttemptView",
    "CommandView",
    "Complaint",
    "ErrorView",
    "FlowView",
    "HistoryView",
    "ListView",
    "LogsView",
    "PositionView",
    "RowView",
    "ScheduleView",
    "StepView",
    "TaskView",
]


class TaskView(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="task"):
    """A task.

    attempt: the last one. lost, unstarted: attempts of this generation that were declared void
    while a host held them, or before; errors: that were followed by a retry. error: of the last
    attempt, or why it ended. generation: how often it was started again after its end.
    flow, step, index: whose step it is; flow alone: the workflow for which a step spawned it.
    schedule: what made it. parent: the task that spawned it. not_before: when it may start at the
    earliest. cancel: why it is asked to end. used: units that all its attempts have used.
    checkpoints: that the last attempt has left so far.
    waits: what a gate waits for: `approval`, or `signal NAME`. prompt: what the person is asked.
    same_as: set if the id that was asked for is a repeated post: this is the task that it repeats.
    why: what the router knew at the last dispatch, if asked for. result, payload: present if asked
    for and there; result_blob, payload_blob: where they are, if they are long. usage, layers: of
    the last attempt that had an outcome, as the outcome has them; they come with the result.
    """

    id: str
    tenant: str
    capability: str
    state: TaskState
    attempt: int
    lost: int
    priority: int
    unstarted: int = 0
    errors: int = 0
    generation: int = 0
    checkpoints: int = 0
    shard: int | None = None
    posted_at: int | None = None
    dispatched_at: int | None = None
    ended_at: int | None = None
    host: str | None = None
    post_seq: int | None = None
    dispatch_seq: int | None = None
    end_seq: int | None = None
    flow: str | None = None
    step: str | None = None
    index: int | None = None
    schedule: str | None = None
    parent: str | None = None
    not_before: int | None = None
    cancel: str | None = None
    paused: bool = False
    used: dict[str, float] | None = None
    usage: Usage | None = None
    layers: list[str] = []
    waits: str | None = None
    prompt: str | None = None
    error: Failure | None = None
    same_as: str | None = None
    why: dict[str, Any] | None = None
    payload: Raw | UnsetType = UNSET
    payload_blob: BlobRef | None = None
    result: Raw | UnsetType = UNSET
    result_blob: BlobRef | None = None


class StepView(msgspec.Struct, kw_only=True):
    """A step, counted by its elements. total: None while nobody knows how many a fan-out has.

    capability: empty for a gate and for a workflow inside. failed: failed or expired. waits: while
    nothing of it has begun, what for: `approval`, `signal NAME`, or `steps plan, build`.
    """

    id: str
    capability: str
    state: TaskState
    total: int | None
    waiting: int
    running: int
    succeeded: int
    failed: int
    cancelled: int = 0
    skipped: int = 0
    waits: str | None = None
    prompt: str | None = None


class FlowView(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="flow"):
    """A workflow. steps: each after those that it depends on. flow, step, index: the element of
    another workflow that it is. waits: the ids of its open gates, and what each waits for."""

    id: str
    tenant: str
    name: str
    state: TaskState
    steps: list[StepView]
    generation: int = 0
    shard: int | None = None
    posted_at: int | None = None
    ended_at: int | None = None
    post_seq: int | None = None
    end_seq: int | None = None
    flow: str | None = None
    step: str | None = None
    index: int | None = None
    cancel: str | None = None
    paused: bool = False
    used: dict[str, float] | None = None
    waits: dict[str, str] = {}
    error: Failure | None = None
    same_as: str | None = None
    payload: Raw | UnsetType = UNSET
    payload_blob: BlobRef | None = None
    result: Raw | UnsetType = UNSET
    result_blob: BlobRef | None = None


class ScheduleView(
    msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="schedule"
):
    """A schedule. state: `waiting`, until it ends. number: tasks so far. last: the last one's id.
    next_at: when it makes the next one."""

    id: str
    tenant: str
    capability: str
    state: TaskState
    expression: str
    zone: str
    overlap: bool
    number: int
    priority: int
    next_at: int | None = None
    last: str | None = None
    shard: int | None = None
    posted_at: int | None = None
    ended_at: int | None = None
    post_seq: int | None = None
    end_seq: int | None = None
    cancel: str | None = None
    paused: bool = False
    error: Failure | None = None
    same_as: str | None = None
    payload: Raw | UnsetType = UNSET
    payload_blob: BlobRef | None = None
    result: Raw | UnsetType = UNSET
    result_blob: BlobRef | None = None


class CommandView(
    msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="command"
):
    """What was asked of `target`. state: `waiting`, until the router has answered; then
    `succeeded`, or `failed` with the `error` if it was refused."""

    id: str
    tenant: str
    verb: str
    target: str
    state: TaskState
    by: str = ""
    reason: str = ""
    shard: int | None = None
    posted_at: int | None = None
    end_seq: int | None = None
    error: Failure | None = None
    same_as: str | None = None
    result: Raw | UnsetType = UNSET
    result_blob: BlobRef | None = None


RowView = TaskView | FlowView | ScheduleView | CommandView


class ListView(msgspec.Struct):
    """Rows, the newest first; ask again `before` the last one's id for more."""

    items: list[TaskView | FlowView | ScheduleView]
    position: int


class AttemptView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One attempt. state: `running`, `succeeded`, `failed` or `lost`. started_at, ended_at: as its
    host says; void_at: when it was declared lost, and reason: why. retry_at: another one follows,
    not before that. usage, layers: as its outcome has them. why: what the router knew at the
    dispatch."""

    attempt: int
    state: str
    seq: int | None = None
    dispatched_at: int | None = None
    started_at: int | None = None
    ended_at: int | None = None
    void_at: int | None = None
    pool: str | None = None
    capability: str | None = None
    host: str | None = None
    error: Failure | None = None
    reason: str | None = None
    retry_at: int | None = None
    used: dict[str, float] | None = None
    usage: Usage | None = None
    layers: list[str] = []
    why: dict[str, Any] | None = None


class HistoryView(msgspec.Struct, kw_only=True):
    """What happened to a task or workflow: its attempts, what was asked of it, and how it ended
    each time. complete: nothing of it has left the journal or the ledger's memory."""

    id: str
    state: TaskState
    generation: int
    attempts: list[AttemptView]
    commands: list[CommandView]
    ends: list[EndView]
    complete: bool


class EndView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A terminal event that is no attempt's: the router's word. reason: why it was skipped."""

    seq: int
    at: int
    state: TaskState
    reason: str | None = None
    error: Failure | None = None


class PositionView(msgspec.Struct, omit_defaults=True):
    """How far the ledger is. position: folded. last: stored in the journal. audited: in AUDIT.
    saved: in the store. archived: in the archive, or what may be purged where there is none.
    audit_problem: why nothing more is audited, if so. logs, logs_last: how far the lines of
    handlers are read, and where they end."""

    position: int
    last: int
    audited: int
    saved: int
    void: int
    malformed: int
    archived: int = 0
    audit_problem: str | None = None
    logs: int = 0
    logs_last: int = 0


class LogsView(msgspec.Struct):
    """Lines of a task. id: of the task that was meant. next: from where the next question goes on.
    more: there are further lines already."""

    id: str
    lines: list[LoggedLine]
    next: int
    more: bool


class Complaint(msgspec.Struct):
    """type: an error's class, such as `UnknownTask` or `BadInput`. field: what must change."""

    type: str
    message: str
    field: str | None = None


class ErrorView(msgspec.Struct):
    """Why there is no answer."""

    error: Complaint


Answer = (
    RowView
    | AgentsView
    | AllocationsView
    | BudgetsView
    | ListView
    | HistoryView
    | LogsView
    | PositionView
    | FiguresView
    | FailuresView
    | ErrorView
)
