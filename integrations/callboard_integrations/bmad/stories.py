"""Which items a loop goes over, and in which order: stories epic by epic, or parts of documents.

What was named when the run was started; else stories of the status file that are not done, and
those of `stories.yaml`, or of headings such as `Story 1.2: Title` in what the steps before have
written, that have no status yet. Of other loops, headings or list items of the documents. A story
of which `stories.yaml` wants a `done_checkpoint` is the last of its wave: nothing of the next wave
begins before somebody has said so.
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
from callboard_integrations.bmad.places import walk
from callboard_integrations.bmad.source_text import lines_of, read_text
from callboard_integrations.bmad.status_files import StatusFile, find_status_file
from callboard_integrations.bmad.workflow_file import is_about_stories

__all__ = ["CHECKPOINTS", "find_checkpoints", "find_items", "waves_of"]

CHECKPOINTS = ("spec_checkpoint", "done_checkpoint")
"""Where `stories.yaml` wants a person: before a story is implemented, and after it is done."""

_MAX_ITEMS = 500
_KEY = re.compile(r"(\d+)-(\d+)(?:-(.+))?")
_EPIC = re.compile(r"(\d+)[.-]\d")
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
    stories = is_about_stories(over)
    statuses = _statuses(project) if stories else {}
    rows = _of_list(project) if stories else []
    if given:
        known = {row["id"]: row for row in rows}
        found = [known.get(name, {"id": name, "title": name}) for name in dict.fromkeys(given)]
    elif stories:
        found = _open(statuses, rows or _of_headings(texts))
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


def find_checkpoints(project: Path) -> dict[str, tuple[str, ...]]:
    """The stories of `stories.yaml` that are not done and want a checkpoint, by its name."""
    rows = _of_list(project)
    left = _open(_statuses(project), rows) if rows else []
    found = {name: tuple(one["id"] for one in left if one.get(name)) for name in CHECKPOINTS}
    return {name: stories for name, stories in found.items() if stories}


def waves_of(
    stories: Sequence[Mapping[str, Any]], answers: Mapping[str, bool]
) -> list[dict[str, Any]]:
    """The stories by epic, in waves that end with a `done_checkpoint`, for the workflow to go over.

    answers: to checkpoints; what was answered is asked nobody. The checkpoints are no part of what
    the model is told of a story.
    """
    waves: list[dict[str, Any]] = []
    epics: dict[str, list[Any]] = {}
    for number, story in enumerate(stories):
        item = {name: value for name, value in story.items() if name not in CHECKPOINTS}
        asked = _asked(story, "spec_checkpoint", answers)
        epics.setdefault(_epic_of(story), []).append({"item": item, **asked})
        pauses = story.get("done_checkpoint") is True
        if pauses or number == len(stories) - 1:
            wave = [{"stories": found} for found in epics.values()]
            after = {"story": story["id"] if pauses else ""}
            waves.append({"epics": wave, **after, **_asked(story, "done_checkpoint", answers)})
            epics = {}
    return waves


def _asked(
    story: Mapping[str, Any], checkpoint: str, answers: Mapping[str, bool]
) -> dict[str, list[Any]]:
    """asks: one element if somebody is to be asked. decided: what was answered before."""
    wanted = story.get(checkpoint) is True
    answer = answers.get(checkpoint)
    return {
        "asks": [story["id"]] if wanted and answer is None else [],
        "decided": [answer] if wanted and answer is not None else [],
    }


def _epic_of(story: Mapping[str, Any]) -> str:
    """The number before that of the story, or nothing: those are together, too."""
    found = _EPIC.match(str(story["id"]))
    return str(story.get("epic") or (found[1] if found else ""))


def _statuses(project: Path) -> dict[str, str]:
    """Of the stories, and of whatever else has one that is no epic."""
    found = StatusFile(find_status_file(project), project).read()
    return {key: status for key, status in found.items() if not key.startswith("epic-")}


def _open(statuses: Mapping[str, str], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The stories that are not done: those with a status alone first, then `rows` in their order.

    A story with a status is told as its row tells it, so that it is the same in every run; its id
    is the status file's.
    """
    found = []
    places: dict[str, int] = {
        row["id"].replace(".", "-"): number for number, row in enumerate(rows)
    }
    known: dict[str, str] = {}
    for key, status in statuses.items():
        parts = _KEY.fullmatch(key)
        own = next((name for name in _names(key) if name in places), None)
        if own is not None:
            known[own] = key
        elif parts and status != "done":
            title = (parts[3] or key).replace("-", " ")
            found.append({"id": key, "epic": parts[1], "title": title})
    for name, number in places.items():
        key = known.get(name, name)
        if statuses.get(key) != "done":
            found.append(rows[number] if key == name else {**rows[number], "id": key})
    return found


def _names(key: str) -> tuple[str, str]:
    """`1-2-wheel`, and its number `1-2`."""
    return key, "-".join(key.split("-")[:2])


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
        for name in CHECKPOINTS:
            if not isinstance(row.get(name, False), bool):
                raise BadInput(
                    "items", f"{path.name}: {name} of {row['id']!r} is not true or false"
                )
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
