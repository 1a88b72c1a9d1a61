"""What happened, for the tracker: one activity for each event that changed something.

Its id is derived from the event's place in the journal, so that it is written once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from callboard_broker.graph import UNDO
from callboard_broker.record import Record
from callboard_broker.wire import (
    Command,
    Dispatch,
    Entered,
    Expanded,
    Fired,
    FlowRun,
    Halted,
    Lost,
    Merged,
    Outcome,
    Post,
    Retrying,
    Settled,
    Skipped,
)
from callboard_integrations.cerebral.documents import at_text, is_pulled
from callboard_integrations.cerebral.names import Names, source_of
from callboard_ledger.reading import Reading
from callboard_ledger.rows import Changes

__all__ = ["Activities", "step_name"]

_ACTIONS: dict[type, str] = {
    Dispatch: "task.started",
    Entered: "workflow.entered",
    Expanded: "step.expanded",
    Fired: "task.scheduled",
    FlowRun: "workflow.posted",
    Halted: "workflow.halted",
    Lost: "task.lost",
    Merged: "task.repeated",
    Post: "task.posted",
    Retrying: "task.retrying",
    Skipped: "task.skipped",
}


class _Place(NamedTuple):
    """The row that an event is about."""

    row: str
    kind: str


class Activities:
    """Those of one batch."""

    def __init__(self, names: Names, stream: str, changes: Changes) -> None:
        self._names = names
        self._stream = stream
        self._pulled = {flow.id: is_pulled(flow) for flow in changes.flows}
        self._scheduled = {task.id for task in changes.tasks if task.scheduled}

    def of(self, record: Record, reading: Reading) -> dict[str, Any] | None:
        """The activity of an event that counts; None if it is none of the tracker's."""
        resource = _resource(reading)
        place = None if resource is None else self._place(resource, reading.event)
        if place is None:
            return None
        action, more = _action(reading, place.kind)
        names = self._names
        return {
            "activity_id": names.activity(self._stream, record.seq),
            "tenant_id": names.tenant(reading.address.tenant),
            "actor": names.actor(reading.actor),
            "action": action,
            "resource_type": place.kind,
            "resource_id": place.row,
            "metadata": {"seq": record.seq, "task": resource, "actor": reading.actor[:200], **more},
            "timestamp": at_text(record.at_ns // 1_000_000),
        }

    def _place(self, resource: str, event: object) -> _Place | None:
        pulled = self._pulled.get(resource)
        if pulled is not None:
            return None if pulled else self._own(resource, "workflow")
        outer = step_name(resource)
        if outer is None or resource in self._scheduled or isinstance(event, Fired):
            return self._own(resource, "task")
        flow, _, step = outer.rpartition(".")
        if step == UNDO:
            return self._own(flow, "workflow")
        source = source_of(step)
        return self._own(outer, "task") if source is None else _Place(source, "task")

    def _own(self, resource: str, kind: str) -> _Place:
        return _Place(self._names.row(self._stream, resource), kind)


def step_name(resource: str) -> str | None:
    """`4711.build` of its element `4711.build.3`; None for what has no such id."""
    outer, dot, _ = resource.rpartition(".")
    return outer if dot and "." in outer else None


def _resource(reading: Reading) -> str | None:
    event = reading.event
    if isinstance(event, Expanded):
        return f"{event.task}.{event.step}.0" if event.step else event.task
    if isinstance(event, Fired):
        return f"{event.task}.cron.{event.number}" if event.number else None
    if isinstance(event, Command | Outcome | Settled) or type(event) in _ACTIONS:
        return reading.resource or None
    return None


def _action(reading: Reading, kind: str) -> tuple[str, dict[str, Any]]:
    event = reading.event
    if isinstance(event, Command):
        return f"{reading.address.rest}.asked", {"by": event.by, "reason": event.reason[:200]}
    if isinstance(event, Outcome):
        more: dict[str, Any] = {"attempt": event.attempt}
        if event.error is None:
            return "task.succeeded", more
        return "task.attempt_failed", more | {"error": event.error.type}
    if isinstance(event, Settled):
        error = {} if event.error is None else {"error": event.error.type}
        return f"{kind}.{event.state}", error
    more = {"attempt": event.attempt} if isinstance(event, Dispatch | Lost | Retrying) else {}
    return _ACTIONS[type(event)], more
