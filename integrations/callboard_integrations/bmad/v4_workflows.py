"""Reads a workflow of generation 4 in any of its three dialects into sequences of steps.

`workflow.sequence` (or `<name>_sequence`, one of which is to be chosen), `workflow.phases`, or
`steps` at the top level. A marker between the steps, such as `workflow_end:`, becomes a step
without an agent.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.persona import text_of, texts_of
from callboard_integrations.bmad.source_text import line_of, lines_of
from callboard_integrations.bmad.tolerant_yaml import parse_yaml
from callboard_integrations.bmad.workflow_file import (
    Sequence,
    WorkflowFile,
    WorkflowStep,
    artifacts_of,
)

__all__ = ["read_workflow"]

_MAX_STEPS = 200
_STEP_KEYS = frozenset(
    {
        *(
            "agent",
            "step",
            "id",
            "title",
            "action",
            "task",
            "notes",
            "duration",
            "uses",
            "template",
        ),
        *("creates", "output", "outputs", "requires", "input", "inputs", "implements"),
        *("updates", "validates", "condition", "optional", "optional_steps", "routes", "continue"),
        *("repeats", "repeat", "repeat_for"),
    }
)


def read_workflow(text: str, findings: Findings, *, pack: str, stem: str) -> WorkflowFile | None:
    """The workflow in `text`, or None with an error."""
    plain = lines_of(text)
    found = parse_yaml(plain, findings)
    said = found.get("workflow")
    if isinstance(said, dict):
        sequences, dialect = _nested(said, findings, plain)
    elif isinstance(found.get("steps"), list):
        said, dialect = found, "steps"
        steps = _steps(found["steps"], findings, plain)
        sequences = [Sequence(name="steps", steps=steps)]
    else:
        findings.error("no-workflow", "there is neither `workflow` nor `steps`", 1)
        return None
    sequences = [sequence for sequence in sequences if sequence.steps]
    if not sequences:
        findings.error("no-steps", "the workflow has no steps", line_of(plain, r"^workflow:"))
        return None
    own = text_of(said.get("id")) or text_of(found.get("name")) or stem
    return WorkflowFile(
        id=own,
        pack=pack,
        path=findings.path,
        name=text_of(said.get("title")) or text_of(said.get("name")) or own,
        description=text_of(said.get("description")),
        dialect=dialect,
        sequences=tuple(sequences),
        also=() if own == stem else (stem,),
    )


def _nested(said: dict[str, Any], findings: Findings, plain: str) -> tuple[list[Sequence], str]:
    if isinstance(phases := said.get("phases"), dict):
        steps: list[WorkflowStep] = []
        for phase, items in phases.items():
            of_phase = _steps(items, findings, plain)
            if "loop" in str(phase).lower():
                of_phase = _together(of_phase)
            steps += of_phase
        return [Sequence(name="phases", steps=tuple(steps))], "phases"
    sequences: list[Sequence] = []
    for name, items in said.items():
        if name == "sequence" or name.endswith("_sequence"):
            steps = list(_steps(items, findings, plain))
            sequences.append(Sequence(name=name, steps=_together(tuple(steps))))
        elif name.endswith("workflow_end") and sequences:
            last = sequences[-1]
            end = _marker(name, items)
            sequences[-1] = Sequence(name=last.name, steps=(*last.steps, end))
    return sequences, "sequence"


def _together(steps: tuple[WorkflowStep, ...]) -> tuple[WorkflowStep, ...]:
    """Let the steps after a repeated one be repeated with it, up to the step that says `repeat`.

    Without such a step, up to the last one that works on what the repeated ones have made.
    """
    first = next((at for at, step in enumerate(steps) if step.repeats), None)
    if first is None:
        return steps
    says = [at for at in range(first + 1, len(steps)) if _says_repeat(steps[at])]
    made = {artifact.name for artifact in steps[first].creates}
    last = first
    for at in range(first + 1, says[0] if says else len(steps)):
        step = steps[at]
        worked_on = {part.name for part in (*step.requires, *step.updates)}
        if says or worked_on & made:
            made |= {part.name for part in step.creates}
            last = at
    return tuple(
        replace(step, follows=True) if first < at <= last else step for at, step in enumerate(steps)
    )


def _says_repeat(step: WorkflowStep) -> bool:
    return not step.agents and (step.name.startswith("repeat") or "continue_for" in step.action)


def _steps(items: Any, findings: Findings, plain: str) -> tuple[WorkflowStep, ...]:
    if not isinstance(items, list):
        findings.warning("no-list", "a sequence is a list of steps; this one is left out")
        return ()
    if len(items) > _MAX_STEPS:
        findings.warning("too-many", f"{len(items)} steps; the first {_MAX_STEPS} are read")
    found = []
    for item in items[:_MAX_STEPS]:
        if isinstance(item, str):
            found.append(WorkflowStep(name=item))
        elif not isinstance(item, dict):
            findings.warning("no-step", f"{item!r:.40} is no step; it is left out")
        elif len(item) == 1 and not _STEP_KEYS & item.keys():
            (name, inside), *_ = item.items()
            found.append(_marker(name, inside))
        else:
            found.append(_named(item, findings, plain))
    return tuple(found)


def _named(item: dict[str, Any], findings: Findings, plain: str) -> WorkflowStep:
    """A step; without agent and name, a key that is none of a step's own is its name."""
    step = _step(item)
    for unknown in sorted(map(str, item.keys() - _STEP_KEYS)):
        if not (step.agents or "step" in item or "id" in item):
            return replace(step, name=unknown)
        findings.note(
            "unknown-key",
            f"`{unknown}` of a step is not known, and kept out of the plan",
            line_of(plain, rf"^[ \t]+(?:- )?{re.escape(unknown)}:"),
        )
    return step


def _marker(name: str, inside: Any) -> WorkflowStep:
    if isinstance(inside, dict):
        return replace(_step(inside), name=str(name))
    return WorkflowStep(name=str(name), notes=text_of(inside))


def _step(item: dict[str, Any]) -> WorkflowStep:
    agents = tuple(part.strip() for part in re.split(r"[/|]", text_of(item.get("agent"))))
    action = text_of(item.get("action")) or text_of(item.get("task")) or text_of(item.get("title"))
    routes = item.get("routes")
    requires = artifacts_of(item.get("requires") or item.get("input") or item.get("inputs"))
    named = text_of(item.get("step")) or text_of(item.get("id"))
    return WorkflowStep(
        name=named or action or agents[0],
        agents=tuple(filter(None, agents)),
        action=action,
        creates=artifacts_of(item.get("creates") or item.get("output") or item.get("outputs")),
        requires=(*requires, *artifacts_of(item.get("implements"))),
        updates=artifacts_of(item.get("updates")),
        validates=artifacts_of(item.get("validates")),
        uses=text_of(item.get("uses") or item.get("template")),
        condition=text_of(item.get("condition")),
        is_optional=item.get("optional") is True,
        optional_steps=texts_of(item.get("optional_steps")),
        routes=tuple(
            (str(name), _step(inside) if isinstance(inside, dict) else WorkflowStep(name=str(name)))
            for name, inside in (routes.items() if isinstance(routes, dict) else ())
        ),
        repeats=text_of(item.get("repeats") or item.get("repeat") or item.get("repeat_for")),
        notes=text_of(item.get("notes")),
    )
