"""Reads YAML that people wrote by hand: strictly first, then mended, at last section by section.

The strict reader is that of the settings: bounded, without aliases and tags. What it refuses is
mended where official files are known to be wrong; what cannot be mended is left out with its line,
and the rest is kept.
"""

from __future__ import annotations

import re
from typing import Any

from callboard_config.document import parse_value
from callboard_config.errors import SettingsError
from callboard_integrations.bmad.diagnostics import Findings

__all__ = ["parse_yaml"]

_AT = re.compile(r"line (\d+): (.*?)(?:; correct it there)?\Z", re.DOTALL)
_QUOTED_THEN_TEXT = re.compile(r'^(\s*- )("(?:[^"\\]|\\.)*"|\'[^\']*\')[ \t]+[^\s#:].*$')
_STAR = re.compile(r"^(\s*- )(\*[^\"\n]*)$")
_SECTION = re.compile(r"^(?=[A-Za-z_][\w-]*:)", re.MULTILINE)


def parse_yaml(text: str, findings: Findings, *, first_line: int = 1) -> dict[str, Any]:
    """The mapping in `text`; what is missing in it, `findings` name.

    first_line: of `text` within its file.
    """
    value, problem = _strict(text)
    if problem is None:
        return _mapping(value, findings, first_line)
    mended, lines = _mended(text)
    if lines:
        value, left = _strict(mended)
        findings.warning(
            "yaml-mended",
            f"not valid YAML ({problem[1]}); the text after the closing quote, or the bare *, of "
            f"{len(lines)} list items was mended",
            first_line + lines[0] - 1,
        )
        if left is None:
            return _mapping(value, findings, first_line)
    return _by_section(mended, findings, first_line)


def _strict(text: str) -> tuple[Any, tuple[int, str] | None]:
    """The value, or the line (from 1) and the reason why there is none."""
    try:
        return parse_value(text, key="", source=""), None
    except SettingsError as error:
        found = _AT.match(error.reason)
        return None, (int(found[1]), found[2]) if found else (1, error.reason)


def _mended(text: str) -> tuple[str, list[int]]:
    """`- "*help" - Show ...` cut after the quote, `- *help` quoted; and the lines of both."""
    lines: list[int] = []
    kept: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        new = line
        if found := _QUOTED_THEN_TEXT.match(line):
            new = found[1] + found[2]
        elif found := _STAR.match(line):
            new = f'{found[1]}"{found[2].rstrip()}"'
        if new != line:
            lines.append(number)
        kept.append(new)
    return "\n".join(kept), lines


def _by_section(text: str, findings: Findings, first_line: int) -> dict[str, Any]:
    """Each top-level key for itself; those that are broken are left out."""
    found: dict[str, Any] = {}
    line = first_line
    for part in _SECTION.split(text):
        value, problem = _strict(part)
        if problem is not None:
            name = part.partition(":")[0]
            findings.warning(
                "yaml-section",
                f"the section `{name:.40}` is left out: {problem[1]}",
                line + problem[0] - 1,
            )
        elif isinstance(value, dict):
            for name, kept in value.items():
                if name in found:
                    findings.warning("yaml-twice", f"`{name}` stands twice; the first counts", line)
                else:
                    found[name] = kept
        line += part.count("\n")
    return found


def _mapping(value: Any, findings: Findings, first_line: int) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if value is not None:
        findings.warning("yaml-shape", "a mapping of names was expected", first_line)
    return {}
