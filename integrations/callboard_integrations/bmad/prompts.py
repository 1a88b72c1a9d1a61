"""What a persona is asked, and how its answer is taken apart into artifacts.

The persona's own text is never touched: everything else, such as the task, what the project
customizes, the persona's templates and the artifacts of earlier steps, stands in the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from callboard_integrations.bmad.assignment import Assignment
from callboard_integrations.bmad.persona import Persona
from callboard_integrations.bmad.project_files import is_file_name

__all__ = ["prompt_for", "taken_apart"]

_NOTHING: Mapping[str, str] = MappingProxyType({})
_PART = re.compile(r"^=== (\S[^\n]{0,200}?) ===[ \t]*\n", re.MULTILINE)


def prompt_for(
    assignment: Assignment,
    persona: Persona,
    given: Mapping[str, str],
    *,
    own: Mapping[str, str] = _NOTHING,
    left_out: Sequence[str] = (),
) -> str:
    """The task in words. given: the artifacts of the steps before, by name.

    own: files of the persona's that the step names. left_out: those that were too much.
    """
    task = assignment
    lines = [f"Step: {task.action or task.step}"]
    if task.brief:
        lines.append(f"The project: {task.brief}")
    if task.item is not None:
        lines.append(f"Work on this one: {msgspec.json.encode(task.item).decode()}")
    if task.uses:
        lines.append(f"Use: {task.uses}")
    if task.notes:
        lines.append(f"Notes:\n{task.notes.strip()}")
    if persona.overrides:
        said = msgspec.json.format(msgspec.json.encode(persona.overrides, enc_hook=str)).decode()
        lines.append(f"The project's customization of you:\n{said}")
    lines.append(_wanted(task.creates, task.updates))
    wanted = set(task.reads)
    near = {name: text for name, text in given.items() if name in wanted} or given
    missing = [name for name in task.reads if name not in given]
    if missing:
        lines.append(f"Not there, so go on without: {', '.join(missing)}")
    if left_out:
        lines.append(f"Too large to be given here: {', '.join(left_out)}")
    lines += [f"=== your own {name} ===\n{text}" for name, text in own.items()]
    lines += [f"=== {name} ===\n{text}" for name, text in near.items()]
    return "\n\n".join(lines) + "\n"


def _wanted(creates: Sequence[str], updates: Sequence[str]) -> str:
    names = [*creates, *updates]
    if not names:
        return "Answer with your findings. Work on your own: nobody answers questions."
    what = ", ".join(
        [f"create {name}" for name in creates] + [f"update {name}" for name in updates]
    )
    return (
        f"Now {what}. Answer with the whole content and nothing else. Before each document or file "
        "write a line `=== its name ===`, if there are several. Work on your own: nobody answers "
        "questions."
    )


def taken_apart(text: str, names: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The artifacts of `names` in an answer, and further files by their path.

    The first artifact is the whole answer, if it has no part of its own.
    """
    marks = list(_PART.finditer(text))
    parts: dict[str, str] = {}
    for mark, following in zip(marks, [*marks[1:], None], strict=False):
        parts[mark[1].strip()] = text[mark.end() : following.start() if following else len(text)]
    artifacts = {name: part for name, part in parts.items() if name in names}
    files = {name: part for name, part in parts.items() if name not in names and is_file_name(name)}
    if names and names[0] not in artifacts:
        artifacts[names[0]] = text
    return artifacts, files
