"""Asks whoever writes the code for edits: one request, with all that it needs, in a fresh context.

It sees the story, the plan, what is to be avoided and the files that the plan speaks of, as they
are in the story's own worktree. Its answer is a JSON list of edits; anything else is refused.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.places import walk
from callboard_integrations.bmad.project_files import inside
from callboard_integrations.bmad.runner import Request
from callboard_integrations.bmad.source_text import read_text
from callboard_integrations.caef.edits import parse_edits
from callboard_integrations.caef.records import Edit, Planned
from callboard_integrations.caef.story_file import StoryFile

__all__ = ["edits_in", "request_for"]

_MAX_TEXT = 256 * 1024
_MAX_NAMES = 300
_LIST = re.compile(r"\[\s*\{")
_decode = json.JSONDecoder().raw_decode

_SYSTEM = """You change the code of a project so that a story is done and its tests pass.

Answer with a JSON list of edits and nothing else:
[{"file": "src/a.py", "original_snippet": "...", "replacement_snippet": "..."}]

- original_snippet is copied exactly, white space included, and stands in the file exactly once:
  take as many lines around it as that needs.
- Edits of one file are made one after the other. If one edit does not fit, none is made.
- An empty original_snippet makes a new file with the replacement_snippet as its content.
- Files are named relative to the project. Files that you change yourself do not count.
- Work on your own: nobody answers questions.
"""


def request_for(story: StoryFile, planned: Planned, folder: Path, tokens: int | None) -> Request:
    """What the author is asked. folder: the project as it is now. tokens: of the answer."""
    plan = planned.plan
    lines = ["The story:", story.text[:_MAX_TEXT], "The plan of this iteration:"]
    for number, step in enumerate(plan.steps, 1):
        lines.append(f"{number}. {step.title}")
        lines += [f"   - {detail}" for detail in step.details]
    lines += ["It is done when:", *(f"- {check}" for check in plan.success_checks)]
    if planned.standing.avoid:
        lines += ["Avoid what has led nowhere:", *(f"- {one}" for one in planned.standing.avoid)]
    lines += _files(plan.suspect_scope, folder)
    return Request(system=_SYSTEM, prompt="\n".join(lines) + "\n", folder=folder, tokens=tokens)


def edits_in(answer: str) -> list[Edit]:
    """The list in an answer, also in a code fence or between words. Raises `BadInput`."""
    start, end = answer.find("["), answer.rfind("]") + 1
    for place in _LIST.finditer(answer):
        try:
            start, end = place.start(), _decode(answer, place.start())[1]
            break
        except (ValueError, RecursionError):
            continue  # it is of what is said around the list, which may have brackets too
    if start < 0 or end < start:
        raise BadInput("answer", "there is no JSON list of edits in it")
    return parse_edits(answer[start:end].encode("utf-8", "replace"), "the answer")


def _files(names: list[str], folder: Path) -> list[str]:
    """The contents of those that are there, and the names of all."""
    listed = [str(path.relative_to(folder)) for path in walk(folder)][:_MAX_NAMES]
    lines = [f"Files of the project: {', '.join(listed)}"]
    left = _MAX_TEXT
    for name in names:
        try:
            path = inside(folder, name)
        except BadInput:
            continue  # a name in a story or a traceback that is no file of the project
        text = read_text(path, Findings(name), inside=folder) if path.is_file() else None
        if text is not None and len(text) <= left:
            left -= len(text)
            lines.append(f"=== {name} ===\n{text}")
    return lines
