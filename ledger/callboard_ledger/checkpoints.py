"""Who a log is, and its checkpoints outside the server: without one nobody could tell that AUDIT
was cut or written anew.

`audit.key` signs (mode 0600), `audit.pub` checks, `checkpoints` is only ever appended to, and each
checkpoint is on the disk before it counts. Keep that file on another disk, or copy it away: what
was copied cannot be rewritten. `audit-journal` names the journal that the log is about.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from callboard_broker.errors import AuditBroken, BadInput
from callboard_broker.signing import PublicKey, SigningKey
from callboard_ledger.notes import Checkpoint, NoteBroken, read_notes

__all__ = ["CheckpointFile", "LogFolder", "own_keys", "read_checkpoints"]

_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class LogFolder:
    """The files of a log in the ledger's directory. key, checkpoints: elsewhere, if given."""

    path: Path
    key: Path | None = None
    checkpoints: Path | None = None

    @property
    def key_file(self) -> Path:
        return self.key or self.path / "audit.key"

    @property
    def public_file(self) -> Path:
        return self.path / "audit.pub"

    @property
    def checkpoint_file(self) -> Path:
        return self.checkpoints or self.path / "checkpoints"

    @property
    def journal_file(self) -> Path:
        return self.path / "audit-journal"

    def open_key(self, prefix: str) -> SigningKey:
        """The log's key, made at the first start. Raises `BadInput`, and `OSError` as it comes."""
        key = SigningKey.read_or_make(self.key_file, f"callboard/{prefix}/")
        text = f"{key.public}\n"
        if not self.public_file.exists() or self.public_file.read_text() != text:
            self.public_file.write_text(text)
        return key

    def check_journal(self, created: str) -> None:
        """Remember which journal this log is about. Raises `AuditBroken` if it was another one."""
        try:
            known = self.journal_file.read_text().strip()
        except FileNotFoundError:
            self.journal_file.write_text(f"{created}\n")
            return
        if known != created:
            raise AuditBroken([f"the journal of {known} was replaced by one of {created}"])


class CheckpointFile:
    """The checkpoints of one log, one note after the other. Raises `OSError` as it comes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def last(self, keys: Sequence[PublicKey]) -> Checkpoint | None:
        """The last one, or None. Raises `AuditBroken` if it is not this log's."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError as error:
            raise AuditBroken([f"{self.path} is damaged: {error}"]) from error
        last = deque(read_notes(text), maxlen=1)
        try:
            return Checkpoint.read(last[0], keys) if last else None
        except NoteBroken as error:
            raise AuditBroken(
                [f"{self.path} ends with no checkpoint of this log: {error}"]
            ) from None

    def append(self, note: str) -> None:
        """Add one; it is on the disk when this returns."""
        self._mend()
        with open(self.path, "a", encoding="utf-8", opener=_private) as file:
            file.write(f"{note}\n")
            file.flush()
            os.fsync(file.fileno())

    def _mend(self) -> None:
        """Remove what the ledger wrote of a checkpoint when it was killed."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) == 0:
                    return
                file.seek(-1, os.SEEK_END)
                if file.read(1) == b"\n":
                    return
                file.seek(0)
                data = file.read()
        except FileNotFoundError:
            return
        whole = deque(read_notes(data.decode(errors="replace")), maxlen=1)
        last = whole[0].encode() if whole else b""
        os.truncate(self.path, data.rfind(last) + len(last))
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" if last else "")


def read_checkpoints(path: Path, keys: Sequence[PublicKey]) -> list[Checkpoint]:
    """The checkpoints in a file, or in the directory of a ledger (none if it has
    signed none yet).

    Raises `BadInput` if there is none in the file, or one that none of `keys` signed.
    """
    if path.is_dir():
        path = LogFolder(path).checkpoint_file
        if not path.exists() or not path.stat().st_size:
            return []
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput("checkpoint", f"{path} is larger than 1 GiB")
        notes = list(read_notes(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput("checkpoint", f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadInput("checkpoint", f"{path} holds no checkpoint: {error}") from error
    found = list(_sound(path, notes, keys))
    if not found:
        raise BadInput("checkpoint", f"{path} holds no checkpoint")
    return found


def own_keys(directory: Path) -> list[PublicKey]:
    """The public key of the ledger whose directory this is, if it has one. Raises `BadInput`."""
    path = LogFolder(directory).public_file
    return [PublicKey.read(str(path))] if path.exists() else []


def _sound(path: Path, notes: Iterable[str], keys: Sequence[PublicKey]) -> Iterable[Checkpoint]:
    for number, note in enumerate(notes, 1):
        try:
            yield Checkpoint.read(note, keys)
        except NoteBroken as error:
            said = f"checkpoint {number} of {path} does not hold: {error}"
            raise BadInput("checkpoint", said) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
