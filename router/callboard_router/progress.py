"""How far a workflow is, and what each of its steps waits for that are not over."""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec

from callboard_router.desk import Desk
from callboard_router.flow import Flow, StepState
from callboard_router.state import Schedule, Task
from callboard_router.waits import Wait, step_waits, waits

__all__ = ["MOST_LISTED", "explain_element", "explain_flow", "said"]

MOST_LISTED = 100
"""Steps of a workflow, reasons, or children of a task."""

_ELEMENTS = 3
"""Of each step, so many elements that have not ended are explained one by one."""

_LOOKED_AT = 1000


def said(
    found: Task | Flow | Schedule,
    kind: str,
    state: str,
    message: str,
    waits_for: list[Wait] | None = None,
) -> dict[str, Any]:
    """What every explanation begins with."""
    return {
        "id": found.id,
        "kind": kind,
        "tenant": found.tenant,
        "state": state,
        "message": message,
        "waits_for": waits_for or [],
    }


def explain_flow(desk: Desk, flow: Flow, at_ms: int) -> dict[str, Any]:
    """The workflow as a whole, and each of its steps that is not over."""
    steps = {
        name: _step(desk, flow, name, at_ms)
        for name in islice(flow.graph.nodes, MOST_LISTED)
        if not flow.steps[name].over
    }
    reasons: list[Wait] = []
    for name, step in steps.items():
        reasons += [{**wait, "step": name} for wait in step["waits_for"]]
    running = sum(step["running"] for step in steps.values())
    over = sum(step.over for step in flow.steps.values())
    if not steps and flow.open:
        reasons += _spawned(desk, flow)
    runs = "1 task runs" if running == 1 else f"{running} tasks run"
    message = f"{over} of {len(flow.steps)} steps are done, {runs}"
    if flow.ending is not None:
        message = f"it is being ended as {flow.ending}: {flow.reason}"
    elif flow.failure is not None:
        message = f"it has failed ({flow.failure.type}); what still runs goes on to its end"
    elif not running and reasons:
        where = f"{reasons[0]['step']}: " if "step" in reasons[0] else ""
        message = f"{message}; {where}{reasons[0]['message']}"
    if flow.undoing is not None:
        message += f"; what it did is being undone: {flow.undoing[0]}"
    state = "running" if running else "waiting"
    return said(flow, "workflow", state, message, reasons[:MOST_LISTED]) | {
        "name": flow.name,
        "generation": flow.generation,
        "expires_at": flow.expires_at,
        "paused": flow.paused,
        "error": msgspec.to_builtins(flow.failure),
        "steps": steps,
        "more_steps": max(0, len(flow.graph.nodes) - MOST_LISTED),
    }


def _spawned(desk: Desk, flow: Flow) -> list[Wait]:
    """Tasks that its steps spawned: rare, so they are looked for."""
    own = (t.id for t in desk.state.tasks.values() if t.flow == flow.id and not t.step)
    found = list(islice(own, MOST_LISTED))
    if not found:
        return []
    message = f"its steps are done; tasks that they spawned are not: {', '.join(found[:3])}"
    return [{"for": "spawned", "message": message, "tasks": found}]


def _step(desk: Desk, flow: Flow, name: str, at_ms: int) -> dict[str, Any]:
    """A step that is not over. Of many elements, the first few that wait are explained."""
    step = flow.steps[name]
    reasons = step_waits(desk, flow, name)
    running = 0
    for number, task in enumerate(_live(desk, flow, name, step)):
        if task.life.state == "running":
            running += 1
        elif number < _ELEMENTS:
            reasons += [{**wait, "task": task.id} for wait in waits(desk, task, at_ms)]
    return {
        "total": step.total,
        "succeeded": len(step.results),
        "failed": len(step.failures),
        "skipped": len(step.skipped),
        "running": running,
        "waits_for": reasons,
    }


def _live(desk: Desk, flow: Flow, name: str, step: StepState) -> list[Task]:
    """Elements that are tasks now; of a large fan-out, of the first ones that have not ended."""
    tasks = desk.state.tasks
    ended = (step.results, step.failures, step.skipped)
    open_ = (index for index in range(step.total or 0) if not any(index in some for some in ended))
    found = (tasks.get(f"{flow.id}.{name}.{index}") for index in islice(open_, _LOOKED_AT))
    return [task for task in found if task is not None]


def explain_element(desk: Desk, name: str, at_ms: int) -> dict[str, Any] | None:
    """`7.build`, or `7.build.3` of which there is no task: not yet, or no more."""
    head, _, last = name.rpartition(".")
    flow = desk.state.flows.get(head)
    if flow is not None and last in flow.steps:
        step = flow.steps[last]
        found = _step(desk, flow, last, at_ms)
        state = _state(step) or ("running" if found["running"] else "waiting")
        message = found["waits_for"][0]["message"] if found["waits_for"] else f"it is {state}"
        told = said(flow, "step", state, message, found.pop("waits_for"))
        return told | {"id": name, "workflow": flow.id, "step": last} | found
    head, _, step_name = head.rpartition(".")
    flow = desk.state.flows.get(head)
    if flow is None or step_name not in flow.steps or not last.isdecimal():
        return None
    step, index = flow.steps[step_name], int(last)
    reasons = step_waits(desk, flow, step_name)
    ended = (("succeeded", step.results), ("failed", step.failures), ("skipped", step.skipped))
    state = next((state for state, some in ended if index in some), "") or step.fate or "waiting"
    if state == "waiting" and step.total is not None and index >= step.total:
        return None
    message = f"it has ended: {state}" if state != "waiting" else "it has not begun"
    if state == "waiting" and reasons:
        message = reasons[0]["message"]
    told = said(flow, "step", state, message, reasons if state == "waiting" else [])
    return told | {"id": name, "workflow": flow.id, "step": step_name, "index": index}


def _state(step: StepState) -> str:
    """How a step that is over has ended; empty if it is not over."""
    if not step.over:
        return ""
    return step.fate or ("failed" if step.failures else "succeeded")
