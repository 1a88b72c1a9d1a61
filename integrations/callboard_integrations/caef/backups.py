"""Applies worked-out changes to files, after their old contents are kept; and brings those back.

A manifest with the hashes before and after is written first. So whoever applies the same edits
again finds that they are done, or begins anew after a crash in the middle, and `restore` gives
every byte and mode back; a file that somebody has changed since is not overwritten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.project_files import inside, write_whole
from callboard_integrations.caef.edits import FileChange

__all__ = ["applied_before", "apply_changes", "restore"]

_MANIFEST = "manifest.json"


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """before: the hash of the old content, empty if there was no file. kept: where that is."""

    name: str
    before: str
    after: str
    mode: int
    kept: str


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """folders: those that were made for new files, the outermost first."""

    root: str
    files: list[_Kept]
    folders: list[str]


def applied_before(root: Path, backup: Path) -> list[str]:
    """The paths of the backups if their changes are in the files as they are now; else none.

    Where a crash has left only some of them, those are brought back first.
    """
    manifest = _manifest(backup)
    if manifest is None or manifest.root != str(root.resolve()):
        return []
    now = [_hash(_content(inside(root, one.name))) for one in manifest.files]
    if all(found == one.after for found, one in zip(now, manifest.files, strict=True)):
        return _paths(manifest, backup)
    if all(
        found in (one.before, one.after) for found, one in zip(now, manifest.files, strict=True)
    ):
        _bring_back(root, manifest, backup)
    return []


def apply_changes(root: Path, changes: Sequence[FileChange], backup: Path) -> list[str]:
    """Write all files; the paths of the backups, or of the manifest alone if all files are new.

    backup: a folder for them. Should one file fail, those before it are brought back. Raises
    `BadInput`, `OSError`.
    """
    kept = []
    for number, change in enumerate(changes):
        place = backup / f"{number:03}"
        if change.before is not None:
            write_whole(place, change.before, mode=0o600)
        kept.append(
            _Kept(
                name=change.name,
                before=_hash(change.before),
                after=_hash(change.after),
                mode=change.mode,
                kept=place.name if change.before is not None else "",
            )
        )
    folders = _new_folders(root, changes)
    manifest = _Manifest(root=str(root.resolve()), files=kept, folders=folders)
    write_whole(backup / _MANIFEST, msgspec.json.encode(manifest), mode=0o600)
    try:
        for change in changes:
            path = inside(root, change.name)
            if _content(path) != change.before:
                raise BadInput("file", f"{change.name} was changed by somebody else meanwhile")
            write_whole(path, change.after, mode=change.mode)
    except (OSError, BadInput):
        _bring_back(root, manifest, backup)
        raise
    return _paths(manifest, backup)


def restore(backup: Path) -> list[str]:
    """Bring back what was there before the edits whose backup this is; the files' names.

    backup: the folder, or one of the paths that were given as `backups`. Raises `BadInput` if it
    is none, or if a file was changed since: nothing is written then.
    """
    folder = backup if backup.is_dir() else backup.parent
    manifest = _manifest(folder)
    if manifest is None:
        raise BadInput("backup", f"{folder} is no backup: there is no {_MANIFEST} in it")
    root = Path(manifest.root)
    for one in manifest.files:
        if _hash(_content(inside(root, one.name))) not in (one.before, one.after):
            raise BadInput("backup", f"{one.name} was changed since; move your change away first")
    _bring_back(root, manifest, folder)
    return [one.name for one in manifest.files]


def _paths(manifest: _Manifest, backup: Path) -> list[str]:
    kept = [str(backup / one.kept) for one in manifest.files if one.kept]
    return kept or [str(backup / _MANIFEST)]


def _bring_back(root: Path, manifest: _Manifest, backup: Path) -> None:
    for one in manifest.files:
        path = inside(root, one.name)
        if _hash(_content(path)) != one.after:
            continue
        if one.kept:
            write_whole(path, (backup / one.kept).read_bytes(), mode=one.mode)
        else:
            path.unlink()
    for name in reversed(manifest.folders):
        folder = root / name
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _new_folders(root: Path, changes: Sequence[FileChange]) -> list[str]:
    found: dict[str, None] = {}
    for change in changes:
        above = [*Path(change.name).parents][:-1]
        found |= {str(one): None for one in reversed(above) if not (root / one).exists()}
    return list(found)


def _manifest(backup: Path) -> _Manifest | None:
    try:
        return msgspec.json.decode((backup / _MANIFEST).read_bytes(), type=_Manifest)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise BadInput("backup", f"{backup / _MANIFEST} cannot be read: {error}") from error


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _hash(content: bytes | None) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()
