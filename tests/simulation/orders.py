"""What a command must do: the checker's own rules, one method a verb.

Each returns the type of the error with which the command is refused, or None.
"""

from __future__ import annotations

from typing import Any

from tests.simulation.sent import Sent
from tests.simulation.tables import UNDECIDED, CheckedSchedule, CheckedTask, Tables
from tests.simulation.views import FlowView

__all__ = ["Orders"]

Found = CheckedTask | FlowView | CheckedSchedule


class Orders:
    """Carries commands out on the tables. revived: workflows that the last one started again."""

    def __init__(self, tables: Tables) -> None:
        self.revived: tuple[FlowView, str | None] | None = None
        self._tables = tables

    def carry_out(self, sent: Sent) -> str | None:
        verb = sent.subject.split(".")[-1]
        self.revived = None
        order = getattr(self, f"_{verb}", None)
        if order is None or sent.refused_for:
            return "BadInput"
        answer: str | None = order(sent.tenant, sent.body)
        return answer

    def _find(self, tenant: str, name: str) -> Found | None:
        tables = self._tables
        found = tables.tasks.get(name) or tables.flows.get(name) or tables.schedules.get(name)
        return found if found is not None and found.tenant == tenant else None

    def _cancel(self, tenant: str, body: dict[str, Any]) -> str | None:
        found = self._find(tenant, body["id"])
        if found is None:
            return "UnknownTask"
        if isinstance(found, FlowView):
            self._tables.halt(found, "cancelled")
        elif isinstance(found, CheckedSchedule):
            found.cancel = True
        else:
            self._tables.cancel(found)
        return None

    def _pause(self, tenant: str, body: dict[str, Any]) -> str | None:
        found = self._find(tenant, body["id"])
        if found is None:
            return "UnknownTask"
        if found.paused:
            return "Conflict"
        found.paused = True
        return None

    def _resume(self, tenant: str, body: dict[str, Any]) -> str | None:
        tables, name = self._tables, body["id"]
        view = tables.dead_flows.get(name) or tables.dead_flows.get(name.partition(".")[0])
        if view is None:
            if name in tables.dead:
                return "Conflict"
            found = self._find(tenant, name)
            if found is None:
                return "UnknownTask"
            was, found.paused = found.paused, False
            return None if was else "Conflict"
        if view.tenant != tenant:
            return "UnknownTask"
        start = body.get("from")
        if start is not None and start not in view.spec.steps:
            return "BadInput"
        if "payload" in body:
            if not isinstance(body["payload"], dict):
                return "BadInput"
            view.inputs = view.inputs | body["payload"]
        del tables.dead_flows[view.id]
        tables.lives[view.id] += 1
        self.revived = (view, start)
        return None

    def _redrive(self, tenant: str, body: dict[str, Any]) -> str | None:
        tables = self._tables
        task = tables.dead.get(body["id"])
        if task is None or task.tenant != tenant:
            flow = body["id"].partition(".")[0] in tables.dead_flows
            return "Conflict" if flow else "UnknownTask"
        edited = "payload" in body
        if not (task.runnable or edited) or not task.capability:
            return "Conflict"
        del tables.dead[task.id]
        tables.lives[task.id] += 1
        task.state, task.failure, task.refused, task.secret = "waiting", None, (), ""
        task.lost = task.unstarted = task.errors = task.not_before = 0
        task.cancel = task.paused = False
        task.since = tables.at_ms
        if edited:
            task.payload, task.runnable = body["payload"], True
        tables.tasks[task.id] = task
        return None

    def _approve(self, tenant: str, body: dict[str, Any]) -> str | None:
        found = self._find(tenant, body["id"])
        if found is None:
            return "UnknownTask"
        gates = self.open_gates(found, "gate") if isinstance(found, FlowView) else [found]
        if len(gates) != 1:
            return "Conflict"
        gate = gates[0]
        if not isinstance(gate, CheckedTask) or gate.kind != "gate":
            return "Conflict"
        if gate.decided is not UNDECIDED or gate.failure is not None:
            return "Conflict"
        if body.get("approved", True):
            said = {"approved": True, "by": body.get("by", ""), "reason": body.get("reason", "")}
            gate.decided = said
        else:
            gate.failure = {"type": "Rejected", "final": True}
        return None

    def _signal(self, tenant: str, body: dict[str, Any]) -> str | None:
        found = self._find(tenant, body["id"])
        if found is None:
            return "UnknownTask"
        if not isinstance(found, FlowView):
            return "Conflict"
        name = body.get("name")
        if name not in _signals(found):
            return "BadInput"
        found.signals[name] = body.get("payload")
        for gate in self.open_gates(found, "signal"):
            if gate.view is not None and gate.view.spec.steps[gate.place[0]].signal == name:
                gate.decided = body.get("payload")
        return None

    def open_gates(self, view: FlowView, kind: str) -> list[CheckedTask]:
        """The undecided gates of a workflow and of those inside it."""
        found = [
            task
            for task in self._tables.own(view)
            if task.kind == kind and task.decided is UNDECIDED and task.failure is None
        ]
        for inner in self._tables.inner(view):
            found += self.open_gates(inner, kind)
        return found


def _signals(view: FlowView) -> set[str]:
    found = {step.signal for step in view.spec.steps.values() if step.kind == "signal"}
    for step in view.spec.steps.values():
        if step.flow is not None:
            found |= {s.signal for s in step.flow.steps.values() if s.kind == "signal"}
    return found
