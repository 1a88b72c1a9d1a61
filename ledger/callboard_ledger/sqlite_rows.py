"""How tasks and workflows stand in SQLite: the tables, and each row as a tuple and back.

What most rows of a table have is a column of its own; the rest is one JSON object, `more`, which is
NULL for an ordinary task. Each table's first columns never change once a row is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from callboard_broker.wire import Failure
from callboard_ledger.budgets import Draws
from callboard_ledger.rows import Flow, FlowStep, StepPlan, Task

__all__ = [
    "FLOW_COLUMNS",
    "PUT_FLOW",
    "PUT_POSITION",
    "PUT_TASK",
    "SCHEMA",
    "TABLES",
    "TASK_COLUMNS",
    "error_text",
    "flow_of",
    "flow_row",
    "task_of",
    "task_row",
    "upsert",
]

SCHEMA = 5
"""A database of another one is built anew from the journal."""

TABLES = {
    "position": """CREATE TABLE position (
        stream TEXT PRIMARY KEY, created TEXT NOT NULL, seq INTEGER NOT NULL,
        at INTEGER NOT NULL, epoch INTEGER NOT NULL, void INTEGER NOT NULL,
        malformed INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "tasks": """CREATE TABLE tasks (
        seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, capability TEXT NOT NULL,
        state TEXT NOT NULL, attempt INTEGER NOT NULL, lost INTEGER NOT NULL, secret TEXT NOT NULL,
        error TEXT, priority INTEGER NOT NULL, shard INTEGER, posted_at INTEGER,
        dispatched_at INTEGER, ended_at INTEGER, host TEXT, dispatch_seq INTEGER, end_seq INTEGER,
        flow TEXT, step TEXT, idx INTEGER, more TEXT
    );
    CREATE INDEX tasks_of_tenant ON tasks (tenant, seq);
    CREATE INDEX tasks_of_capability ON tasks (capability, seq);
    CREATE INDEX tasks_in_state ON tasks (state, seq) WHERE state <> 'succeeded';
    CREATE UNIQUE INDEX tasks_of_flow ON tasks (flow, step, idx) WHERE flow IS NOT NULL""",
    "flows": """CREATE TABLE flows (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL, tenant TEXT NOT NULL, name TEXT NOT NULL,
        flow TEXT, step TEXT, idx INTEGER, plan TEXT NOT NULL,
        state TEXT NOT NULL, posted_at INTEGER NOT NULL, ended_at INTEGER, end_seq INTEGER,
        shard INTEGER, error TEXT, counts TEXT NOT NULL, more TEXT
    );
    CREATE UNIQUE INDEX flows_by_id ON flows (id);
    CREATE INDEX flows_of_tenant ON flows (tenant, seq);
    CREATE INDEX flows_in_state ON flows (state, seq) WHERE state <> 'succeeded';
    CREATE INDEX flows_of_flow ON flows (flow, seq) WHERE flow IS NOT NULL""",
    "merges": """CREATE TABLE merges (
        seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, same_as TEXT NOT NULL
    )""",
}

TASK_COLUMNS = (
    "seq, tenant, capability, state, attempt, lost, secret, error, priority, shard, posted_at, "
    "dispatched_at, ended_at, host, dispatch_seq, end_seq, flow, step, idx, more"
)
FLOW_COLUMNS = (
    "seq, id, tenant, name, flow, step, idx, plan, "
    "state, posted_at, ended_at, end_seq, shard, error, counts, more"
)


def upsert(table: str, columns: str, kept: int) -> str:
    """An upsert by `seq` that leaves the first `kept` columns as they are (and their indexes)."""
    names = columns.split(", ")
    changed = ", ".join(f"{name} = excluded.{name}" for name in names[kept:])
    places = ", ".join("?" * len(names))
    return (
        f"INSERT INTO {table} ({columns}) VALUES ({places}) "  # noqa: S608  constants, see above
        f"ON CONFLICT (seq) DO UPDATE SET {changed}"
    )


PUT_TASK = upsert("tasks", TASK_COLUMNS, 3)
PUT_FLOW = upsert("flows", FLOW_COLUMNS, 8)
PUT_POSITION = "INSERT OR REPLACE INTO position VALUES (?, ?, ?, ?, ?, ?, ?)"


class _TaskMore(msgspec.Struct, omit_defaults=True):
    unstarted: int = 0
    errors: int = 0
    generation: int = 0
    parent: str | None = None
    not_before: int | None = None
    cancel: str | None = None
    paused: bool = False
    used: dict[str, float] | None = None
    void: dict[int, str] | None = None
    past: list[int] | None = None
    payload_seq: int | None = None
    agent: tuple[str, str] | None = None
    checkpoints: int = 0
    draws: Draws | None = None


class _FlowMore(msgspec.Struct, omit_defaults=True):
    generation: int = 0
    cancel: str | None = None
    paused: bool = False
    used: dict[str, float] | None = None
    past: list[int] | None = None
    edits: list[int] | None = None
    woken: bool = False


_json = msgspec.json.Encoder()
_failure = msgspec.json.Decoder(Failure)
_plans = msgspec.json.Decoder(list[StepPlan])
_counts = msgspec.json.Decoder(list[tuple[int | None, int, int, int, int, int, int]])
_task_more = msgspec.json.Decoder(_TaskMore)
_flow_more = msgspec.json.Decoder(_FlowMore)
_TASK_REST = _TaskMore.__struct_fields__
_FLOW_REST = _FlowMore.__struct_fields__
_TASK_NAMES = TASK_COLUMNS.split(", ")
_FLOW_NAMES = FLOW_COLUMNS.split(", ")


def task_row(task: Task) -> tuple[object, ...]:
    """As `PUT_TASK` takes it."""
    failure = task.failure
    return (
        task.seq,
        task.tenant,
        task.capability,
        task.state,
        task.attempt,
        task.lost,
        task.secret,
        None if failure is None else error_text(failure),
        task.priority,
        task.shard,
        task.posted_at,
        task.dispatched_at,
        task.ended_at,
        task.host,
        task.dispatch_seq,
        task.end_seq,
        task.flow,
        task.step,
        task.idx,
        _rest_of(task) if _is_special(task) else None,
    )


def _is_special(task: Task) -> object:
    return (
        task.used
        or task.past
        or task.parent
        or task.not_before
        or task.cancel
        or task.generation
        or task.errors
        or task.unstarted
        or task.paused
        or task.void
        or task.payload_seq
        or task.agent
        or task.checkpoints
        or task.draws
    )


def _rest_of(task: Task) -> str:
    return _json.encode(_TaskMore(*[getattr(task, name) for name in _TASK_REST])).decode()


def task_of(row: Sequence[Any]) -> Task:
    """The task that `TASK_COLUMNS` describe."""
    fields = dict(zip(_TASK_NAMES, row, strict=True))
    error, more = fields.pop("error"), fields.pop("more")
    task = Task(**fields, failure=None if error is None else _failure.decode(error))
    step = task.step
    task.id = str(task.seq) if step is None else f"{task.flow}.{step}.{task.idx}"
    if more is not None:
        rest = _task_more.decode(more)
        for name in _TASK_REST:
            setattr(task, name, getattr(rest, name))
    return task


def flow_row(flow: Flow) -> tuple[object, ...]:
    """As `PUT_FLOW` takes it. What a plan says never changes: it is written once."""
    steps = flow.steps.values()
    plan = [] if flow.stored else [step.plan for step in steps]
    rest = _FlowMore(*[getattr(flow, name) for name in _FLOW_REST])
    more = _json.encode(rest)
    return (
        flow.seq,
        flow.id,
        flow.tenant,
        flow.name,
        flow.flow,
        flow.step,
        flow.idx,
        _json.encode(plan).decode(),
        flow.state,
        flow.posted_at,
        flow.ended_at,
        flow.end_seq,
        flow.shard,
        None if flow.error is None else error_text(flow.error),
        _json.encode(
            [
                (s.total, s.running, s.succeeded, s.failed, s.cancelled, s.skipped, s.done_at)
                for s in steps
            ]
        ).decode(),
        None if more == b"{}" else more.decode(),
    )


def flow_of(row: Sequence[Any]) -> Flow:
    """The workflow that `FLOW_COLUMNS` describe; without its elements."""
    fields = dict(zip(_FLOW_NAMES, row, strict=True))
    error, more = fields.pop("error"), fields.pop("more")
    plans, counts = _plans.decode(fields.pop("plan")), _counts.decode(fields.pop("counts"))
    flow = Flow(
        **fields,
        error=None if error is None else _failure.decode(error),
        steps={
            plan.id: FlowStep(plan, *counted) for plan, counted in zip(plans, counts, strict=True)
        },
        rows={},
        stored=True,
    )
    if more is not None:
        rest = _flow_more.decode(more)
        for name in _FLOW_REST:
            setattr(flow, name, getattr(rest, name))
    return flow


def error_text(failure: Failure) -> str:
    """Without the trace, which may be long: it stands in the journal."""
    kept = Failure(
        failure.type,
        failure.message,
        field=failure.field,
        final=failure.final,
        retry_after=failure.retry_after,
    )
    return _json.encode(kept).decode()
