"""Checks what files say of each other: agents and workflows that are named and do not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from callboard_integrations.bmad.diagnostics import Diagnostic
from callboard_integrations.bmad.persona import Persona
from callboard_integrations.bmad.roster import Roster
from callboard_integrations.bmad.source_text import line_of, lines_of
from callboard_integrations.bmad.workflow_file import WorkflowStep

__all__ = ["ANYONE", "crosscheck"]

ANYONE = frozenset({"various", "any"})
"""What workflows write for: whoever made what is to be changed."""


def crosscheck(roster: Roster, texts: Mapping[str, str]) -> Iterator[Diagnostic]:
    """texts: of the files by their path, for lines."""
    files = {name for one in roster.workflows for name in (one.id, *one.also)}
    files |= {Path(one.path).stem for one in roster.workflows}
    for team in roster.teams:
        for name in team.agents:
            if name != "*" and roster.persona(name, team.pack) is None:
                yield _missing(texts, team.path, name, "the team's agent", "agent-missing")
        for name in team.workflows:
            if Path(name).stem not in files and name not in files:
                yield _missing(texts, team.path, name, "the team's workflow", "workflow-missing")
    for workflow in roster.workflows:
        named = {
            name
            for sequence in workflow.sequences
            for step in sequence.steps
            for name in _agents(step)
        }
        for name in sorted(named - ANYONE):
            if roster.persona(name, workflow.pack) is None:
                yield _missing(texts, workflow.path, name, "the step's agent", "agent-missing")
    for persona in roster.personas:
        if persona.generation == "v4":
            yield from _dependencies(roster.project, persona)


def _agents(step: WorkflowStep) -> Iterator[str]:
    yield from step.agents
    for _, route in step.routes:
        yield from route.agents


def _missing(texts: Mapping[str, str], path: str, name: str, what: str, code: str) -> Diagnostic:
    line = line_of(lines_of(texts.get(path, "")), rf"(?<![\w-]){re.escape(name)}(?![\w-])")
    return Diagnostic(
        path=path,
        line=line,
        severity="warning",
        code=code,
        message=f"{what} {name!r} is not there, or in several packs",
    )


def _dependencies(project: Path, persona: Persona) -> Iterator[Diagnostic]:
    """A dependency is a file `{root}/{kind}/{name}`, whose ending is sometimes left out.

    Where a kind's folder is missing as a whole, nothing is said: a project may hold agents alone.
    """
    root = (project / persona.path).parent.parent
    for kind, names in persona.dependencies.items():
        folder = root / kind
        if re.fullmatch(r"[\w-]+", kind) is None or not folder.is_dir():
            continue
        there = {name for file in folder.iterdir() for name in (file.name, file.stem)}
        for name in names:
            if name not in there:
                yield Diagnostic(
                    path=persona.path,
                    line=None,
                    severity="warning",
                    code="dependency-missing",
                    message=f"it needs {kind}/{name}, which is not there",
                )
