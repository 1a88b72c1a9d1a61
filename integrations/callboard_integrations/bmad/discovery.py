"""Finds and reads all personas, teams and workflows of a project: `discover(path)`.

Every file is read for itself: what is wrong with one becomes a diagnostic with its line, and never
costs the others. Nothing of what is found is executed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from callboard_integrations.bmad import v4_agents, v4_teams, v4_workflows, v6_agents
from callboard_integrations.bmad.crosscheck import crosscheck
from callboard_integrations.bmad.diagnostics import Diagnostic, Findings
from callboard_integrations.bmad.persona import Persona, token
from callboard_integrations.bmad.places import Place, find_places, walk
from callboard_integrations.bmad.roster import Kind, Roster, SourceFile, State
from callboard_integrations.bmad.source_text import lines_of, read_text
from callboard_integrations.bmad.tolerant_yaml import parse_yaml
from callboard_integrations.bmad.v4_teams import Team
from callboard_integrations.bmad.v6_rosters import personas_of_list, read_order, read_table
from callboard_integrations.bmad.v6_skills import Skill, parse_toml, read_skill
from callboard_integrations.bmad.workflow_file import WorkflowFile

__all__ = ["discover"]

T = TypeVar("T")

_YAML = (".yaml", ".yml")
_LISTS = ("agent-manifest.csv", "default-party.csv")
_RANK = ("v6 skill", "v6 compiled", "v4", "v6 source", "v6 roster")


def discover(path: Path | str) -> Roster:
    """Read what is in a project's folder, a pack, or one file.

    Raises `BadInput` if there is nothing to read at all.
    """
    start = Path(path)
    places, others = find_places(start)
    reading = _Reading(start if start.is_dir() else start.parent)
    for place in places:
        if place.path.is_file():
            reading.one_file(place)
        elif place.generation == 4:
            reading.v4(place)
        else:
            reading.v6(place.path)
    for other in others:
        reading.about(other).note(
            "older", "an older generation beside a newer one is not read; name it to read it"
        )
    return reading.roster([place.path for place in places])


class _Reading:
    """What has been read so far."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.personas: list[Persona] = []
        self.teams: list[Team] = []
        self.workflows: list[WorkflowFile] = []
        self.files: list[SourceFile] = []
        self.findings: list[Findings] = []
        self.texts: dict[str, str] = {}

    def about(self, path: Path) -> Findings:
        found = Findings(_relative(path, self.project))
        self.findings.append(found)
        return found

    def read(
        self,
        path: Path,
        kind: Kind,
        generation: str,
        reader: Callable[[str, Findings], T | None],
    ) -> T | None:
        """One file by its reader; its state follows from what the reader said."""
        findings = self.about(path)
        text = read_text(path, findings, inside=self.project)
        found = None if text is None else reader(text, findings)
        if text is not None:
            self.texts[findings.path] = text
        self.count(findings, kind, generation)
        return found

    def count(self, findings: Findings, kind: Kind, generation: str) -> None:
        said = {one.severity for one in findings.found}
        state: State = "refused" if "error" in said else "mended" if "warning" in said else "loaded"
        self.files.append(SourceFile(findings.path, kind, generation, state))

    def one_file(self, place: Place) -> None:
        path = place.path
        if path.name == "SKILL.md":
            self._skill(path.parent, None, path.parent.name)
        elif path.name.endswith(".agent.yaml"):
            self._agent_yaml(path, "core")
        elif path.suffix == ".md":
            self._markdown(path, place.pack, v6_too=True)
        else:
            self._v4_yaml(path, place.pack)

    # -- generation 4

    def v4(self, place: Place) -> None:
        for path in sorted((place.path / "agents").glob("*.md")):
            if path.stem.lower() != "readme":
                self._markdown(path, place.pack, v6_too=False)
        for folder in ("agent-teams", "workflows"):
            for path in sorted((place.path / folder).glob("*")):
                if path.suffix in (*_YAML, ".md") and path.stem.lower() != "readme":
                    self._v4_yaml(path, place.pack)

    def _markdown(self, path: Path, pack: str, *, v6_too: bool) -> None:
        def read(text: str, findings: Findings) -> Persona | None:
            if v6_too and not v4_agents.is_agent(text) and v6_agents.is_compiled(text):
                return v6_agents.read_compiled(text, findings, pack=pack, stem=path.stem)
            return v4_agents.read_agent(text, findings, pack=pack, stem=path.stem)

        self._add(self.read(path, "agent", "v4", read))

    def _v4_yaml(self, path: Path, pack: str) -> None:
        if path.parent.name == "agent-teams":
            self._team(path, pack, "v4")
            return
        if path.suffix == ".md":
            self.read(path, "workflow", "v4", _no_workflow)
            return
        found = self.read(
            path,
            "workflow",
            "v4",
            lambda text, said: v4_workflows.read_workflow(text, said, pack=pack, stem=path.stem),
        )
        self.workflows += [found] if found else []

    # -- generation 6

    def v6(self, root: Path) -> None:
        custom = root / "custom" if (root / "custom").is_dir() else None
        lists: list[Path] = []
        overrides: list[Path] = []
        orders: list[Path] = []
        for path in walk(root):
            pack = _module(path, root)
            if path.name.endswith(".agent.yaml"):
                self._agent_yaml(path, pack)
            elif path.name == "SKILL.md":
                self._skill(path.parent, custom, pack)
            elif "agents" in path.parts and path.suffix == ".md" and _is_compiled(path):
                self._compiled(path, pack)
            elif path.name.endswith(".customize.yaml"):
                overrides.append(path)
            elif path.name in (*_LISTS, "module.yaml") or path == root / "config.toml":
                lists.append(path)
            elif path.name == "module-help.csv":
                orders.append(path)
            elif path.parent.name == "teams" and path.suffix in _YAML:
                self._team(path, pack, "v6")
        for path in lists:
            self._list(path, _module(path, root))
        for path in overrides:
            self._customize(path)
        for path in orders:
            self._order(path, _module(path, root))

    def _compiled(self, path: Path, pack: str) -> None:
        self._add(
            self.read(
                path,
                "agent",
                "v6",
                lambda text, said: v6_agents.read_compiled(text, said, pack=pack, stem=path.stem),
            )
        )

    def _team(self, path: Path, pack: str, generation: str) -> None:
        team = self.read(
            path,
            "team",
            generation,
            lambda text, said: v4_teams.read_team(text, said, pack=pack, stem=path.stem),
        )
        self.teams += [team] if team else []

    def _agent_yaml(self, path: Path, pack: str) -> None:
        stem = path.name.removesuffix(".agent.yaml")
        self._add(
            self.read(
                path,
                "agent",
                "v6",
                lambda text, said: v6_agents.read_agent_yaml(text, said, pack=pack, stem=stem),
            )
        )

    def _skill(self, folder: Path, custom: Path | None, pack: str) -> None:
        skill = Skill(folder, custom)
        paths = [skill.text, skill.manifest, skill.customize, *skill.overrides]
        findings = {path: self.about(path) for path in paths if path.is_file()}
        persona = read_skill(skill, findings, inside=self.project, pack=pack)
        self._add(persona)
        for path, said in findings.items():
            kind: Kind = "override" if path in skill.overrides else "skill"
            self.count(said, kind, "v6")

    def _list(self, path: Path, pack: str) -> None:
        def read(text: str, findings: Findings) -> list[Persona]:
            if path.suffix == ".csv":
                return personas_of_list(
                    read_table(text, findings, needs=("name", "displayName")), findings, pack=pack
                )
            found = (
                parse_toml(text, findings)
                if path.suffix == ".toml"
                else parse_yaml(lines_of(text), findings)
            ) or {}
            agents = found.get("agents")
            if isinstance(agents, dict):
                agents = [{"code": code, **row} for code, row in agents.items() if row]
            rows = [row for row in agents or [] if isinstance(row, dict)]
            return personas_of_list(rows, findings, pack=pack)

        known = {name for persona in self.personas for name in persona.names}
        for persona in self.read(path, "list", "v6", read) or []:
            if persona.id not in known:
                known.add(persona.id)
                self._add(persona)

    def _customize(self, path: Path) -> None:
        said = self.read(
            path,
            "override",
            "v6",
            lambda text, findings: v6_agents.customized(parse_yaml(lines_of(text), findings)),
        )
        pack, _, own = path.name.removesuffix(".customize.yaml").partition("-")
        for at, persona in enumerate(self.personas):
            if said and persona.pack == pack and persona.id == own:
                self.personas[at] = replace(persona, overrides=said)

    def _order(self, path: Path, pack: str) -> None:
        found = self.read(
            path,
            "order",
            "v6",
            lambda text, said: read_order(text, said, pack=pack, personas=self.personas),
        )
        self.workflows += [found] if found else []

    # -- all

    def _add(self, persona: Persona | None) -> None:
        if persona is None:
            return
        for at, other in enumerate(self.personas):
            if (other.pack, other.id) == (persona.pack, persona.id):
                if _RANK.index(persona.generation) < _RANK.index(other.generation):
                    self.personas[at] = persona
                elif persona.generation == other.generation:
                    self.findings.append(twice := Findings(persona.path))
                    twice.warning("twice", f"{persona.id!r} is also in {other.path}; that counts")
                return
        self.personas.append(persona)

    def roster(self, folders: list[Path]) -> Roster:
        found = Roster(
            project=self.project,
            folders=tuple(_relative(folder, self.project) for folder in folders),
            personas=tuple(self.personas),
            teams=tuple(self.teams),
            workflows=tuple(self.workflows),
            files=tuple(self.files),
            diagnostics=(),
        )
        said: list[Diagnostic] = [one for each in self.findings for one in each.found]
        return replace(found, diagnostics=(*said, *crosscheck(found, self.texts)))


def _no_workflow(text: str, findings: Findings) -> None:
    agent = "; the agent in it is not read from here" if v4_agents.is_agent(text) else ""
    findings.error("no-workflow", f"Markdown holds no steps{agent}; workflows are YAML", 1)


def _is_compiled(path: Path) -> bool:
    """Whether a Markdown file among agents is one: notes for readers lie there, too."""
    with path.open("rb") as file:
        return b"<agent" in file.read(64 * 1024)


def _relative(path: Path, project: Path) -> str:
    return str(path.relative_to(project)) if path.is_relative_to(project) else str(path)


def _module(path: Path, root: Path) -> str:
    """The first folder below the root names the module: `bmm`, or `bmm-skills` in a source tree."""
    parts = path.relative_to(root).parts
    name = parts[0] if len(parts) > 1 else root.name
    return token(name.removesuffix("-skills")) if not name.startswith("_") else "core"
