"""Signed notes in AUDIT beside the leaves: whose key is whose, and what was archived.

Each is a note of the log's key, so whoever may write to AUDIT and has not that key adds nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from callboard_broker.errors import BadInput
from callboard_broker.signing import PublicKey
from callboard_ledger.notes import open_note

__all__ = ["Archived", "HostKey", "read_record"]

_HOST_KEY = "callboard host key"
_ARCHIVED = "callboard archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """A host's beats announced this key (32 bytes), or with None that it signs nothing.

    at: Unix milliseconds of the ledger.
    """

    pool: str
    host: str
    key: bytes | None
    at: int

    @property
    def name(self) -> str:
        return f"{self.pool}/{self.host}"

    def text(self) -> str:
        """The text of its note."""
        key = "none" if self.key is None else base64.b64encode(self.key).decode()
        return f"{_HOST_KEY}\n{self.name}\n{key}\n{self.at}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """A segment was written. first, last: sequences of the journal. size: of the tree after it.
    digest: SHA-256 of its file, in hex."""

    first: int
    last: int
    size: int
    digest: str

    def text(self) -> str:
        """The text of its note."""
        return f"{_ARCHIVED}\n{self.first}\n{self.last}\n{self.size}\n{self.digest}\n"


def read_record(note: str, keys: Sequence[PublicKey]) -> HostKey | Archived | None:
    """What a note in AUDIT says; None for a kind that is not known here.

    Without keys its signature is not looked at. Raises `BadInput` (`NoteBroken`).
    """
    text = open_note(note, keys) if keys else note.rpartition("\n\n")[0] + "\n"
    kind, *rest = text.split("\n")[:-1]
    try:
        if kind == _HOST_KEY:
            name, key, at = rest
            pool, _, host = name.partition("/")
            raw = None if key == "none" else base64.b64decode(key, validate=True)
            return HostKey(pool=pool, host=host, key=raw, at=int(at))
        if kind == _ARCHIVED:
            first, last, size, digest = rest
            return Archived(first=int(first), last=int(last), size=int(size), digest=digest)
    except ValueError as error:
        raise BadInput("record", f"{kind}: {error}") from error
    return None
