"""Reads a team: which personas and workflows are meant together. `"*"` means all of its pack."""

from __future__ import annotations

from dataclasses import dataclass

from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.persona import text_of, texts_of
from callboard_integrations.bmad.source_text import lines_of
from callboard_integrations.bmad.tolerant_yaml import parse_yaml

__all__ = ["Team", "read_team"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """agents: names as written, `*` for everyone. workflows: names of files, as written."""

    id: str
    pack: str
    path: str
    name: str
    description: str
    agents: tuple[str, ...]
    workflows: tuple[str, ...]


def read_team(text: str, findings: Findings, *, pack: str, stem: str) -> Team | None:
    """The team in `text`, or None with an error."""
    found = parse_yaml(lines_of(text), findings)
    bundle = found.get("bundle")
    if not isinstance(bundle, dict):
        findings.error("no-bundle", "there is no `bundle` with the team's name and description", 1)
        return None
    agents = texts_of(found.get("agents"))
    if not agents:
        findings.warning("no-agents", "the team names no agents", 1)
    return Team(
        id=stem,
        pack=pack,
        path=findings.path,
        name=text_of(bundle.get("name")) or stem,
        description=text_of(bundle.get("description")),
        agents=agents,
        workflows=texts_of(found.get("workflows")),
    )
