"""What a row is called and says: taken from a payload, if that is an object with such fields.

Everything is cut to a bound and of no other type than the tracker's; what does not fit is left out.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from callboard_broker.wire import Entered, FlowRun, Post

__all__ = ["NOTHING", "Description", "describe_element", "describe_flow", "describe_post"]

_TITLE = 200
_TEXT = 4_000
_WORD = 200
_CRITERIA = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """title: empty if there is none. story, workflow: of agile planning, if it is about one.

    steps: those of a workflow, by their ids.
    """

    title: str = ""
    text: str | None = None
    criteria: tuple[str, ...] = ()
    story: str | None = None
    workflow: str | None = None
    steps: dict[str, Description] = dataclasses.field(default_factory=dict)

    def step(self, name: str) -> Description:
        """Of a step, which is about the same story as the workflow."""
        found = self.steps.get(name, NOTHING)
        return dataclasses.replace(
            found, story=found.story or self.story, workflow=found.workflow or self.workflow
        )


NOTHING = Description()


def describe_post(post: Post) -> Description:
    """A task, by its payload."""
    return _of(_fields(post.payload))


def describe_flow(run: FlowRun) -> Description:
    """A workflow, by its inputs; its steps by their payloads, without what these refer to."""
    found = _of(_fields(run.inputs))
    steps = {step.id: _of(_fields(step.payload)) for step in run.steps}
    return dataclasses.replace(found, title=found.title or run.name, steps=steps)


def describe_element(entered: Entered) -> Description:
    """A workflow inside a step, by its inputs; what it is about is `item`."""
    inputs = _fields(entered.inputs)
    found = _of(inputs)
    item = inputs.get("item")
    if not isinstance(item, dict):
        return found
    story = _text(item.get("id"), _WORD) if found.workflow else None
    return dataclasses.replace(
        found,
        title=_text(item.get("title"), _TITLE) or found.title,
        story=found.story or story,
    )


def _of(fields: dict[str, Any]) -> Description:
    criteria = fields.get("acceptance_criteria")
    listed = criteria[:_CRITERIA] if isinstance(criteria, list) else []
    return Description(
        title=_text(fields.get("title"), _TITLE) or "",
        text=_text(fields.get("description"), _TEXT),
        criteria=tuple(text for text in (_text(one, _TEXT) for one in listed) if text),
        story=_text(fields.get("bmad_story_id"), _WORD),
        workflow=_text(fields.get("bmad_workflow_id"), _WORD),
    )


def _fields(raw: Raw | UnsetType) -> dict[str, Any]:
    if raw is UNSET:
        return {}
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: object, most: int) -> str | None:
    if not isinstance(value, str) or not value.strip():
        return None
    return value.strip()[:most].encode("utf-8", "replace").decode()
