"""What a workflow file says, whatever dialect it is written in: sequences of steps.

Names of artifacts and agents stand here as people write them (`prd.md (if needed)`, `X OR Y`,
`analyst/pm`, `various`); `Artifact.read` and `WorkflowStep.agents` take them apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from callboard_integrations.bmad.persona import text_of

__all__ = [
    "Artifact",
    "Sequence",
    "WorkflowFile",
    "WorkflowStep",
    "artifacts_of",
    "is_about_stories",
]

_QUALIFIER = re.compile(r"\s*\(([^()]*)\)\s*")
_OR = re.compile(r"\s+OR\s+|\s+or\s+")
_MAX_NAMES = 2000
_EVERYTHING = re.compile(r"(all|any)_\w*(artifacts|documents)\w*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A document that goes from step to step. others: alternatives to it (`X OR Y`).

    is_everything: all that there is so far (`all_artifacts`, `any_flagged_documents`).
    """

    name: str
    is_optional: bool = False
    others: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        return _EVERYTHING.fullmatch(self.name) is not None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.others)

    @classmethod
    def read(cls, text: str) -> Artifact:
        """`prd.md (if needed)`: the name, and what the brackets say of it."""
        said = " ".join(_QUALIFIER.findall(text)).lower()
        name, *others = _OR.split(_QUALIFIER.sub(" ", text).strip())
        return cls(name.strip(), "optional" in said or "if needed" in said, tuple(others))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowStep:
    """One step as its file has it. agents: one, or those among which is to be chosen.

    optional_steps: what may be done before it. routes: by name, one of which is taken. repeats: for
    each of what it is done. follows: it goes on with what the repeated step before it began.
    """

    name: str
    agents: tuple[str, ...] = ()
    action: str = ""
    creates: tuple[Artifact, ...] = ()
    requires: tuple[Artifact, ...] = ()
    updates: tuple[Artifact, ...] = ()
    validates: tuple[Artifact, ...] = ()
    uses: str = ""
    condition: str = ""
    is_optional: bool = False
    optional_steps: tuple[str, ...] = ()
    routes: tuple[tuple[str, WorkflowStep], ...] = ()
    repeats: str = ""
    follows: bool = False
    notes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    name: str
    steps: tuple[WorkflowStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFile:
    """dialect: `sequence`, `phases`, `steps` or `order`. sequences: one of them is run."""

    id: str
    pack: str
    path: str
    name: str
    description: str
    dialect: str
    sequences: tuple[Sequence, ...]
    also: tuple[str, ...] = ()


def is_about_stories(over: str) -> bool:
    """Whether a loop goes over stories, whose status is kept in a file."""
    return any(word in over.lower() for word in ("epic", "stor"))


def artifacts_of(value: Any) -> tuple[Artifact, ...]:
    """A list, one text, or a text with commas outside of brackets."""
    texts = [text_of(item) for item in value] if isinstance(value, list) else [text_of(value)]
    parts = [part for text in texts for part in re.split(r",\s*(?![^(]*\))", text[:_MAX_NAMES])]
    return tuple(Artifact.read(part) for part in parts if part.strip())
