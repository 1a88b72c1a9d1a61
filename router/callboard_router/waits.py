"""What exactly a waiting task waits for: told as facts and one sentence each, most decisive first.

Nothing is guessed: each entry is found by the very checks that `dispatching` makes, and all that
stand in the way are listed, not only the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from callboard_router.agenda import expires_at
from callboard_router.budget import ready_at
from callboard_router.desk import Desk
from callboard_router.flow import Flow
from callboard_router.metering import RATE
from callboard_router.placement import Blocked, place
from callboard_router.state import Task
from callboard_router.stopping import flow_paused

__all__ = ["Wait", "step_waits", "waits"]

Wait = dict[str, Any]
"""`for`: agents, approval, budget, cancellation, decision, fit, inputs, pause, signal, slots,
spawned, step, time, turn or workflow. message: a sentence. `at`: a time in Unix ms. The rest are
facts."""

_ENOUGH = 1e-6


def waits(desk: Desk, task: Task, at_ms: int) -> list[Wait]:
    """All that a waiting task waits for at the time `at_ms`; never empty."""
    found = list(_decisions(desk, task))
    if found:
        return found
    if task.id in desk.proposals:
        return [_wait("decision", "its dispatch is being written")]
    found = [*_pauses(desk, task), *_times(task, at_ms)]
    if not task.capability:
        return [*found, *_inside(desk, task)]
    if desk.agenda.is_parked(task.id):
        found.append(_wait("inputs", "results of earlier steps are being fetched for its payload"))
    found += _budgets(desk, task, at_ms)
    found += _places(desk, task)
    if not found:
        message = "everything that it needs is free: it is its turn at the next decision"
        found = [_wait("turn", message)]
    expires = expires_at(task)
    if expires is not None:
        found[-1]["expires_at"] = expires
    return found


def _wait(kind: str, message: str, /, **facts: Any) -> Wait:
    return {"for": kind, "message": message, **facts}


def _decisions(desk: Desk, task: Task) -> Iterator[Wait]:
    """What settles everything else: the router writes the next event of its own accord."""
    life = task.life
    if task.cancel is not None:
        yield _wait("cancellation", f"it is being cancelled: {task.cancel or 'no reason given'}")
    elif task.decided is not None:
        yield _wait("decision", "it was decided, and that is being written")
    elif life.failure is not None:
        message = f"attempt {life.attempt} failed ({life.failure.type}); what follows is decided"
        yield _wait("decision", message, error=life.failure.message)
    elif task.id in desk.agenda.unfillable:
        failure = desk.agenda.unfillable[task.id]
        message = f"its payload cannot be made ({failure.message}); it fails"
        yield _wait("decision", message, error=failure.message, field=failure.field)


def _pauses(desk: Desk, task: Task) -> Iterator[Wait]:
    if task.paused:
        yield _wait("pause", f"it is paused; `callboard resume {task.id}`", id=task.id)
    flow = None if task.flow is None else desk.state.flows.get(task.flow)
    if flow is not None and flow_paused(desk.state, flow):
        while not flow.paused and flow.parent in desk.state.flows:
            flow = desk.state.flows[flow.parent]
        message = f"its workflow is paused; `callboard resume {flow.id}`"
        yield _wait("pause", message, id=flow.id)


def _times(task: Task, at_ms: int) -> Iterator[Wait]:
    if task.not_before > at_ms:
        seconds = (task.not_before - at_ms) / 1000
        if task.life.errors:
            what = f"attempt {task.life.attempt} failed; it is tried again in {seconds:.1f} s"
        else:
            what = f"it was posted with a delay; it may start in {seconds:.1f} s"
        yield _wait("time", what, at=task.not_before, retry=bool(task.life.errors))


def _inside(desk: Desk, task: Task) -> Iterator[Wait]:
    """A gate, or a workflow inside a step: nobody works on it."""
    flow = None if task.flow is None else desk.state.flows.get(task.flow)
    node = None if flow is None else flow.graph.nodes.get(task.step)
    gate = None if node is None else node.step.gate
    if gate is not None and gate.kind == "signal":
        name = gate.signal or task.step
        message = f"it waits for the signal {name}; `callboard signal {task.flow} {name}`"
        yield _wait("signal", message, signal=name, prompt=gate.prompt, id=task.id)
    elif gate is not None:
        message = f"it waits for an approval; `callboard approve {task.id}`"
        yield _wait("approval", message, prompt=gate.prompt, id=task.id)
    elif flow is not None and flow.is_sub_flow(task.step):
        yield _wait("workflow", "its inner workflow is about to begin")
    else:
        yield _wait("decision", "it is about to be settled")


def _budgets(desk: Desk, task: Task, at_ms: int) -> Iterator[Wait]:
    """Every budget without room, with what it allows and what is used."""
    accounts, reserved, need = desk.state.accounts, desk.proposals.reserved, task.need
    for key in dict.fromkeys(need.keys):
        rule = accounts.rule(key)
        if rule is None:
            continue
        used = accounts.in_use.get(key, 0) + reserved.counts.get(key, 0)
        if used >= rule.concurrency:
            message = f"the budget {key} is used up: {used} of {rule.concurrency:g} run"
            yield _wait("budget", message, name=key, in_use=used, limit=rule.concurrency)
        for unit, amount in ((RATE, 1.0), *need.units):
            pending = (
                float(reserved.counts.get(key, 0))
                if unit == RATE
                else reserved.units.get((key, unit), 0.0)
            )
            missing = accounts.missing(key, unit, amount + pending, at_ms)
            if missing is None or missing[0] <= _ENOUGH:
                continue
            name = f"rate of {key}" if unit == RATE else f"units {unit} of {key}"
            at = ready_at(accounts, name, at_ms, need=need, reserved=reserved)
            yield _wait(
                "budget",
                f"the budget {name} is used up: {_short_of(amount, missing, at, at_ms)}",
                name=name,
                missing=round(missing[0], 3),
                limit=missing[2],
                at=at,
            )


def _short_of(
    amount: float, missing: tuple[float, float, float], at: int | None, at_ms: int
) -> str:
    if amount > missing[2] + _ENOUGH:
        return f"it asks for {amount:g}, and there are never more than {missing[2]:g}"
    when = "until it is raised" if at is None else f"for {max(0, at - at_ms) / 1000:.1f} s more"
    return f"{missing[0]:g} too few, {when}"


def _places(desk: Desk, task: Task) -> Iterator[Wait]:
    found = place(desk, task)
    if not isinstance(found, Blocked):
        return
    kind, pool, capability = found.on.split("/", 2)
    why = dict(found.why)
    reason = why.pop("reason", "")
    place_named = f"{capability} in pool {pool}"
    if kind == "agents":
        message = f"no agents: nobody serves {place_named}; it waits until somebody does"
    elif kind == "slots":
        message = f"the queue {place_named}: {reason}"
    else:
        message = f"hosts for {place_named}: {reason}"
    if kind == "slots" and (pool, capability) in desk.capacity:
        slots, hosts = desk.capacity[(pool, capability)]
        why |= {"slots": slots, "hosts": hosts, "running": desk.state.running[(pool, capability)]}
    yield _wait(kind, message, pool=pool, capability=capability, **why)


def step_waits(desk: Desk, flow: Flow, name: str) -> list[Wait]:
    """What a step waits for of which there is no task yet: the steps before it, or its turn."""
    node, step = flow.graph.nodes[name], flow.steps[name]
    found = []
    sources = sorted({*node.needs, *((node.follows,) if node.follows else ())})
    for source in sources:
        before = flow.steps[source]
        if before.over:
            continue
        done = "" if before.total is None else f": {before.ended} of {before.total} done"
        message = f"it waits for the step {source}{done}"
        found.append(_wait("step", message, name=source, ended=before.ended, total=before.total))
    if not found and (flow.id, name) in desk.state.to_expand:
        found.append(_wait("inputs", "the list that it fans out over is being fetched"))
    if not found and step.held:
        message = f"{len(step.held)} of its inner workflows wait: as many as may live at once do"
        found.append(_wait("workflow", message, live=step.entered))
    if flow_paused(desk.state, flow):
        found.append(_wait("pause", "its workflow is paused", id=flow.id))
    return found
