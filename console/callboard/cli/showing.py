"""Shows one task, workflow, schedule or command to a person."""

from __future__ import annotations

import msgspec
from rich.text import Text

from callboard.cli.following import show_result
from callboard.cli.screen import Cell, Screen, clock_time, lasted, reason_of, state_text, visible
from callboard_broker.wire import Usage
from callboard_ledger.views import CommandView, FlowView, RowView, ScheduleView, StepView, TaskView

__all__ = ["show_facts", "show_view"]


def show_view(screen: Screen, view: RowView) -> None:
    """What the ledger knows of it."""
    if isinstance(view, TaskView):
        _show_task(screen, view)
    elif isinstance(view, FlowView):
        _show_flow(screen, view)
    elif isinstance(view, ScheduleView):
        _show_schedule(screen, view)
    else:
        _show_command(screen, view)


def _show_task(screen: Screen, task: TaskView) -> None:
    _head(screen, "task" if task.capability else "gate", task)
    attempts = ", ".join(
        [
            str(task.attempt),
            *([f"{task.lost} of them lost"] if task.lost else []),
            *([f"{task.errors} tried again"] if task.errors else []),
            *([f"started again {task.generation} times"] if task.generation else []),
        ]
    )
    show_facts(
        screen,
        [
            ("capability", task.capability),
            ("tenant", task.tenant),
            ("priority", task.priority),
            ("posted", clock_time(task.posted_at)),
            ("not before", None if task.ended_at else clock_time(task.not_before)),
            ("dispatched", clock_time(task.dispatched_at)),
            ("ended", clock_time(task.ended_at)),
            ("took", lasted(task.posted_at or task.dispatched_at, task.ended_at)),
            ("attempts", attempts),
            ("used", _amounts(task.used)),
            ("usage", _taken(task.usage)),
            ("layers", ", ".join(task.layers)),
            ("host", task.host),
            ("workflow", _workflow_of(task)),
            ("schedule", task.schedule),
            ("spawned by", task.parent),
            ("waits for", task.waits),
            ("asks", task.prompt),
            *_held(task),
            ("same as", task.same_as),
            ("payload", _short(task.payload)),
        ],
    )
    if task.waits == "approval":
        screen.line(Text(f"  decide: callboard approve {task.id} [--reject]", style="yellow"))
    _result(screen, task)


def _show_flow(screen: Screen, flow: FlowView) -> None:
    _head(screen, f"workflow {flow.name}", flow)
    show_facts(
        screen,
        [
            ("tenant", flow.tenant),
            ("posted", clock_time(flow.posted_at)),
            ("ended", clock_time(flow.ended_at)),
            ("took", lasted(flow.posted_at, flow.ended_at)),
            ("run", f"{flow.generation + 1}, after a resume" if flow.generation else None),
            ("used", _amounts(flow.used)),
            ("workflow", None if flow.flow is None else f"{flow.flow} (step {flow.step})"),
            *_held(flow),
            ("same as", flow.same_as),
        ],
    )
    for gate, what in flow.waits.items():
        signalled = what.removeprefix("signal ")
        say = f"approve {gate}" if what == "approval" else f"signal {flow.id} {signalled} JSON"
        screen.line(Text(visible(f"  {gate} waits for {what}: callboard {say}"), style="yellow"))
    if flow.steps:
        screen.line()
        rows = [_step(step) for step in flow.steps]
        used = [place for place in range(len(_STEP)) if place in _ALWAYS or _any(rows, place)]
        columns = [_STEP[place] for place in used]
        screen.table(columns, [[row[place] for place in used] for row in rows], fold=columns[-1])
    _result(screen, flow)


_STEP = (
    "step",
    "state",
    "done#",
    "running#",
    "failed#",
    "cancelled#",
    "skipped#",
    "of#",
    "capability",
    "waits for",
)
_ALWAYS = frozenset({0, 1, 2, 3, 4, 7, 8})


def _any(rows: list[list[Cell]], place: int) -> bool:
    return any(row[place] for row in rows)


def _step(step: StepView) -> list[Cell]:
    whole = step.total is not None and step.skipped == step.total > 0
    return [
        step.id,
        Text("skipped", style="dim") if whole else state_text(step.state),
        step.succeeded,
        step.running,
        step.failed,
        step.cancelled,
        step.skipped,
        "?" if step.total is None else step.total,
        step.capability,
        " ".join(filter(None, (step.waits, f"({step.prompt})" if step.prompt else None))),
    ]


def _show_schedule(screen: Screen, schedule: ScheduleView) -> None:
    _head(screen, "schedule", schedule)
    show_facts(
        screen,
        [
            ("capability", schedule.capability),
            ("tenant", schedule.tenant),
            ("priority", schedule.priority),
            ("times", f"{schedule.expression} ({schedule.zone})"),
            ("overlap", "yes" if schedule.overlap else None),
            ("tasks", schedule.number),
            ("last", schedule.last),
            ("next", clock_time(schedule.next_at)),
            ("posted", clock_time(schedule.posted_at)),
            ("ended", clock_time(schedule.ended_at)),
            *_held(schedule),
            ("same as", schedule.same_as),
            ("payload", _short(schedule.payload)),
        ],
    )


def _show_command(screen: Screen, command: CommandView) -> None:
    _head(screen, f"command {command.verb} {command.target},", command)
    show_facts(
        screen,
        [
            ("tenant", command.tenant),
            ("by", command.by),
            ("reason", command.reason),
            ("posted", clock_time(command.posted_at)),
            ("same as", command.same_as),
        ],
    )


def _head(screen: Screen, what: str, view: RowView) -> None:
    head = Text(visible(f"{what} {view.id}  "), style="bold")
    screen.line(head + state_text(view.state))
    if view.error is not None:
        screen.line(f"  {reason_of(view.error)}", "red")


def show_facts(screen: Screen, facts: list[tuple[str, Cell]]) -> None:
    """Names and values in two columns; without those that have none."""
    for name, value in facts:
        if value is not None and value != "":
            screen.line(Text(f"  {name:<11}", style="dim") + Text(visible(str(value))))


def _held(view: TaskView | FlowView | ScheduleView) -> list[tuple[str, Cell]]:
    """What somebody asked of it that still holds."""
    return [
        ("paused", f"callboard resume {view.id}" if view.paused and not view.ended_at else None),
        ("to be ended", None if view.ended_at else view.cancel),
    ]


def _workflow_of(task: TaskView) -> str | None:
    if task.flow is None:
        return None
    return f"{task.flow} (step {task.step})" if task.step is not None else task.flow


def _amounts(used: dict[str, float] | None) -> str | None:
    if not used:
        return None
    return ", ".join(f"{amount:g} {unit}" for unit, amount in sorted(used.items()))


def _taken(usage: Usage | None) -> str | None:
    """What the last attempt took; of memory nothing is known where it ran in its host."""
    if usage is None:
        return None
    memory = [f"{usage.memory_mb:.1f} MiB"] if usage.memory_mb else []
    return ", ".join([f"{usage.cpu_s:.2f} s of CPU", *memory, f"in {usage.wall_s:.2f} s"])


def _result(screen: Screen, view: TaskView | FlowView) -> None:
    if isinstance(view.result, msgspec.Raw):
        screen.line()
        show_result(screen, msgspec.json.decode(view.result))


def _short(raw: object) -> str | None:
    if not isinstance(raw, msgspec.Raw):
        return None
    text = bytes(raw).decode(errors="replace")
    return text if len(text) <= 120 else f"{text[:117]}..."
