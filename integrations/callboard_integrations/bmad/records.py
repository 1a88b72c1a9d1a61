"""Keeps what each step has made, so that work which is finished is not done again.

A record counts for the same persona and the same prompt only, and only while the files that were
written are there. What a person has changed in a file since is handed on as it now is, by the step
that wrote it last.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from callboard_integrations.bmad.diagnostics import Findings
from callboard_integrations.bmad.persona import token
from callboard_integrations.bmad.project_files import KEPT, inside, write_whole
from callboard_integrations.bmad.source_text import read_text

__all__ = ["Record", "Records", "item_id"]


_NO = ("", "", "")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """key: of what was asked. files: the artifact in each, by its path below `folder`."""

    key: str
    artifacts: dict[str, str]
    files: dict[str, str] = {}
    branch: str = ""
    commit: str = ""


class Records:
    """Those of one project."""

    def __init__(self, project: Path) -> None:
        self._folder = project / KEPT / "personas"

    def recall(self, path: Path, key: str, folder: Path) -> Record | None:
        """The record at `path`, if it is of `key` and its files are still below `folder`."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            return None  # written by another version: the work is done again
        if found.key != key:
            return None
        artifacts = dict(found.artifacts)
        for name, artifact in found.files.items():
            file = inside(folder, name)
            if not file.is_file():
                return None
            text = read_text(file, Findings(name), inside=folder)
            if text is not None and artifact in artifacts and self._wrote_last(file, path):
                artifacts[artifact] = text
        return msgspec.structs.replace(found, artifacts=artifacts)

    def keep(self, path: Path, record: Record, folder: Path) -> None:
        """Store a record, and that this step wrote its files below `folder` last."""
        for name in record.files:
            write_whole(self._note(inside(folder, name), path), path.name)
        write_whole(path, msgspec.json.encode(record).decode())

    def _wrote_last(self, file: Path, path: Path) -> bool:
        note = self._note(file, path)
        return note.is_file() and note.read_text(encoding="utf-8") == path.name

    def _note(self, file: Path, path: Path) -> Path:
        """Names the record of the step, of all in a run, that wrote `file` last."""
        return path.parent / "files" / hashlib.sha256(str(file).encode()).hexdigest()[:32]

    def place(self, run: str, step: str, item: Any) -> Path:
        """Where the record of a step is, or of a step for one item of a loop."""
        name = step if item is None else f"{step}.{item_id(item)}"
        return self._folder / token(run) / f"{name}.json"

    def pause(self, run: str, workflow: str, story: str) -> None:
        """Note that nothing further of a workflow begins until this is called with no story."""
        write_whole(self._folder / token(run) / "paused", f"{workflow} {story}")

    def paused_after(self, run: str, workflow: str) -> str:
        """The story, or nothing. Another workflow of the same run goes on from its records."""
        note = self._folder / token(run) / "paused"
        whose, _, story = note.read_text(encoding="utf-8").partition(" ") if note.is_file() else _NO
        return story if whose == workflow else ""

    @staticmethod
    def key(*parts: str) -> str:
        digest = hashlib.sha256()
        for part in parts:
            data = part.encode()
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()


def item_id(item: Any) -> str:
    """A short name for an item of a loop, the same for the same item."""
    said = item.get("id", "") if isinstance(item, dict) else item
    text = str(said) or msgspec.json.encode(item).decode()
    short = token(text)
    if short == text.lower().replace(".", "-"):  # `1.2` of a heading is `1-2` of a file
        return short
    return f"{short[:40]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
