"""Reads a persona of generation 4: Markdown around one fenced YAML block.

The block may be malformed, lack its closing fence, or keep its principles in either of two places;
what can be read is kept, and the rest is named by line.
"""

from __future__ import annotations

import re
from typing import Any

from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.persona import Command, Persona, text_of, texts_of
from callboard_integrations.bmad.source_text import line_of, lines_of
from callboard_integrations.bmad.tolerant_yaml import parse_yaml

__all__ = ["is_agent", "read_agent"]

_OPEN = re.compile(r"^```ya?ml[^\n]*\n", re.MULTILINE)
_CLOSE = re.compile(r"^```[ \t]*$", re.MULTILINE)
_AGENT = re.compile(r"^agent:", re.MULTILINE)
_ARGUMENT = re.compile(r"\*?([^\s{\[<|:]+)\s*(.*)", re.DOTALL)
_AFTER_DASH = re.compile(r"(\S+(?: [{\[<][^}\]>]*[}\]>])*)\s*[:-]\s+(.*)", re.DOTALL)


def is_agent(text: str) -> bool:
    """Whether it has a YAML block with an agent in it."""
    opened = _OPEN.search(lines_of(text))
    return opened is not None and _AGENT.search(lines_of(text), opened.end()) is not None


def read_agent(text: str, findings: Findings, *, pack: str, stem: str) -> Persona | None:
    """The persona in `text`, or None with an error. stem: the file's name without its ending."""
    plain = lines_of(text)
    opened = _OPEN.search(plain)
    if opened is None:
        findings.error("no-block", "there is no ```yaml block with the agent's definition")
        return None
    first = plain.count("\n", 0, opened.end()) + 1
    closed = _CLOSE.search(plain, opened.end())
    if closed is None:
        findings.warning("open-block", "the block has no closing ```; it is read to the end", first)
    body = plain[opened.end() : closed.start() if closed else len(plain)]
    found = parse_yaml(body, findings, first_line=first)
    said, persona = found.get("agent"), found.get("persona")
    if not isinstance(said, dict):
        findings.error("no-agent", "the block has no `agent` with name, id and title", first)
        return None
    if not isinstance(persona, dict):
        findings.warning("no-persona", "the block has no `persona` with role and identity", first)
        persona = {}
    _check(said, persona, findings, plain)
    own = text_of(said.get("id")) or stem
    if own != stem:
        findings.note(
            "other-id",
            f"its id {own!r} is not its file's name {stem!r}; it is found by both",
            line_of(plain, r"^[ \t]+id:"),
        )
    return Persona(
        id=own,
        pack=pack,
        generation="v4",
        path=findings.path,
        raw=text,
        name=text_of(said.get("name")),
        title=text_of(said.get("title")),
        icon=text_of(said.get("icon")),
        when_to_use=text_of(said.get("whenToUse")),
        role=text_of(persona.get("role")),
        style=text_of(persona.get("style")),
        identity=text_of(persona.get("identity")),
        focus=text_of(persona.get("focus")),
        principles=texts_of(persona.get("core_principles") or found.get("core_principles")),
        commands=_commands(found.get("commands")),
        dependencies=_dependencies(found.get("dependencies"), findings, plain),
        also=() if own == stem else (stem,),
    )


def _check(said: dict[str, Any], persona: dict[str, Any], findings: Findings, plain: str) -> None:
    for where, names, section in (
        ("agent", ("name", "id", "title"), said),
        ("persona", ("role", "identity"), persona),
    ):
        for name in names:
            if section and not text_of(section.get(name)):
                findings.warning(
                    "missing", f"`{where}.{name}` is missing", line_of(plain, rf"^{where}:")
                )


def _commands(value: Any) -> tuple[Command, ...]:
    """A list of strings and one-key mappings, or one mapping."""
    if isinstance(value, dict):
        return tuple(_command(str(name), says) for name, says in value.items())
    if not isinstance(value, list):
        return ()
    found = []
    for item in value:
        if isinstance(item, dict):
            found += [_command(str(name), says) for name, says in item.items()]
        elif text := text_of(item):
            parts = _AFTER_DASH.fullmatch(text)
            found.append(_command(parts[1], parts[2]) if parts else _command(text, None))
    return tuple(found)


def _command(name: str, says: Any) -> Command:
    parts = _ARGUMENT.fullmatch(name.strip())
    if parts is None:
        return Command(name=name.strip(), says=text_of(says))
    return Command(name=parts[1], argument=parts[2].strip(), says=text_of(says))


def _dependencies(value: Any, findings: Findings, plain: str) -> dict[str, tuple[str, ...]]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        line = line_of(plain, r"^dependencies:")
        findings.warning("dependencies", "`dependencies` is not a mapping of kinds to names", line)
        return {}
    return {str(kind): texts_of(names) for kind, names in value.items() if names}
