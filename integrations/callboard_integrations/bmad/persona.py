"""One persona, whatever generation its file is of: what is known of it, and its text unmodified.

The text is what a model gets as its system prompt, byte for byte; the other fields are read from it
to list, find and match the persona. What a project's own files change of it stands in `overrides`,
never in the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Command", "Persona", "text_of", "texts_of", "token"]

_MAX_TOKEN = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a persona can be told to do. argument: such as `{story}`, or nothing."""

    name: str
    argument: str = ""
    says: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persona:
    """id: within its pack. pack: `core`, an expansion pack or a module. raw: the file's text.

    also: other names by which it is found, such as that of its file. path: relative to the project.
    overrides: the merged fields of customization files, as they are told to the model beside `raw`.
    """

    id: str
    pack: str
    generation: str
    path: str
    raw: str
    name: str = ""
    title: str = ""
    icon: str = ""
    when_to_use: str = ""
    role: str = ""
    style: str = ""
    identity: str = ""
    focus: str = ""
    principles: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def capability(self) -> str:
        """What its tasks are posted to."""
        return f"persona.{token(self.pack)}.{token(self.id)}"

    @property
    def names(self) -> tuple[str, ...]:
        """All names by which a team or workflow may mean it."""
        return (self.id, *self.also)


def token(text: str) -> str:
    """`text` as a part of a subject: lower case, with dashes for whatever may not stand there."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")
    return plain[:_MAX_TOKEN] or "unnamed"


def text_of(value: Any) -> str:
    """A scalar as its file has it; a one-key mapping as `key: value`; nothing for null."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return "; ".join(f"{key}: {text_of(item)}".rstrip(": ") for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(text_of, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).strip()


def texts_of(value: Any) -> tuple[str, ...]:
    """A list, one text, or a text of `- ` lines, as texts."""
    if isinstance(value, str) and value.lstrip().startswith("- "):
        items = re.split(r"^[ \t]*- ", value, flags=re.MULTILINE)
        return tuple(" ".join(item.split()) for item in items if item.strip())
    items = value if isinstance(value, list) else [value]
    return tuple(text for text in map(text_of, items) if text)
