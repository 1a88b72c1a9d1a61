"""The ledger's rows as JSON objects whose names are the tables' columns, and back.

A column that is NULL is left out. Postgres can keep no NUL in a text, so it is left out of every
one. An error goes without its trace, which may be long and stands in the journal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from callboard_broker.wire import Failure
from callboard_ledger.budgets import Draws
from callboard_ledger.rows import CommandRow, Flow, FlowStep, Merge, Row, Schedule, Task
from callboard_ledger.viewing import view
from callboard_ledger.views import FlowView

__all__ = [
    "command_of",
    "document_of",
    "flow_of",
    "kind_of",
    "merge_of",
    "schedule_of",
    "task_of",
    "without_nul",
]

T = TypeVar("T", bound=msgspec.Struct)

_encoder = msgspec.json.Encoder()
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)(?:\\u0000)+")


def _columns(names: str) -> list[str]:
    return names.split()


_TASK = _columns(
    "seq id tenant capability state attempt lost unstarted errors generation priority shard "
    "posted_at dispatched_at ended_at host dispatch_seq end_seq flow step idx parent not_before "
    "cancel paused used past payload_seq agent draws"
)
_FLOW = _columns(
    "seq id tenant name state generation posted_at ended_at end_seq shard flow step idx cancel "
    "paused used past edits woken"
)
_SCHEDULE = _columns(
    "seq id tenant capability cron state priority posted_at ended_at end_seq shard number next_at "
    "cancel paused draws"
)
_COMMAND = _columns(
    "seq tenant verb target by reason shard posted_at end_seq state source edits done"
)


def kind_of(row: Row | Merge) -> str:
    """The name of a row's kind, as the database's functions know it."""
    return _KINDS[type(row)]


_KINDS: dict[type, str] = {
    Task: "task",
    Flow: "flow",
    Schedule: "schedule",
    CommandRow: "command",
    Merge: "merge",
}


def document_of(row: Row | Merge) -> bytes:
    """The row's JSON."""
    if isinstance(row, Task):
        found = _present(row, _TASK)
        if row.failure is not None:
            found["error"] = _error(row.failure)
        if row.secret or row.void:
            found["secret"] = row.secret
            found["void"] = row.void
    elif isinstance(row, Flow):
        found = _present(row, _FLOW)
        if row.error is not None:
            found["error"] = _error(row.error)
        shown = view(row)
        if isinstance(shown, FlowView):
            found["steps"], found["waits"] = shown.steps, shown.waits
        found["plan"] = list(row.steps.values())
    elif isinstance(row, Merge):
        found = {"seq": row.seq, "tenant": row.tenant, "same_as": row.same_as}
    else:
        found = _present(row, _SCHEDULE if isinstance(row, Schedule) else _COMMAND)
        if row.error is not None:
            found["error"] = _error(row.error)
    return without_nul(_encoder.encode(found))


def without_nul(document: bytes) -> bytes:
    r"""JSON without the escape `\u0000`, which Postgres refuses."""
    return _NUL.sub(rb"\1", document) if b"\\u0000" in document else document


def _present(row: Row, names: list[str]) -> dict[str, Any]:
    found = {name: getattr(row, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _error(failure: Failure) -> Failure:
    if failure.trace is None:
        return failure
    return msgspec.structs.replace(failure, trace=None)


def task_of(columns: Mapping[str, Any], secret: Mapping[str, Any] | None = None) -> Task:
    """The task of these columns; with the columns of its secret, as the fold knows it."""
    fields: dict[str, Any] = {name: columns.get(name) for name in _TASK}
    error, agent, draws = columns.get("error"), columns.get("agent"), columns.get("draws")
    fields["draws"] = None if draws is None else msgspec.convert(draws, Draws)
    fields["agent"] = None if agent is None else tuple(agent)
    task = Task(**fields, failure=None if error is None else msgspec.convert(error, Failure))
    found = secret or columns
    task.secret = found.get("secret") or ""
    void = found.get("void")
    if void:
        task.void = {int(attempt): value for attempt, value in void.items()}
    return task


def flow_of(columns: Mapping[str, Any]) -> Flow:
    """The workflow of these columns, without its elements."""
    fields: dict[str, Any] = {name: columns.get(name) for name in _FLOW}
    steps = msgspec.convert(columns["plan"], list[FlowStep])
    error = columns.get("error")
    return Flow(
        **fields,
        error=None if error is None else msgspec.convert(error, Failure),
        steps={step.plan.id: step for step in steps},
        rows={},
        stored=True,
    )


def schedule_of(columns: Mapping[str, Any]) -> Schedule:
    """The schedule of these columns."""
    return _convert(columns, Schedule)


def command_of(columns: Mapping[str, Any]) -> CommandRow:
    """The command of these columns."""
    return _convert(columns, CommandRow)


def merge_of(columns: Mapping[str, Any]) -> Merge:
    """The repeated post of these columns."""
    return _convert(columns, Merge)


def _convert(columns: Mapping[str, Any], kind: type[T]) -> T:
    known = msgspec.structs.fields(kind)
    return msgspec.convert({f.name: columns[f.name] for f in known if f.name in columns}, kind)
