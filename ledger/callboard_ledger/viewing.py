"""Rows as the ledger shows them: what it counts, told as what it means to who asks."""

from __future__ import annotations

from typing import Literal

import msgspec

from callboard_ledger.rows import CommandRow, Flow, FlowStep, Row, Schedule, StepPlan, Task
from callboard_ledger.views import (
    CommandView,
    FlowView,
    RowView,
    ScheduleView,
    StepView,
    TaskView,
)

__all__ = ["view", "view_command", "view_pending"]

_SHOWN = 100


def view(row: Row) -> RowView:
    """The public shape of a row, without payload and result."""
    if isinstance(row, Task):
        return _view_task(row)
    if isinstance(row, Flow):
        return _view_flow(row)
    if isinstance(row, Schedule):
        return _view_schedule(row)
    return view_command(row)


def view_command(row: CommandRow) -> CommandView:
    """The public shape of a command."""
    return CommandView(
        id=row.id,
        tenant=row.tenant,
        verb=row.verb,
        target=row.target,
        state=row.state,
        by=row.by,
        reason=row.reason,
        shard=row.shard,
        posted_at=row.posted_at,
        end_seq=row.end_seq,
        error=row.error,
    )


def _view_task(row: Task) -> TaskView:
    scheduled = row.scheduled
    return TaskView(
        id=row.id,
        tenant=row.tenant,
        capability=row.capability,
        state=row.state,
        attempt=row.attempt,
        lost=row.lost,
        unstarted=row.unstarted,
        errors=row.errors,
        generation=row.generation,
        checkpoints=row.checkpoints,
        priority=row.priority,
        shard=row.shard,
        posted_at=row.posted_at,
        dispatched_at=row.dispatched_at,
        ended_at=row.ended_at,
        host=row.host,
        post_seq=row.post_seq,
        dispatch_seq=row.dispatch_seq,
        end_seq=row.end_seq,
        flow=None if scheduled else row.flow,
        step=None if scheduled else row.step,
        index=row.idx,
        schedule=row.flow if scheduled else None,
        parent=row.parent,
        not_before=row.not_before,
        cancel=row.cancel,
        paused=row.paused,
        used=None if row.used is None else dict(row.used),
        error=None if row.state == "succeeded" else row.failure,
    )


def _view_flow(row: Flow) -> FlowView:
    outlook = _look_ahead(row)
    return FlowView(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        state=row.state,
        generation=row.generation,
        steps=[_view_step(row, step, outlook) for step in row.steps.values()],
        shard=row.shard,
        posted_at=row.posted_at,
        ended_at=row.ended_at,
        post_seq=row.seq if row.flow is None else None,
        end_seq=row.end_seq,
        flow=row.flow,
        step=row.step,
        index=row.idx,
        cancel=row.cancel,
        paused=row.paused,
        used=None if row.used is None else dict(row.used),
        waits={} if row.ended else _open_gates(row, outlook),
        error=row.error,
    )


def _view_step(flow: Flow, step: FlowStep, outlook: dict[str, _Outlook]) -> StepView:
    plan = step.plan
    skipped = outlook[plan.id].barred == "skipped"
    return StepView(
        id=plan.id,
        capability=plan.capability,
        state="cancelled" if skipped else step.state,
        total=1 if skipped and step.total is None else step.total,
        waiting=0 if skipped else step.waiting,
        running=step.running,
        succeeded=step.succeeded,
        failed=step.failed,
        cancelled=step.cancelled,
        skipped=(step.total or 1) if skipped else step.skipped,
        waits=None if skipped else _step_waits(flow, step, outlook),
        prompt=_prompt(plan),
    )


class _Outlook(msgspec.Struct, gc=False):
    """What can still become of a step. over: nothing more of it comes. barred: it never begins,
    because what it needs has `failed` or was `skipped`. ready: what comes before lets it begin."""

    over: bool
    barred: Literal["", "failed", "skipped"]
    ready: bool


def _look_ahead(flow: Flow) -> dict[str, _Outlook]:
    """By what is counted: the ledger hears of a step only when something of it begins or ends."""
    found: dict[str, _Outlook] = {}
    for name, step in flow.steps.items():  # each after those that it depends on
        sources = [(flow.steps[source], found[source]) for source in _sources(step.plan)]
        barred: Literal["", "failed", "skipped"] = ""
        won = sum(source.succeeded for source, _ in sources)
        over = all(outlook.over for _, outlook in sources)
        if step.plan.join == "all":
            ready = all(
                source.complete and source.succeeded == source.total for source, _ in sources
            )
            for source, outlook in sources:
                if source.failed or source.cancelled or outlook.barred == "failed":
                    barred = "failed"
                elif (source.skipped or outlook.barred) and not barred:
                    barred = "skipped"
        elif step.plan.join == "best_effort":
            ready = over
        else:
            wanted = 1 if step.plan.join == "any" else int(step.plan.join)
            ready = won >= wanted
            barred = "failed" if over and not ready else ""
        begun = bool(step.running or step.ended)
        never = "" if begun else barred
        found[name] = _Outlook(step.complete or bool(never), never, ready and not never)
    return found


def _sources(plan: StepPlan) -> list[str]:
    return [*plan.needs, plan.follows] if plan.follows else [*plan.needs]


def _step_waits(flow: Flow, step: FlowStep, outlook: dict[str, _Outlook]) -> str | None:
    """What a step waits for of which nothing has begun; nothing if it is the router's turn."""
    if flow.ended or step.running or step.ended:
        return None
    ahead = outlook[step.plan.id]
    if ahead.barred:
        return f"nothing: what it needs has {ahead.barred}"
    if ahead.ready:
        return _gate_waits(step.plan)
    before = [name for name in _sources(step.plan) if not outlook[name].over]
    return f"steps {', '.join(before[:_SHOWN])}" if before else None


def _gate_waits(plan: StepPlan) -> str | None:
    """What a gate waits for."""
    if plan.gate is None:
        return None
    return "approval" if plan.gate.kind == "approval" else f"signal {plan.gate.signal}"


def _open_gates(flow: Flow, outlook: dict[str, _Outlook]) -> dict[str, str]:
    """The gates of a live workflow that wait for somebody, by id."""
    found: dict[str, str] = {}
    for name, step in flow.steps.items():
        what = _gate_waits(step.plan)
        if what is None or step.total is None or step.complete or not outlook[name].ready:
            continue
        for index in range(step.total):
            row = flow.rows.get(f"{name}.{index}")
            if row is None or not row.ended:
                found[f"{flow.id}.{name}.{index}"] = what
            if len(found) >= _SHOWN:
                return found
    return found


def view_pending(flow: Flow, step: FlowStep, index: int) -> TaskView:
    """An element of a live workflow of which nothing has happened yet."""
    outlook = _look_ahead(flow)
    return TaskView(
        id=f"{flow.id}.{step.plan.id}.{index}",
        tenant=flow.tenant,
        capability=step.plan.capability,
        state="waiting",
        attempt=0,
        lost=0,
        priority=step.plan.priority,
        generation=flow.generation,
        shard=flow.shard,
        flow=flow.id,
        step=step.plan.id,
        index=index,
        cancel=flow.cancel,
        waits=_step_waits(flow, step, outlook) or _gate_waits(step.plan),
        prompt=_prompt(step.plan),
    )


def _prompt(plan: StepPlan) -> str | None:
    return None if plan.gate is None else plan.gate.prompt or None


def _view_schedule(row: Schedule) -> ScheduleView:
    return ScheduleView(
        id=row.id,
        tenant=row.tenant,
        capability=row.capability,
        state=row.state,
        expression=row.cron.expression,
        zone=row.cron.zone,
        overlap=row.cron.overlap,
        number=row.number,
        priority=row.priority,
        next_at=row.next_at,
        last=row.last,
        shard=row.shard,
        posted_at=row.posted_at,
        ended_at=row.ended_at,
        post_seq=row.seq,
        end_seq=row.end_seq,
        cancel=row.cancel,
        paused=row.paused,
        error=row.error,
    )
