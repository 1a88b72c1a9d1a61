"""What `callboard bmad` prints: findings, rosters, plans, and what a run has made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callboard.cli.screen import Screen
from callboard_integrations.bmad.drawing import reduced
from callboard_integrations.bmad.plan import Plan, PlanStep
from callboard_integrations.bmad.roster import Roster

__all__ = ["show_findings", "show_outcome", "show_plan", "show_roster"]

_COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


def show_findings(screen: Screen, roster: Roster) -> None:
    """One line for each diagnostic, and how many files were read."""
    if screen.json:
        screen.document(
            {
                "folders": roster.folders,
                "files": roster.counts(),
                "diagnostics": [_plain(one) for one in roster.diagnostics],
            }
        )
        return
    for one in roster.diagnostics:
        screen.line(str(one), _COLOURS[one.severity])
    for generation, states in roster.counts().items():
        said = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        screen.line(f"{generation}: {sum(states.values())} files, {said}")
    screen.line(
        f"{len(roster.personas)} personas, {len(roster.teams)} teams, "
        f"{len(roster.workflows)} workflows in {', '.join(roster.folders)}"
    )


def show_roster(screen: Screen, roster: Roster) -> None:
    """Personas, teams and workflows."""
    if screen.json:
        screen.document(
            {
                "personas": [
                    {
                        "id": one.id,
                        "pack": one.pack,
                        "capability": one.capability,
                        "name": one.name,
                        "title": one.title,
                        "generation": one.generation,
                        "path": one.path,
                        "commands": [command.name for command in one.commands],
                    }
                    for one in roster.personas
                ],
                "teams": [_plain(one) for one in roster.teams],
                "workflows": [
                    {
                        "id": one.id,
                        "pack": one.pack,
                        "name": one.name,
                        "dialect": one.dialect,
                        "sequences": {each.name: len(each.steps) for each in one.sequences},
                        "path": one.path,
                    }
                    for one in roster.workflows
                ],
            }
        )
        return
    screen.table(
        ("persona", "name", "title", "capability", "from"),
        [
            (f"{one.pack}/{one.id}", one.name, one.title, one.capability, one.path)
            for one in roster.personas
        ],
    )
    if roster.teams:
        screen.line()
        screen.table(
            ("team", "name", "agents"),
            [(f"{one.pack}/{one.id}", one.name, ", ".join(one.agents)) for one in roster.teams],
        )
    if roster.workflows:
        screen.line()
        screen.table(
            ("workflow", "name", "sequences"),
            [
                (
                    f"{one.pack}/{one.id}",
                    one.name,
                    ", ".join(f"{each.name} ({len(each.steps)})" for each in one.sequences),
                )
                for one in roster.workflows
            ],
        )
    if any(one.severity != "note" for one in roster.diagnostics):
        screen.note("some files are not as they should be: callboard bmad lint says which")


def show_plan(screen: Screen, plan: Plan) -> None:
    """The graph as a table, a step a line, in an order in which it can run."""
    if screen.json:
        screen.document(
            {
                "workflow": plan.workflow.id,
                "sequence": plan.sequence,
                "depth": plan.depth,
                "width": plan.width,
                "barriers": [one.id for one in plan.barriers],
                "gates": plan.gates,
                "checkpoints": plan.checkpoints,
                "unresolved": {one.id: list(one.unresolved) for one in plan.unresolved},
                "loops": {name: [one.id for one in steps] for name, steps in plan.loops.items()},
                "steps": [_step(plan, one) for one in plan.steps],
            }
        )
        return
    screen.line(f"{plan.workflow.name} · {plan.sequence}", "bold")
    screen.line(
        f"{len(plan.steps)} steps, depth {plan.depth}, width {plan.width}, "
        f"{len(plan.barriers)} barriers, {len(plan.gates)} gates, {len(plan.loops)} loops"
    )
    screen.line()
    near = reduced(plan)
    screen.table(
        ("level#", "step", "who", "after", "hands on"),
        [
            (
                plan.levels[one.id],
                f"{'↻ ' if one.loop else ''}{one.id}{' ?' if one.gates else ''}",
                _who(one),
                "all before" if one.is_barrier else ", ".join(near[one.id]) or "-",
                _few([*one.creates, *(f"{name}*" for name in one.updates)]),
            )
            for one in plan.steps
        ],
        fold="after",
    )
    screen.line()
    for name in plan.gates:
        asking = [one.id for one in plan.steps if name in {gate.name for gate in one.gates}]
        where = f"before {', '.join(asking)}" if asking else "before anything of the next stories"
        stories = plan.checkpoints.get(name, ())
        said = f", {'after' if not asking else 'of'} story {', '.join(stories)}" if stories else ""
        screen.line(f"? {name}: {where}{said}")
    for steps in plan.loops.values():
        within = ", ".join(one.id for one in steps)
        bound = "of several items at once (--at-once)"
        if steps in plan.story_loops:
            bound = "several stories of an epic at once (--at-once), and epics (--epics-at-once)"
        screen.line(f"↻ {steps[0].step.repeats}: {within}; {bound}")
    for one in plan.steps:
        if one.outside:
            screen.line(f"{one.id} needs {', '.join(one.outside)}, which no step makes")
    for one in plan.unresolved:
        screen.line(
            f"nobody is there for {one.id} ({one.who}): --assign {one.who}=PERSONA", "bold red"
        )
    screen.line("* is changed · all before: a barrier · ?: asked, unless it is answered before")


def show_outcome(
    screen: Screen, artifacts: Mapping[str, str], branches: Mapping[str, list[str]]
) -> None:
    """What was made, by name and size, and which branch holds what."""
    screen.table(
        ("artifact", "characters#"), [(name, len(text)) for name, text in artifacts.items()]
    )
    if branches:
        screen.line()
        screen.table(
            ("branch", "files"),
            [(branch, ", ".join(files)) for branch, files in branches.items()],
            fold="files",
        )


def _few(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 2 else ", ".join(names)


def _who(one: PlanStep) -> str:
    if not one.step.agents:
        return "-"
    if not one.personas:
        return f"{one.who}?"
    names = ", ".join(persona.id for persona in one.personas)
    return names if names == one.who else f"{one.who}: {names}"


def _step(plan: Plan, one: PlanStep) -> dict[str, Any]:
    return {
        "id": one.id,
        "level": plan.levels[one.id],
        "agents": list(one.step.agents),
        "personas": [persona.capability for persona in one.personas],
        "after": list(one.after),
        "creates": list(one.creates),
        "updates": list(one.updates),
        "gates": [_plain(gate) for gate in one.gates],
        "loop": one.loop,
        "barrier": one.is_barrier,
        "outside": list(one.outside),
    }


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)
