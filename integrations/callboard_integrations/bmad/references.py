"""Hands the model what a step names of its persona's files: templates, checklists, tasks, skills.

Only files below the folder that the persona was read from are looked at, each is read once in a
process, and no link leads out. They are data in the prompt, beside the persona's text; what does
not fit within the bounds is named as left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from callboard_integrations.bmad.assignment import Assignment
from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.persona import Persona
from callboard_integrations.bmad.places import walk
from callboard_integrations.bmad.source_text import read_text

__all__ = ["References"]

_MOST_FILES = 8
_MOST_BYTES = 128 * 1024  # together, in one prompt
_MOST_WORDS = 8 * 1024  # of a step, in which names are looked for
_TEXTS = (".md", ".yaml", ".yml", ".xml", ".csv", ".txt", ".json", ".toml")


class References:
    """The files of one persona, by what they are called below its folder."""

    def __init__(self, project: Path, persona: Persona) -> None:
        self.persona = persona
        self._root = _root_of(project, persona)
        self._files: dict[str, Path] | None = None
        self._texts: dict[str, str | None] = {}

    def named_by(self, assignment: Assignment) -> tuple[dict[str, str], list[str]]:
        """The texts that a step names, and that these name in turn; and what was left out."""
        files = self._known()
        found: dict[str, str] = {}
        left: list[str] = []
        size = 0
        names = list(self._of_step(assignment))
        for name in names:  # grows by what is named in what was found
            text = self._read(name, files[name])
            if text is None:
                continue
            if len(found) == _MOST_FILES or size + len(text.encode()) > _MOST_BYTES:
                left.append(name)
                continue
            size += len(text.encode())
            found[name] = text
            names += [other for other in self._of_text(name, text) if other not in names]
        return found, left

    def _known(self) -> dict[str, Path]:
        if self._files is None:
            self._files = dict(self._list())
        return self._files

    def _list(self) -> Iterator[tuple[str, Path]]:
        """Dependencies are `{root}/{kind}/{name}`, whose ending is sometimes left out."""
        if self._root is None:
            return
        if self.persona.generation != "v4":
            for path in walk(self._root):
                if path.suffix in _TEXTS:
                    yield path.relative_to(self._root).as_posix(), path
            return
        for kind, names in self.persona.dependencies.items():
            folder = self._root / kind
            if re.fullmatch(r"[\w-]+", kind) is None or not folder.is_dir():
                continue
            there = sorted(path for path in folder.iterdir() if path.suffix in _TEXTS)
            for name in names:
                for path in there:
                    if name in (path.name, path.stem):
                        yield f"{kind}/{path.name}", path
                        break

    def _of_step(self, assignment: Assignment) -> Iterator[str]:
        uses = assignment.uses
        if self.persona.generation != "v4":  # a file of the installed project, or a skill
            path = re.sub(r"^(\{project-root\}/)?(_bmad|\.?bmad)/", "", uses.strip())
            for name in self._known():
                if path and (name == path or f"/{name}".endswith(f"/{path}/SKILL.md")):
                    yield name
                    return
            return
        words = f"{assignment.action}\n{assignment.notes}"[:_MOST_WORDS]
        for name in self._known():
            file = name.partition("/")[2]
            if _says(uses[:_MOST_WORDS], file, bare=True) or _says(words, file, bare=False):
                yield name

    def _of_text(self, name: str, text: str) -> Iterator[str]:
        """A task names templates of its persona; a skill, files of its own folder."""
        folder = name.rpartition("/")[0]
        for other in self._known():
            inside = self.persona.generation == "v4" or other.startswith(f"{folder}/")
            if inside and other != name and _says(text, Path(other).name, bare=False):
                yield other

    def _read(self, name: str, path: Path) -> str | None:
        if name not in self._texts:
            assert self._root is not None  # noqa: S101  else no file is known
            self._texts[name] = read_text(path, Findings(name), inside=self._root)
        return self._texts[name]


def _root_of(project: Path, persona: Persona) -> Path | None:
    """The folder with the persona's files; None for a file that was read alone."""
    parts = Path(persona.path).parts
    if persona.generation == "v4":
        return (project / persona.path).parent.parent if "agents" in parts[:-1] else None
    return project / parts[0] if len(parts) > 1 else None


def _says(words: str, file: str, *, bare: bool) -> bool:
    """Whether a file is named: in full, or without its ending if that is no word of its own."""
    stem = file.rpartition(".")[0]
    names = [file, *([stem] if bare or re.search(r"[-_]", stem) else [])]
    return any(re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", words) for name in names)
