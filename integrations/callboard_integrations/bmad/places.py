"""Where a project keeps its personas: which folders are read, in which order, as which generation.

The first generation that is found is read; another that lies beside it is only named. A release's
own source tree, a pack alone and a single file are places, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from callboard_broker.errors import BadInput

__all__ = ["Place", "find_places", "walk"]

_V6 = ("_bmad", ".bmad", "bmad")
_IDE = (".claude/skills", ".agents/skills", ".cursor/skills", ".opencode/skills")
_MANIFESTS = ("install-manifest.yaml", "config.yaml")
_SKIPPED = frozenset({".git", "node_modules", "__pycache__", ".venv", ".callboard"})
_MAX_DEPTH = 8
_MAX_FILES = 5000


@dataclass(frozen=True, slots=True)
class Place:
    """A folder to read, or one file. pack: what its files belong to, if its generation is 4."""

    path: Path
    generation: int
    pack: str = ""


def find_places(path: Path) -> tuple[list[Place], list[Path]]:
    """What is to be read, and what else is there. Raises `BadInput` if nothing is."""
    if path.is_file():
        return [_of_file(path)], []
    if not path.is_dir():
        raise BadInput("path", f"there is no folder or file {path}")
    by_age = [
        [Place(path / name, 6) for name in _V6 if (path / name).is_dir()][:1],
        [*_core(path), *_packs(path, hidden=True)],
        [Place(path / ".bmad-method", 4, "core")] if (path / ".bmad-method").is_dir() else [],
        [Place(path / name, 6) for name in _IDE if any((path / name).glob("*/SKILL.md"))],
        [*_packs(path / "expansion-packs", hidden=False)],
    ]
    found = [places for places in by_age if places] or [_itself(path)]
    found = [places for places in found if places]
    if not found:
        raise BadInput(
            "path",
            f"no personas in {path}: there is none of _bmad, .bmad, bmad, .bmad-core, a dot folder "
            "with agents/, .bmad-method, or skills of an IDE; name the project's folder",
        )
    chosen, *others = found
    if chosen[0].path.name == "bmad-core":  # a release's source tree: its packs belong to it
        chosen = [place for places in found for place in places]
        others = []
    elif chosen[0].generation == 6 and any(place.path.parent.name == "skills" for place in chosen):
        others = []
    return chosen, [place.path for places in others for place in places]


def _core(path: Path) -> list[Place]:
    for name in (".bmad-core", "bmad-core"):
        if (path / name).is_dir():
            return [Place(path / name, 4, "core")]
    return []


def _packs(path: Path, *, hidden: bool) -> list[Place]:
    """Folders with agents that say what they are."""
    if not path.is_dir():
        return []
    return [
        Place(folder, 4, folder.name.lstrip("."))
        for folder in sorted(path.iterdir())
        if folder.name.startswith(".") == hidden
        and folder.name not in (".bmad-core", ".bmad-method", ".bmad", *_SKIPPED)
        and (folder / "agents").is_dir()
        and (not hidden or any((folder / name).is_file() for name in _MANIFESTS))
    ]


def _itself(path: Path) -> list[Place]:
    """The folder is one of those that are looked for, or a release's source tree."""
    if path.name in _V6 or (path / "_cfg").is_dir() or (path / "_config").is_dir():
        return [Place(path, 6)]
    if (path / "src").is_dir() and any(_is_v6(file) for file in walk(path / "src")):
        return [Place(path / "src", 6)]
    if any((path / name).is_dir() for name in ("agents", "workflows", "agent-teams")):
        v6 = any(_is_v6(file) for file in walk(path))
        core = path.name in (".bmad-core", "bmad-core", ".bmad-method")
        pack = "core" if core else path.name.lstrip(".")
        return [Place(path, 6) if v6 else Place(path, 4, pack)]
    return [Place(path, 6)] if any(_is_v6(file) for file in walk(path)) else []


def _of_file(path: Path) -> Place:
    return Place(path, 6 if _is_v6(path) else 4, "core")


def _is_v6(file: Path) -> bool:
    return file.name.endswith(".agent.yaml") or file.name in (
        "SKILL.md",
        "agent-manifest.csv",
        "module-help.csv",
        "bmad-skill-manifest.yaml",
    )


def walk(folder: Path) -> Iterator[Path]:
    """The files below `folder` in a fixed order: bounded, and following no link to a folder."""
    count = 0
    for here, folders, files in os.walk(folder):
        depth = len(Path(here).relative_to(folder).parts)
        folders[:] = sorted(set(folders) - _SKIPPED) if depth < _MAX_DEPTH else []
        for name in sorted(files):
            count += 1
            if count > _MAX_FILES:
                return
            yield Path(here) / name
