"""What a step's task carries, and what it hands on: the wire between a flow and its agents.

Artifacts travel as data on the edges: the results of the steps before are put together here, so
that no agent needs a file that another one has written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.persona import token

__all__ = [
    "Assignment",
    "Done",
    "ItemsWanted",
    "Noted",
    "Paused",
    "StatusWanted",
    "branches",
    "gathered",
    "is_yes",
]

_MAX_DEPTH = 8


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """Work for a persona.

    run, step: under which names its record is kept. item: of the loop that it is part of. decided:
    whether it is to be done, one answer for each of its gates. sources: artifacts of the steps
    before, as `Done.artifacts` or lists of these. reads: which of them the step names. outside:
    those that no step makes, to be looked for in the project. tokens: of the answer, at most.
    """

    run: str
    step: str
    item: Any = None
    decided: list[Any] = []
    action: str = ""
    uses: str = ""
    notes: str = ""
    brief: str = ""
    creates: list[str] = []
    updates: list[str] = []
    reads: list[str] = []
    outside: list[str] = []
    sources: list[Any] = []
    tokens: int | None = None

    def __post_init__(self) -> None:
        for field in ("run", "step"):
            value = getattr(self, field)
            if token(value) != value:
                raise BadInput(field, f"{value!r:.80} is not a short name of a-z, 0-9, - and _")


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What a step hands on. done: false if somebody decided against it. reused: from its record.

    files: those that were written, relative to the project or to the branch's worktree.
    """

    artifacts: dict[str, str] = {}
    done: bool = False
    reused: bool = False
    files: list[str] = []
    branch: str = ""
    tokens: int | None = None


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """A marker of the workflow: nobody works on it."""

    decided: list[Any] = []
    notes: str = ""


class ItemsWanted(msgspec.Struct, frozen=True, kw_only=True):
    """over: what is gone over, as the workflow says it. given: named when it was posted.

    answers: to checkpoints of stories, given when it was posted. run: whose pauses are over.
    """

    run: str
    over: str
    given: list[str] = []
    sources: list[Any] = []
    answers: dict[str, bool] = {}


class Paused(msgspec.Struct, frozen=True, kw_only=True):
    """run: whose pause is noted, for the waves after. story: after which it is, or nothing.

    decided: whether it goes on; None as the wave begins.
    """

    run: str
    story: str = ""
    decided: list[Any] | None = None


class StatusWanted(msgspec.Struct, frozen=True, kw_only=True):
    """status: which the item shall have; it is set if all of `decided` is yes.

    evidence: and only if one of these is true.
    """

    item: Any
    status: str
    decided: list[Any] = []
    evidence: list[Any] | None = None


def is_yes(decided: list[Any]) -> bool:
    """Whether all answers are yes. Raises `BadInput` for one that is neither yes nor no.

    A list among them holds the answers to questions that may not have been asked at all.
    """
    answers = [each for one in decided for each in (one if isinstance(one, list) else [one])]
    for answer in answers:
        if not isinstance(answer, bool):
            raise BadInput("decided", f"the signal was {answer!r:.80}; give true or false")
    return all(answers)


def gathered(sources: list[Any]) -> dict[str, str]:
    """All artifacts of `sources`, the later over the earlier; those of a loop by item."""
    return dict(_artifacts(sources, "", 0))


def branches(result: Any) -> dict[str, list[str]]:
    """The branches in a workflow's result, each with the files that were committed on it."""
    found: dict[str, dict[str, None]] = {}
    for branch, files in _held(result, 0):
        found.setdefault(branch, {}).update(dict.fromkeys(files))
    return {branch: list(files) for branch, files in found.items()}


def _held(value: Any, depth: int) -> Iterator[tuple[str, list[str]]]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for item in value:
            yield from _held(item, depth + 1)
    elif isinstance(value, dict) and value.get("branch") and isinstance(value.get("files"), list):
        yield value["branch"], value["files"]
    elif isinstance(value, dict):
        for name in ("artifacts", "held"):
            yield from _held(value.get(name), depth + 1)


def _artifacts(value: Any, under: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _MAX_DEPTH:
        raise BadInput("sources", f"nested deeper than {_MAX_DEPTH}")
    if isinstance(value, list):
        for item in value:
            yield from _artifacts(item, under, depth + 1)
    elif isinstance(value, dict) and "item" in value and "artifacts" in value:
        name = value["item"].get("id", "") if isinstance(value["item"], dict) else value["item"]
        yield from _artifacts(value["artifacts"], f"{under}{token(str(name))}/", depth + 1)
    elif isinstance(value, dict):
        for name, text in value.items():
            if isinstance(text, str):
                yield under + name, text
