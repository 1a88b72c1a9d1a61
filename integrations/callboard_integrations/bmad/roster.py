"""What was found in a project: its personas, teams and workflows, and what is wrong with its files.

A name in a team or workflow is looked for in its own pack first, then in `core`, then everywhere;
the same name in several packs means none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.diagnostics import Diagnostic
from callboard_integrations.bmad.persona import Persona
from callboard_integrations.bmad.v4_teams import Team
from callboard_integrations.bmad.workflow_file import WorkflowFile

__all__ = ["Roster", "SourceFile"]

Kind = Literal["agent", "team", "workflow", "skill", "list", "order", "override"]
State = Literal["loaded", "mended", "refused"]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was read, and what came of it: mended if something was left out or corrected."""

    path: str
    kind: Kind
    generation: str
    state: State


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """project: the folder in which was looked. folders: those with files, relative to it."""

    project: Path
    folders: tuple[str, ...]
    personas: tuple[Persona, ...]
    teams: tuple[Team, ...]
    workflows: tuple[WorkflowFile, ...]
    files: tuple[SourceFile, ...]
    diagnostics: tuple[Diagnostic, ...]

    def persona(self, name: str, pack: str = "core") -> Persona | None:
        """The persona that `name` means to a file of `pack`, or None."""
        wanted = name.strip().lower()
        found = [one for one in self.personas if wanted in map(str.lower, one.names)]
        for preferred in (pack, "core"):
            near = [one for one in found if one.pack == preferred]
            exact = [one for one in near if one.id.lower() == wanted]
            if exact or near:
                return (exact or near)[0]
        return found[0] if len(found) == 1 else None

    def workflow(self, name: str | None = None) -> WorkflowFile:
        """The workflow of this id, file name or `pack/id`; the only one if `name` is None.

        Raises `BadInput` that lists what there is.
        """
        found = [
            one
            for one in self.workflows
            if name is None
            or name.removesuffix(".yaml").removesuffix(".yml")
            in (one.id, *one.also, f"{one.pack}/{one.id}")
        ]
        if len(found) == 1:
            return found[0]
        there = ", ".join(f"{one.pack}/{one.id}" for one in self.workflows) or "none"
        if name is not None:
            problem = "is the name of several" if found else "is not there"
            raise BadInput("workflow", f"{name!r} {problem}; there are {there}")
        raise BadInput("workflow", f"name one with --workflow; there are {there}")

    def counts(self) -> dict[str, dict[str, int]]:
        """Files by generation and state."""
        found: dict[str, Counter[str]] = {}
        for file in self.files:
            found.setdefault(file.generation, Counter())[file.state] += 1
        return {generation: dict(states) for generation, states in sorted(found.items())}

    def members(self, team: Team) -> Sequence[Persona]:
        """The personas of a team; those that cannot be found are left out."""
        if "*" in team.agents:
            return [one for one in self.personas if one.pack == team.pack]
        found = (self.persona(name, team.pack) for name in team.agents)
        return [one for one in found if one is not None]
