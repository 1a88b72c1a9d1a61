"""What the ledger answers: the public shape of a task and of a workflow, in JSON.

Payloads and results stand in the journal; they are read from there when somebody asks. Those that
are blobs are given as references. Times are Unix milliseconds of the server's clock.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, UnsetType

from callboard_broker.rule import TaskState
from callboard_broker.wire import BlobRef, Failure
from callboard_ledger.rows import Flow, Task

__all__ = [
    "Answer",
    "Complaint",
    "ErrorView",
    "FlowView",
    "ListView",
    "PositionView",
    "StepView",
    "TaskView",
    "view",
]


class TaskView(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="task"):
    """A task. error: of the last attempt, or why it ended. same_as: set if the id that was asked
    for is a repeated post: this is the task that it repeats. result, payload: present if asked for
    and there; result_blob, payload_blob: where they are, if they are long."""

    id: str
    tenant: str
    capability: str
    state: TaskState
    attempt: int
    lost: int
    priority: int
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
    error: Failure | None = None
    same_as: str | None = None
    payload: Raw | UnsetType = UNSET
    payload_blob: BlobRef | None = None
    result: Raw | UnsetType = UNSET
    result_blob: BlobRef | None = None


class StepView(msgspec.Struct, kw_only=True):
    """A step, counted. total: None while nobody knows how many elements a fan-out has."""

    id: str
    capability: str
    state: TaskState
    total: int | None
    waiting: int
    running: int
    succeeded: int
    failed: int


class FlowView(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="kind", tag="flow"):
    """A workflow. steps: each after those that it depends on."""

    id: str
    tenant: str
    name: str
    state: TaskState
    steps: list[StepView]
    shard: int | None = None
    posted_at: int | None = None
    ended_at: int | None = None
    post_seq: int | None = None
    end_seq: int | None = None
    error: Failure | None = None
    same_as: str | None = None
    payload: Raw | UnsetType = UNSET
    payload_blob: BlobRef | None = None
    result: Raw | UnsetType = UNSET
    result_blob: BlobRef | None = None


class ListView(msgspec.Struct):
    """Rows, the newest first; ask again `before` the last one's id for more."""

    items: list[TaskView | FlowView]
    position: int


class PositionView(msgspec.Struct, omit_defaults=True):
    """How far the ledger is. position: folded. last: stored in the journal. audited: in AUDIT.
    saved: in the store. audit_problem: why nothing more is audited, if so."""

    position: int
    last: int
    audited: int
    saved: int
    void: int
    malformed: int
    audit_problem: str | None = None


class Complaint(msgspec.Struct):
    """type: an error's class, such as `UnknownTask` or `BadInput`. field: what must change."""

    type: str
    message: str
    field: str | None = None


class ErrorView(msgspec.Struct):
    """Why there is no answer."""

    error: Complaint


Answer = TaskView | FlowView | ListView | PositionView | ErrorView


def view(row: Task | Flow) -> TaskView | FlowView:
    """The public shape of a row, without payload and result."""
    if isinstance(row, Flow):
        return FlowView(
            id=row.id,
            tenant=row.tenant,
            name=row.name,
            state=row.state,
            steps=[
                StepView(
                    id=step.id,
                    capability=step.capability,
                    state=step.state,
                    total=step.total,
                    waiting=step.waiting,
                    running=step.running,
                    succeeded=step.succeeded,
                    failed=step.failed,
                )
                for step in row.steps.values()
            ],
            shard=row.shard,
            posted_at=row.posted_at,
            ended_at=row.ended_at,
            post_seq=row.seq,
            end_seq=row.end_seq,
            error=row.error,
        )
    return TaskView(
        id=row.id,
        tenant=row.tenant,
        capability=row.capability,
        state=row.state,
        attempt=row.attempt,
        lost=row.lost,
        priority=row.priority,
        shard=row.shard,
        posted_at=row.posted_at,
        dispatched_at=row.dispatched_at,
        ended_at=row.ended_at,
        host=row.host,
        post_seq=row.post_seq,
        dispatch_seq=row.dispatch_seq,
        end_seq=row.end_seq,
        flow=None if row.flow is None else str(row.flow),
        step=row.step,
        index=row.idx,
        error=None if row.state == "succeeded" else row.failure,
    )
