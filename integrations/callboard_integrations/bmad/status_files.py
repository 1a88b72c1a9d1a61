"""The file that says how far each story is: read by anyone, written by one, never set back.

A status is changed in its line, so that comments and order stay as they are. A story that is
further already, or has a status that is not known here, keeps it; an epic begins with its first
story and is done with its last.
"""

from __future__ import annotations

import re
from pathlib import Path

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.places import walk
from callboard_integrations.bmad.project_files import KEPT, locked, write_whole
from callboard_integrations.bmad.source_text import lines_of, read_text
from callboard_integrations.bmad.tolerant_yaml import parse_yaml

__all__ = ["STATUSES", "StatusFile", "find_status_file"]

STATUSES = ("backlog", "drafted", "ready-for-dev", "in-progress", "review", "done")
"""Of a story, in their order; an epic knows the first, `in-progress` and `done`."""

_NAME = "sprint-status.yaml"
_SECTION = "development_status"
_LINE = re.compile(r"^(\s+)([\w.-]+):([ \t]*)([\w-]*)(.*)$")
_STORY = re.compile(r"(\d+)[-.](\d+)")
_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,120}")


def find_status_file(project: Path) -> Path:
    """The project's own, wherever it keeps it; else where one is begun."""
    for path in walk(project):
        if path.name == _NAME:
            return path
    return project / "docs" / "stories" / _NAME


class StatusFile:
    """path: of the file, which may not exist yet. project: the folder that it lies in."""

    def __init__(self, path: Path, project: Path) -> None:
        self.path = path
        self._project = project

    def read(self) -> dict[str, str]:
        """The statuses by their key, in the file's order; nothing if there is no file.

        Raises `BadInput` if it is there and cannot be read: it is not taken for an empty one.
        """
        if not self.path.exists():
            return {}
        findings = Findings(self.path.name)
        text = read_text(self.path, findings, inside=self._project)
        found = {} if text is None else parse_yaml(lines_of(text), findings)
        if any(one.severity != "note" for one in findings.found):
            raise BadInput("status", f"{findings.found[0]}")
        section = found.get(_SECTION) or {}
        if not isinstance(section, dict):
            raise BadInput("status", f"{self.path.name}: {_SECTION} is not a mapping")
        return {str(key): str(value) for key, value in section.items() if value is not None}

    def of(self, key: str) -> str | None:
        """The status of a story, by its key in the file or its number; None if it has none.

        Raises `BadInput`, as `read`.
        """
        found = self.read()
        return found.get(_key_in(found, key))

    def raise_to(self, key: str, status: str) -> str:
        """Set the status of a story, unless it is further already; the status that it then has.

        key: as in the file, or the story's number: `1.2` means `1-2-its-title`. Raises `BadInput`.
        """
        if status not in STATUSES:
            raise BadInput("status", f"{status!r} is none of {', '.join(STATUSES)}")
        with locked(self._project / KEPT / "personas" / "status.lock"):
            found = self.read()
            own = _key_in(found, key)
            now = found.get(own)
            if now is not None and (now not in STATUSES or _rank(now) >= _rank(status)):
                return now
            changed = {own: status}
            if epic := _epic_of(own):
                stories = {name: value for name, value in found.items() if _epic_of(name) == epic}
                done = all(value == "done" for value in (stories | changed).values())
                of_epic = "done" if done else "in-progress"
                begun = _rank(status) >= _rank("in-progress")
                if epic in found and begun and _rank(found[epic]) < _rank(of_epic):
                    changed[epic] = of_epic
            self._write(changed)
        return status

    def _write(self, changed: dict[str, str]) -> None:
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else f"{_SECTION}:\n"
        lines = [str(line) for line in text.splitlines(keepends=True)]
        left = dict(changed)
        inside = False
        last = len(lines)
        for number, line in enumerate(lines):
            if re.match(rf"{_SECTION}\s*:", line):
                inside, last = True, number + 1
            elif inside and (found := _LINE.match(line.rstrip("\r\n"))):
                last = number + 1
                if found[2] in left:
                    ending = line[len(line.rstrip("\r\n")) :]
                    new = left.pop(found[2])
                    lines[number] = f"{found[1]}{found[2]}: {new}{found[5]}{ending}"
            elif inside and line.strip() and not line.startswith((" ", "\t", "#")):
                inside = False
        if last and not lines[last - 1].endswith("\n"):
            lines[last - 1] += "\n"
        lines[last:last] = [f"  {key}: {value}\n" for key, value in left.items()]
        write_whole(self.path, "".join(lines))


def _rank(status: str) -> int:
    return STATUSES.index(status) if status in STATUSES else -1


def _epic_of(key: str) -> str:
    found = _STORY.match(key)
    return f"epic-{found[1]}" if found else ""


def _key_in(found: dict[str, str], key: str) -> str:
    """The file's own key for a story: itself, or the one with its number."""
    if key in found:
        return key
    number = _STORY.match(key)
    if number:
        short = f"{number[1]}-{number[2]}"
        for name in found:
            if name == short or name.startswith(f"{short}-"):
                return name
        key = key.replace(".", "-", 1)
    if _KEY.fullmatch(key) is None:
        raise BadInput("item", f"{key!r:.120} cannot be a key of {_NAME}")
    return key
