"""The head of the audit log, kept outside the server: without it nobody could tell that AUDIT was
cut or written anew.

`audit-head.json` is replaced atomically and fsynced; `audit-heads.jsonl` keeps a history of heads,
one a minute. Copy either to another machine now and then: what was copied cannot be rewritten.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from callboard_broker.errors import AuditBroken, BadInput

__all__ = ["Head", "HeadFile", "read_heads"]

_HISTORY_MS = 60_000


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """AUDIT as the ledger left it.

    batch: the sequence of the last message in AUDIT. last: the last audited sequence of the
    journal. head: hex. at: Unix milliseconds of the ledger's clock. journal: when the journal was
    created, as the server tells it (empty: unknown).
    """

    batch: int
    last: int
    head: str
    at: int
    journal: str = ""


class HeadFile:
    """`audit-head.json` and `audit-heads.jsonl` in `directory`. Raises `OSError` as it comes."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "audit-head.json"
        self.history = directory / "audit-heads.jsonl"
        self._noted_at = 0

    def read(self) -> Head | None:
        """The head that was kept, or None. Raises `AuditBroken` if the file is damaged."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(data, type=Head)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise AuditBroken([f"{self.path} is damaged: {error}"]) from error

    def all(self) -> list[Head]:
        """Every head that was kept, the oldest first. Raises `AuditBroken` as `read` does."""
        heads = list(self._past())
        last = self.read()
        return heads if last is None or last in heads else [*heads, last]

    def write(self, head: Head) -> None:
        """Replace the head; it is on the disk when this returns."""
        data = msgspec.json.encode(head)
        if head.at - self._noted_at >= _HISTORY_MS:
            self._noted_at = head.at
            with open(self.history, "ab", opener=_private) as file:
                file.write(data + b"\n")
        draft = self.path.with_suffix(".draft")
        with open(draft, "wb", opener=_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _past(self) -> Iterable[Head]:
        try:
            lines = self.history.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n") and number == len(lines):
                return  # the ledger was killed while it wrote this line
            try:
                yield msgspec.json.decode(line, type=Head)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise AuditBroken([f"{self.history}:{number} is damaged: {error}"]) from error


def read_heads(path: Path) -> list[Head]:
    """The heads in a ledger's directory, or in a copy of one of its two files.

    Raises `BadInput` if `path` holds none, `AuditBroken` if a file of the directory is damaged.
    """
    if path.is_dir():
        return HeadFile(path).all()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput("head", f"{path} cannot be read: {error.strerror}") from error
    try:
        heads = [msgspec.json.decode(line, type=Head) for line in data.splitlines() if line.strip()]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadInput("head", f"{path} holds no head of an audit log: {error}") from error
    if not heads:
        raise BadInput("head", f"{path} is empty")
    return heads


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
