"""Why a live task or workflow is where it is: `callboard explain`.

Of what runs: where it went and why; of what waits: for what exactly (`waits`). It reads the desk
and changes nothing. What has ended without success is known for as long as it can be run again;
everything else that has ended, the ledger knows.
"""

from __future__ import annotations

from typing import Any

import msgspec

from callboard_broker.subjects import ALL_TENANTS
from callboard_broker.wire import Failure
from callboard_router.desk import Desk
from callboard_router.progress import MOST_LISTED, explain_element, explain_flow, said
from callboard_router.state import Schedule, Task
from callboard_router.waits import Wait, waits

__all__ = ["explain"]


def explain(desk: Desk, tenant: str, name: str, at_ms: int) -> dict[str, Any] | None:
    """Explain the task, step, gate, workflow or schedule `name`, in plain JSON values.

    A step may be named by `7.build`, an element of it by `7.build.0`, also before there is a task.
    There are always id, kind, state, tenant, message and waits_for (a list of `waits.Wait`); of
    what runs also `dispatch`. None: nothing live has this name, or it is another tenant's (`all`
    stands for every tenant).
    """
    found = _explained(desk, name, at_ms)
    return found if found is not None and tenant in (found["tenant"], ALL_TENANTS) else None


def _explained(desk: Desk, name: str, at_ms: int) -> dict[str, Any] | None:
    state = desk.state
    if (task := state.tasks.get(name)) is not None:
        return _task(desk, task, at_ms)
    if (flow := state.flows.get(name)) is not None:
        return explain_flow(desk, flow, at_ms)
    if (schedule := state.schedules.get(name)) is not None:
        return _schedule(schedule, at_ms)
    if name in state.dead:
        ended_at, ended = state.dead[name]
        return said(ended, _kind(desk, ended), ended.life.state, _why(ended.life.failure)) | {
            "ended_at": ended_at,
            "error": msgspec.to_builtins(ended.life.failure),
            "history": _history(ended),
            "hint": f"callboard dead redrive {name}",
        }
    if name in state.dead_flows:
        ended_at, gone = state.dead_flows[name]
        return said(gone, "workflow", gone.ending or "failed", _why(gone.failure)) | {
            "ended_at": ended_at,
            "error": msgspec.to_builtins(gone.failure),
            "hint": f"callboard resume {name}",
        }
    return explain_element(desk, name, at_ms)


def _why(failure: Failure | None) -> str:
    return "it has ended" if failure is None else failure.line


# -- tasks


def _kind(desk: Desk, task: Task) -> str:
    if task.flow is None or not task.step:
        return "task"
    flow = desk.state.flows.get(task.flow)
    node = None if flow is None else flow.graph.nodes.get(task.step)
    return "gate" if node is not None and node.step.gate is not None else "step"


def _task(desk: Desk, task: Task, at_ms: int) -> dict[str, Any]:
    kind = _kind(desk, task)
    if task.life.state == "running":
        dispatch = _dispatch(desk, task)
        found = said(task, kind, "running", _runs(task, dispatch)) | {"dispatch": dispatch}
    else:
        reasons = waits(desk, task, at_ms)
        found = said(task, kind, task.life.state, reasons[0]["message"], reasons)
    found |= {
        "capability": task.capability,
        "priority": task.priority,
        "since": task.since,
        "history": _history(task),
    }
    if task.flow is not None:
        found |= {"workflow": task.flow, "step": task.step, "index": task.index}
    if task.parent is not None:
        found["parent"] = task.parent
    if task.children:
        found["children"] = task.children[:MOST_LISTED]
    return found


def _history(task: Task) -> dict[str, Any]:
    life = task.life
    return {
        "attempts": life.attempt,
        "errors": life.errors,
        "lost": life.lost,
        "unstarted": life.unstarted,
        "generation": life.generation,
        "avoid": list(task.avoid),
    }


def _dispatch(desk: Desk, task: Task) -> dict[str, Any]:
    """Where the current attempt went, and who is known to have it."""
    pool, capability = task.queue
    found: dict[str, Any] = {
        "attempt": task.life.attempt,
        "pool": pool,
        "queue": capability,
        "mailbox": task.host,
        "held_by": None,
    }
    hold = desk.liveness.holds.get(task.id)
    if hold is not None:
        found["seq"] = hold.seq
        if hold.owner is not None:
            found["held_by"] = hold.owner[1]
        if hold.why:
            found["why"] = hold.why
    if task.cancel is not None:
        found["stopping"] = task.cancel
    elif task.id in desk.agenda.to_stop:
        found["stopping"] = desk.agenda.to_stop[task.id]
    return found


def _runs(task: Task, dispatch: dict[str, Any]) -> str:
    if task.host is not None:
        where = f"in the mailbox of {task.host}"
    else:
        where = f"from the shared queue {task.queue[1]} of pool {task.queue[0]}"
    reason = dispatch.get("why", {}).get("reason")
    message = f"attempt {task.life.attempt} runs, {where}" + (f" ({reason})" if reason else "")
    if dispatch["held_by"] is not None:
        message += f"; {dispatch['held_by']} has it"
    if "stopping" in dispatch:
        message += "; its host is asked to stop it"
    return message


# -- schedules


def _schedule(schedule: Schedule, at_ms: int) -> dict[str, Any]:
    next_at, reasons = schedule.next_at, list[Wait]()
    if schedule.paused:
        reasons.append(
            {
                "for": "pause",
                "message": f"it is paused; `callboard resume {schedule.id}`",
                "id": schedule.id,
            }
        )
    if next_at is not None:
        seconds = max(0, next_at - at_ms) / 1000
        message = f"its next time is in {seconds:.0f} s"
        reasons.append({"for": "time", "message": message, "at": next_at})
    message = reasons[0]["message"] if reasons else "its next time is being worked out"
    return said(schedule, "schedule", "waiting", message, reasons) | {
        "capability": schedule.capability,
        "cron": schedule.cron.expression,
        "zone": schedule.cron.zone,
        "tasks": schedule.number,
        "last": schedule.last,
    }
