"""`.callboard/board.json`: where the running `callboard up` is, for whoever works in its project.

The note is written atomically and removed at the end. A killed `up` leaves one behind; it counts
for nothing, because its process is gone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

__all__ = ["FOLDER", "BoardNote", "find_note", "leave_note", "read_note", "remove_note"]

FOLDER = ".callboard"
_NAME = "board.json"
_SAME_START_SECONDS = 2.0


class BoardNote(msgspec.Struct, frozen=True, kw_only=True):
    """A board that runs. pid: of its `callboard up`. ledger: the directory of its ledger.
    started: of that process, Unix seconds, so that another one with the same pid is told apart."""

    url: str
    pid: int
    prefix: str
    ledger: str
    started: float


def find_note(start: Path | None = None) -> BoardNote | None:
    """The note of the nearest running board, from `start` (the working directory) upwards."""
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        note = read_note(folder / FOLDER)
        if note is not None:
            return note
    return None


def read_note(folder: Path) -> BoardNote | None:
    """The note in `folder`, if its board still runs."""
    try:
        note = msgspec.json.decode((folder / _NAME).read_bytes(), type=BoardNote)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None  # none, or not ours to read
    return note if _runs(note) else None


def leave_note(folder: Path, *, url: str, prefix: str, ledger: Path) -> BoardNote:
    """Write the note of this process. Raises `OSError` as it comes."""
    note = BoardNote(
        url=url,
        pid=os.getpid(),
        prefix=prefix,
        ledger=str(ledger.absolute()),
        started=psutil.Process().create_time(),
    )
    draft = folder / f"{_NAME}.{note.pid}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor: the url may hold a password
        file.write(msgspec.json.format(msgspec.json.encode(note)) + b"\n")
    draft.replace(folder / _NAME)
    return note


def remove_note(folder: Path) -> None:
    """Remove the note if it is this process's own."""
    note = read_note(folder)
    if note is not None and note.pid == os.getpid():
        with suppress(FileNotFoundError):
            (folder / _NAME).unlink()


def _runs(note: BoardNote) -> bool:
    try:
        started = psutil.Process(note.pid).create_time()
    except (psutil.Error, ValueError, OverflowError):
        return False
    return abs(started - note.started) < _SAME_START_SECONDS
