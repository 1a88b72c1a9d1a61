"""Reads a persona that is a skill: a folder with SKILL.md and what customizes it.

`customize.toml` (from 6.4) is laid under the project's `_bmad/custom/<skill>.toml` and
`.user.toml`; a flat `bmad-skill-manifest.yaml` (6.2.2-6.3) stands for itself. A skill without an
agent in it is a workflow of the tool's own and gives no persona.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.persona import Command, Persona, text_of, texts_of
from callboard_integrations.bmad.source_text import line_of, lines_of, read_text
from callboard_integrations.bmad.tolerant_yaml import parse_yaml

__all__ = ["Skill", "merged", "parse_toml", "read_skill"]

_TOML_AT = re.compile(r"(.*?) \(at line (\d+), column \d+\)\Z", re.DOTALL)
_KEYS = ("code", "id")
_MAX_DEPTH = 16


class Skill:
    """The files of one skill. custom: the folder of the project's overrides, if there is one."""

    def __init__(self, folder: Path, custom: Path | None) -> None:
        self.folder = folder
        self.name = folder.name
        self.text = folder / "SKILL.md"
        self.manifest = folder / "bmad-skill-manifest.yaml"
        self.customize = folder / "customize.toml"
        self.overrides = (
            []
            if custom is None
            else [custom / f"{self.name}.toml", custom / f"{self.name}.user.toml"]
        )


def read_skill(
    skill: Skill, findings: Mapping[Path, Findings], *, inside: Path, pack: str
) -> Persona | None:
    """The skill's persona, or None: it has none, or its files say by `findings` why not.

    findings: one for each of the skill's files that exist.
    """
    raw = _read(skill.text, findings, inside)
    agent, said = _agent(skill, findings, inside)
    if raw is None or agent is None:
        if raw is not None and skill.text in findings:
            _check_front(raw, findings[skill.text])
        return None
    _check_front(raw, findings[skill.text])
    return Persona(
        id=skill.name,
        pack=pack,
        generation="v6 skill",
        path=findings[skill.text].path,
        raw=raw,
        name=text_of(agent.get("name") or agent.get("displayName")),
        title=text_of(agent.get("title")),
        icon=text_of(agent.get("icon")),
        when_to_use=text_of(agent.get("description") or agent.get("capabilities")),
        role=text_of(agent.get("role")),
        style=text_of(agent.get("communication_style") or agent.get("communicationStyle")),
        identity=text_of(agent.get("identity")),
        principles=texts_of(agent.get("principles")),
        commands=_menu(agent.get("menu")),
        also=tuple(_short(skill.name)),
        overrides=said,
    )


def _agent(
    skill: Skill, findings: Mapping[Path, Findings], inside: Path
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The merged block of the agent, and what is to be told to the model: all of it."""
    if skill.customize in findings:
        found = _toml(skill.customize, findings, inside)
        if found is None or "agent" not in found:
            return None, {}
        for path in skill.overrides:
            if path in findings:
                found = merged(found, _toml(path, findings, inside) or {})
        agent = found["agent"]
        if isinstance(agent, dict):
            return agent, agent
        findings[skill.customize].error("no-agent", "`agent` is not a table")
        return None, {}
    if skill.manifest in findings:
        text = _read(skill.manifest, findings, inside)
        manifest = parse_yaml(lines_of(text), findings[skill.manifest]) if text else {}
        if manifest.get("type") == "agent":
            return manifest, manifest
    return None, {}


def _read(path: Path, findings: Mapping[Path, Findings], inside: Path) -> str | None:
    return read_text(path, findings[path], inside=inside) if path in findings else None


def _toml(path: Path, findings: Mapping[Path, Findings], inside: Path) -> dict[str, Any] | None:
    text = _read(path, findings, inside)
    return None if text is None else parse_toml(text, findings[path])


def parse_toml(text: str, findings: Findings) -> dict[str, Any] | None:
    """The document, or None with the line of what is wrong."""
    try:
        return tomllib.loads(lines_of(text))
    except tomllib.TOMLDecodeError as error:
        found = _TOML_AT.match(str(error))
        reason, line = (found[1], int(found[2])) if found else (str(error), None)
        findings.error("toml", f"not valid TOML: {reason}", line)
    except RecursionError:
        findings.error("toml", "nested too deeply")
    return None


def merged(under: Mapping[str, Any], over: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """`over` laid on `under`: scalars replace, tables merge, keyed tables replace, lists append."""
    found = dict(under)
    for name, value in over.items():
        before = found.get(name)
        if isinstance(before, dict) and isinstance(value, dict) and depth < _MAX_DEPTH:
            found[name] = merged(before, value, depth + 1)
        elif isinstance(before, list) and isinstance(value, list):
            found[name] = _appended(before, value)
        else:
            found[name] = value
    return found


def _appended(before: list[Any], value: list[Any]) -> list[Any]:
    found = list(before)
    for item in value:
        key = _key(item)
        place = next((at for at, old in enumerate(found) if key and _key(old) == key), None)
        if place is None:
            found.append(item)
        else:
            found[place] = item
    return found


def _key(item: Any) -> tuple[str, Any] | None:
    if isinstance(item, dict):
        for name in _KEYS:
            if name in item:
                return name, item[name]
    return None


def _menu(items: Any) -> tuple[Command, ...]:
    return tuple(
        Command(
            name=text_of(item.get("skill") or item.get("code")),
            argument="",
            says=text_of(item.get("description")),
        )
        for item in (items if isinstance(items, list) else ())
        if isinstance(item, dict)
    )


def _short(name: str) -> list[str]:
    """`bmad-agent-dev` is meant by `dev`, too."""
    found = re.fullmatch(r"(?:[a-z0-9]+-)*agent-(.+)", name)
    return [found[1]] if found else []


def _check_front(raw: str, findings: Findings) -> None:
    """A skill's file begins with `name` and `description` between two lines of dashes."""
    plain = lines_of(raw)
    front = re.match(r"---\n(.*?)^---\s*$", plain, re.DOTALL | re.MULTILINE)
    if front is None:
        findings.warning("no-front", "there is no front matter with name and description", 1)
        return
    said = parse_yaml(front[1], findings, first_line=2)
    for name in ("name", "description"):
        if not text_of(said.get(name)):
            findings.warning("missing", f"its front matter has no `{name}`", line_of(plain, "^---"))
