"""Writes files of a project: only inside of it, whole or not at all; and locks them.

Names come from models and from strangers' files: whatever would leave the folder, or touch what a
version control system or Callboard keeps there, is refused.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from callboard_broker.errors import BadInput

__all__ = ["KEPT", "inside", "is_file_name", "keep_from_git", "locked", "write_whole"]

KEPT = ".callboard"
"""The folder of a project in which Callboard keeps what is its own."""

_NAME = re.compile(r"[\w@+. -]{1,120}(?:/[\w@+. -]{1,120}){0,15}")
_BARE = frozenset({"Dockerfile", "Justfile", "LICENSE", "Makefile"})
_PRIVATE = frozenset({".git", ".hg", ".svn", KEPT})


def is_file_name(name: str) -> bool:
    """Whether an artifact's name is that of a file, as `prd.md` is and `sharded_docs` is not."""
    path = PurePosixPath(name)
    named = bool(path.suffix) or path.name in _BARE
    return _NAME.fullmatch(name) is not None and named and ".." not in path.parts


def inside(folder: Path, name: str) -> Path:
    """The path of `name` below `folder`. Raises `BadInput` if it is not below it."""
    parts = PurePosixPath(name).parts
    if (
        _NAME.fullmatch(name) is None
        or not parts
        or any(part in ("..", ".", "/") or part.lower() in _PRIVATE for part in parts)
    ):
        raise BadInput("file", f"{name!r:.160} is not a file below the project's folder")
    path = folder.joinpath(*parts)
    top, there = folder.resolve(), path.parent.resolve()
    if not there.is_relative_to(top) or path.is_symlink():
        raise BadInput("file", f"{name!r:.160} leads out of the project's folder by a link")
    if any(part.lower() in _PRIVATE for part in there.relative_to(top).parts):
        raise BadInput("file", f"{name!r:.160} leads to what is private by a link")
    return path


def keep_from_git(project: Path) -> None:
    """Make the folder of what is kept, and let git take no notice of it."""
    ignored = project / KEPT / ".gitignore"
    ignored.parent.mkdir(parents=True, exist_ok=True)
    if not ignored.exists():
        ignored.write_text("*\n", encoding="utf-8")


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o644) -> None:
    """Replace a file at once: a reader, or a crash, meets the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path` against every process of this machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
