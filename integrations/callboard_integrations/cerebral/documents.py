"""The tracker's rows of tasks, steps and workflows, as JSON objects named by its columns.

What belongs to Callboard alone stands under `callboard` in the metadata: the tracker's people own
title, description, estimate and assignee once the row is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from callboard_broker.wire import Failure
from callboard_integrations.cerebral.describing import Description
from callboard_integrations.cerebral.names import Names, source_of
from callboard_integrations.cerebral.standing import (
    Standing,
    of_flow,
    of_step,
    of_task,
    priority,
)
from callboard_ledger.rows import Flow, Merge, Task
from callboard_ledger.viewing import view
from callboard_ledger.views import FlowView

__all__ = ["Writer", "at_text", "is_pulled"]

_HOUR_MS = 3_600_000
_MESSAGE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Makes documents of one batch. position: of the batch, by which a later word is told from an
    earlier one. at_ms: the time of what has no event of its own in the batch."""

    names: Names
    stream: str
    position: int
    at_ms: int

    def task(self, task: Task, said: Description, at_ms: int) -> dict[str, Any]:
        """A task that is no step."""
        own = {"task": task.id, "kind": "task", "capability": task.capability}
        own |= {"attempt": task.attempt} | _present(host=task.host, parent=task.parent)
        if task.flow is not None:
            own["flow"] = task.flow
        found = self._row(task.tenant, self.names.row(self.stream, task.id), of_task(task), own)
        ran = _hours(task.dispatched_at, task.ended_at)
        return (
            found
            | self._new(said, task.priority, task.posted_at, said.title or task.capability)
            | {
                "updated_at": at_text(at_ms),
                "actual_hours": ran,
            }
        )

    def flow(self, flow: Flow, said: Description, at_ms: int) -> dict[str, Any]:
        """A workflow, which depends on its steps."""
        shown = _view(flow)
        own = {"task": flow.id, "kind": "workflow", "name": flow.name, **_present(flow=flow.flow)}
        row = self.names.row(self.stream, flow.id)
        found = self._row(flow.tenant, row, of_flow(flow, shown), own, workflow=said.workflow)
        steps = [self._step_row(flow, name) for name in flow.steps]
        title = said.title or flow.name or f"{flow.step} {flow.idx}"
        return (
            found
            | self._new(said, 5, flow.posted_at or at_ms, title)
            | {
                "dependencies": steps,
                "updated_at": at_text(at_ms),
                "actual_hours": _hours(flow.posted_at, flow.ended_at),
            }
        )

    def steps(
        self, flow: Flow, said: Description, times: Mapping[str, int]
    ) -> list[dict[str, Any]]:
        """Its steps. times: when an event was about each, Unix milliseconds; 0: none was."""
        errors = _errors(flow)
        found = []
        for step in _view(flow).steps:
            plan = flow.steps[step.id].plan
            source = source_of(step.id)
            name = f"{flow.id}.{step.id}"
            own: dict[str, Any] = {"task": name, "kind": "step", "flow": flow.id, "step": step.id}
            own |= _present(capability=step.capability or None)
            own |= {"elements": step.total} if plan.fans_out else {}
            row = source or self.names.row(self.stream, name)
            about = said.step(step.id)
            standing = of_step(flow, step, errors.get(step.id))
            document = self._row(flow.tenant, row, standing, own, workflow=about.workflow)
            before = [*plan.needs, *([plan.follows] if plan.follows else [])]
            named = f"{step.id} ({step.capability})" if step.capability else step.id
            document |= self._new(about, plan.priority, flow.posted_at, about.title or named)
            document["dependencies"] = [self._step_row(flow, other) for other in before]
            document["updated_at"] = at_text(times[step.id] or self.at_ms)
            document["actual_hours"] = _step_hours(flow, step.id)
            if not times[step.id]:
                document["quiet"] = True
            if source is not None:
                document |= {"existing": True, "source": True}
            found.append(document)
        return found

    def repeated(self, merge: Merge) -> dict[str, Any]:
        """A post that turned out to repeat another one: its row, if there is one, is cancelled."""
        standing = Standing(status="cancelled", state="cancelled", terminal=True)
        own = {"task": str(merge.seq), "repeats": merge.same_as}
        row = self.names.row(self.stream, str(merge.seq))
        found = self._row(merge.tenant, row, standing, own)
        return found | {"updated_at": at_text(self.at_ms), "existing": True, "repeated": True}

    def _step_row(self, flow: Flow, step: str) -> str:
        return source_of(step) or self.names.row(self.stream, f"{flow.id}.{step}")

    def _row(
        self,
        tenant: str,
        row: str,
        standing: Standing,
        own: dict[str, Any],
        *,
        workflow: str | None = None,
    ) -> dict[str, Any]:
        own |= {"stream": self.stream, "seq": self.position, "status": standing.status}
        own |= {"state": standing.state} | _present(waits=standing.waits, bmad_workflow_id=workflow)
        error = standing.error
        if error is not None:
            own["error"] = {"type": error.type, "message": error.message[:_MESSAGE]}
            own["error"] |= _present(field=error.field)
        return {
            "task_id": row,
            "tenant_id": self.names.tenant(tenant),
            "project_id": self.names.project(tenant),
            "status": standing.status,
            "metadata": {"callboard": own},
            "terminal": standing.terminal,
        }

    def _new(
        self, said: Description, number: int, posted_at: int | None, title: str
    ) -> dict[str, Any]:
        """What only a new row gets."""
        return {
            "priority": priority(number),
            "title": title,
            "description": said.text,
            "acceptance_criteria": list(said.criteria),
            "dependencies": [],
            "bmad_story_id": said.story,
            "created_at": at_text(posted_at or self.at_ms),
        }


def is_pulled(flow: Flow) -> bool:
    """Whether all of a workflow's steps work on rows of the tracker: then it needs none itself."""
    return bool(flow.steps) and all(source_of(name) for name in flow.steps)


def at_text(at_ms: int) -> str:
    """ISO 8601, in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _view(flow: Flow) -> FlowView:
    shown = view(flow)
    assert isinstance(shown, FlowView)  # noqa: S101  a flow's view is one
    return shown


def _errors(flow: Flow) -> dict[str | None, Failure]:
    """Of each step, that of its first element that failed."""
    found: dict[str | None, Failure] = {}
    for row in flow.rows.values():
        error = row.failure if isinstance(row, Task) else row.error
        if error is not None and row.state in ("failed", "expired"):
            found.setdefault(row.step, error)
    return found


def _step_hours(flow: Flow, step: str) -> int | None:
    rows = [row for row in flow.rows.values() if isinstance(row, Task) and row.step == step]
    if len(rows) != 1:
        return None
    return _hours(rows[0].dispatched_at, rows[0].ended_at)


def _hours(begun_ms: int | None, ended_ms: int | None) -> int | None:
    """Whole hours; nothing below half of one."""
    if begun_ms is None or ended_ms is None:
        return None
    return round((ended_ms - begun_ms) / _HOUR_MS) or None


def _present(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
