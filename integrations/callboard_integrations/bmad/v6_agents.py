"""Reads a persona of generation 6: the source YAML, or the Markdown that is compiled from it.

The compiled form holds something like XML whose attributes are not escaped, so it is searched for
what is known rather than parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.persona import Command, Persona, text_of, texts_of
from callboard_integrations.bmad.source_text import line_of, lines_of
from callboard_integrations.bmad.tolerant_yaml import parse_yaml

__all__ = ["customized", "is_compiled", "read_agent_yaml", "read_compiled"]

# Bounded, so that a file of nothing but beginnings is read in one pass.
_AGENT = re.compile(r"<agent\b((?:[^<>\"]|\"[^\"]{0,500}\"){0,400})>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"([\w-]+)=\"(.*?)\"(?=\s+[\w-]+=|\s*/?\s*\Z)", re.DOTALL)
_ITEM = re.compile(r"<(?:item|c|cmd)\b([^<]{0,2000})>([^<]{0,4000})</", re.IGNORECASE)


def read_agent_yaml(text: str, findings: Findings, *, pack: str, stem: str) -> Persona | None:
    """The persona of an `*.agent.yaml`, or None with an error."""
    plain = lines_of(text)
    said = parse_yaml(plain, findings).get("agent")
    if not isinstance(said, dict) or not isinstance(said.get("metadata"), dict):
        findings.error("no-agent", "there is no `agent.metadata` with name and title", 1)
        return None
    about = said["metadata"]
    persona = said.get("persona")
    if not isinstance(persona, dict):
        findings.warning("no-persona", "there is no `agent.persona`", line_of(plain, "^agent:"))
        persona = {}
    return Persona(
        id=stem,
        pack=text_of(about.get("module")) or pack,
        generation="v6 source",
        path=findings.path,
        raw=text,
        name=text_of(about.get("name")),
        title=text_of(about.get("title")),
        icon=text_of(about.get("icon")),
        when_to_use=text_of(about.get("capabilities")),
        role=text_of(persona.get("role")),
        style=text_of(persona.get("communication_style")),
        identity=text_of(persona.get("identity")),
        principles=texts_of(persona.get("principles")),
        commands=_menu(said.get("menu")),
    )


def _menu(items: Any) -> tuple[Command, ...]:
    found = []
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict):
            name = text_of(item.get("trigger") or item.get("code") or item.get("multi"))
            found.append(Command(name=name.split(" or ")[0], says=text_of(item.get("description"))))
    return tuple(command for command in found if command.name)


def is_compiled(text: str) -> bool:
    """Whether it is Markdown with an `<agent ...>` in it."""
    return _AGENT.search(text) is not None


def read_compiled(text: str, findings: Findings, *, pack: str, stem: str) -> Persona | None:
    """The persona of a compiled Markdown file, or None with an error."""
    plain = lines_of(text)
    opened = _AGENT.search(plain)
    if opened is None:
        findings.error("no-agent", "there is no <agent ...> in the file")
        return None
    line = plain.count("\n", 0, opened.start()) + 1
    about = {name.lower(): value for name, value in _ATTRIBUTE.findall(opened[1])}
    body = plain[opened.end() :]
    if "</agent>" not in body:
        findings.warning("open-agent", "<agent> is not closed; it is read to the end", line)
    for name in ("name", "title"):
        if not about.get(name):
            findings.warning("missing", f"<agent> has no {name}", line)
    if not _element(body, "persona"):
        findings.warning("no-persona", "<agent> has no <persona>", line)
    return Persona(
        id=stem,
        pack=pack,
        generation="v6 compiled",
        path=findings.path,
        raw=text,
        name=about.get("name", ""),
        title=about.get("title", ""),
        icon=about.get("icon", ""),
        when_to_use=about.get("capabilities", ""),
        role=_element(body, "role"),
        style=_element(body, "communication_style"),
        identity=_element(body, "identity"),
        principles=texts_of(_element(body, "principles")),
        commands=tuple(_items(body)),
    )


def _element(body: str, name: str) -> str:
    opened = re.search(rf"<{name}\b[^>]{{0,500}}>", body, re.IGNORECASE)
    closed = body.find(f"</{name}>", opened.end()) if opened else -1
    return body[opened.end() : closed].strip() if opened and closed >= 0 else ""


def _items(body: str) -> list[Command]:
    found = []
    for said, text in _ITEM.findall(body):
        attributes = dict(_ATTRIBUTE.findall(said.strip()))
        name = attributes.get("cmd") or attributes.get("trigger") or ""
        if name:
            found.append(Command(name=name.split(" or ")[0].lstrip("*"), says=text.strip()))
    return found


def customized(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a `*.customize.yaml` really says: its empty texts, lists and mappings mean nothing."""
    said: dict[str, Any] = {}
    for name, value in found.items():
        inside = customized(value) if isinstance(value, dict) else value
        if inside not in ("", None, [], {}):
            said[name] = inside
    return said
