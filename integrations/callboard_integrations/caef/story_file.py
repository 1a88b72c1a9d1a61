"""Reads a story as its author keeps it: acceptance criteria, tasks with subtasks, files.

Headings of both generations of story files are known, in whichever order they stand; what is in a
code fence is no task. A file without criteria and without tasks is refused: nothing could be
planned from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.source_text import lines_of, read_text

__all__ = ["StoryFile", "StoryTask", "read_story"]

_HEADING = re.compile(r"^(#{1,4})\s+(.*?)\s*#*$")
_BOX = re.compile(r"^(\s*)(?:[-*+]|\d+[.)])\s+\[([ xX])\]\s+(.+)$")
_ITEM = re.compile(r"^\s{0,3}(?:[-*+]|\d+[.)])\s+(.+)$")
_ABOUT = re.compile(r"\(\s*AC\s*:?\s*#?\s*([\d,\s#]+)\)", re.IGNORECASE)
_STATUS = re.compile(r"^\**Status\**\s*:\s*\**\s*([\w -]+)", re.IGNORECASE)
_PATH = re.compile(r"`?((?:[\w@+.-]+/)*[\w@+-][\w@+.-]*\.\w{1,8})`?")
_MAX_LINES = 500
_COUNTED = ("acceptance criteria", "tasks", "file list")


@dataclass(slots=True, kw_only=True)
class StoryTask:
    """criteria: the numbers of those that it is about. subtasks: text, and whether it is done."""

    text: str
    done: bool
    criteria: tuple[int, ...] = ()
    subtasks: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def open(self) -> list[str]:
        """The subtasks that are left."""
        return [text for text, done in self.subtasks if not done]


@dataclass(slots=True, kw_only=True)
class StoryFile:
    """text: the whole file. files: those that its file list names, relative to the project."""

    path: Path
    text: str
    title: str = ""
    status: str = ""
    story: str = ""
    criteria: list[str] = field(default_factory=list)
    tasks: list[StoryTask] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def read_story(path: Path, *, inside: Path) -> StoryFile:
    """The story of a file. inside: the folder that it must lie in. Raises `BadInput`."""
    findings = Findings(path.name)
    text = read_text(path, findings, inside=inside)
    if text is None:
        raise BadInput("story", f"{path}: {findings.found[0].message}")
    found = StoryFile(path=path, text=text)
    for section, lines in _sections(lines_of(text), found):
        if len(lines) > _MAX_LINES and section.startswith(_COUNTED):
            raise BadInput(
                "story", f"{path}: {section!r} has more than {_MAX_LINES} lines; split the story"
            )
        if section.startswith("acceptance criteria"):
            found.criteria += _items(lines)
        elif section.startswith("tasks"):
            found.tasks += _tasks(lines)
        elif section.startswith("file list"):
            found.files += [name for line in lines for name in _PATH.findall(line)]
        elif section == "status":
            found.status = next((line.strip("* ") for line in lines if line.strip()), "")
        elif section == "story":
            found.story = " ".join("\n".join(lines).replace("**", "").split())
    if not found.criteria and not found.tasks:
        raise BadInput(
            "story",
            f"{path} has neither acceptance criteria nor tasks: write `## Acceptance Criteria` "
            "with a numbered list, or `## Tasks / Subtasks` with `- [ ]` items",
        )
    return found


def _sections(text: str, found: StoryFile) -> Iterator[tuple[str, list[str]]]:
    """The lines below each heading, by its name in lower case; fences are left out."""
    name, lines, fenced = "", list[str](), False
    for line in text.split("\n"):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif fenced:
            continue
        elif heading := _HEADING.match(line):
            yield name, lines
            name, lines = heading[2].lower().strip("*: "), []
            if heading[1] == "#" and not found.title:
                found.title = heading[2]
        elif status := _STATUS.match(line):
            found.status = found.status or status[1].strip()
        elif len(lines) <= _MAX_LINES:  # one more says that there are too many
            lines.append(line)
    yield name, lines


def _items(lines: list[str]) -> list[str]:
    """List items with the lines that belong to them; without a list, each paragraph."""
    found: list[str] = []
    listed = any(_ITEM.match(line) for line in lines)
    fresh = True
    for line in lines:
        item = _ITEM.match(line)
        if item or (line.strip() and fresh and not listed):
            found.append(item[1].strip() if item else line.strip())
        elif line.strip() and found:
            found[-1] += f" {line.strip()}"
        fresh = not line.strip()
    return found


def _tasks(lines: list[str]) -> list[StoryTask]:
    """Boxes; those that are indented further than the first are subtasks of the one above."""
    found: list[StoryTask] = []
    outer: int | None = None
    for line in lines:
        box = _BOX.match(line)
        if box is None:
            continue
        indent, done, text = len(box[1].expandtabs(4)), box[2] != " ", box[3].strip()
        outer = indent if outer is None else outer
        if indent > outer and found:
            found[-1].subtasks.append((text, done))
            continue
        about = _ABOUT.search(text)
        numbers = tuple(int(word) for word in re.findall(r"\d{1,4}", about[1])) if about else ()
        found.append(StoryTask(text=_ABOUT.sub("", text).strip(), done=done, criteria=numbers))
    return found
