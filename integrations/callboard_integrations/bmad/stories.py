"""Which items a loop goes over: stories of the status file, of `stories.yaml`, or of documents.

What was named when the run was started; else stories of the status file that are not done, and
those of `stories.yaml`, or of headings such as `Story 1.2: Title` in what the steps before have
written, that have no status yet. Of other loops, headings or list items of the documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from callboard_broker.errors import BadInput
from callboard_config.document import parse_value
from callboard_config.errors import SettingsError
from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.flow import is_about_stories
from callboard_integrations.bmad.places import walk
from callboard_integrations.bmad.source_text import lines_of, read_text
from callboard_integrations.bmad.status_files import StatusFile, find_status_file

__all__ = ["find_items"]

_MAX_ITEMS = 500
_KEY = re.compile(r"(\d+)-(\d+)(?:-(.+))?")
_STORY = re.compile(
    r"^[#*\- \t]{0,12}Story[ \t]+(\d{1,4})[ ]?[.-][ ]?(\d{1,4})\b[ \t]*[:.-]?[ \t]*(.{0,200})",
    re.IGNORECASE | re.MULTILINE,
)
_PART = re.compile(
    r"^#{1,4}\s*((?:chapter|scene|section|part|installment|episode)\s+[\w.]+.*)$",
    re.IGNORECASE | re.MULTILINE,
)
_ITEM = re.compile(r"^\s{0,3}(?:[-*]|\d+[.)])\s+(\S.*)$", re.MULTILINE)


def find_items(
    project: Path, over: str, given: Sequence[str], texts: Mapping[str, str]
) -> list[dict[str, Any]]:
    """At most 500 items with `id` and `title`; none if all stories are done already.

    Raises `BadInput` if nothing is found to go over, or too much.
    """
    statuses = _statuses(project) if is_about_stories(over) else {}
    if given:
        found = [{"id": name, "title": name} for name in dict.fromkeys(given)]
    elif is_about_stories(over):
        found = _of_status(statuses) + _new(statuses, _of_list(project) or _of_headings(texts))
    else:
        found = _of_documents(over, texts)
    if len(found) > _MAX_ITEMS:
        raise BadInput("items", f"{len(found)} items to go over; at most {_MAX_ITEMS}")
    if not found and not statuses:
        raise BadInput(
            "items",
            f"nothing is found for {over!r}: write headings such as `### Story 1.1: Title`, keep a "
            "sprint-status.yaml or stories.yaml in the project, or name them with --item",
        )
    return found


def _statuses(project: Path) -> dict[str, str]:
    """Of the stories alone."""
    found = StatusFile(find_status_file(project), project).read()
    return {key: status for key, status in found.items() if _KEY.fullmatch(key)}


def _of_status(statuses: Mapping[str, str]) -> list[dict[str, Any]]:
    """Those that are not done yet."""
    found = []
    for key, status in statuses.items():
        parts = _KEY.fullmatch(key)
        if parts and status != "done":
            title = (parts[3] or key).replace("-", " ")
            found.append({"id": key, "epic": parts[1], "title": title})
    return found


def _new(statuses: Mapping[str, str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those whose number, or whole id, has no status yet."""
    known = {part for key in statuses for part in (key, "-".join(key.split("-")[:2]))}
    return [row for row in rows if row["id"].replace(".", "-") not in known]


def _of_list(project: Path) -> list[dict[str, Any]]:
    """`stories.yaml`: an ordered list, without statuses."""
    path = next((one for one in walk(project) if one.name == "stories.yaml"), None)
    if path is None:
        return []
    text = read_text(path, Findings(path.name), inside=project)
    try:
        rows = parse_value(lines_of(text or ""), key="", source=path.name)
    except SettingsError as error:
        raise BadInput("items", f"{path.name}: {error.reason}") from error
    if not isinstance(rows, list):
        raise BadInput("items", f"{path.name} is not a list of stories")
    found: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise BadInput("items", f"{path.name}: entry {number + 1} has no `id` in quotes")
        if any(row["id"] == other["id"] for other in found):
            raise BadInput("items", f"{path.name}: the id {row['id']!r} stands twice")
        found.append({"title": row["id"], **row})
    return found


def _of_headings(texts: Mapping[str, str]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for text in texts.values():
        for epic, number, title in _STORY.findall(text):
            own = f"{epic}.{number}"
            found.setdefault(own, {"id": own, "epic": epic, "title": title.strip("*: ")})
    return list(found.values())


def _of_documents(over: str, texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """The parts of the document of this name, else of all: headings first, then list items."""
    chosen = [texts[over]] if over in texts else list(texts.values())
    for pattern in (_PART, _ITEM):
        titles = dict.fromkeys(
            title.strip()[:200] for text in chosen for title in pattern.findall(text)
        )
        if titles:
            return [
                {"id": f"{number:03}", "title": title} for number, title in enumerate(titles, 1)
            ]
    return []
