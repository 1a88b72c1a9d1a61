"""Signed notes and the checkpoints of a log, as C2SP's signed-note and tlog-checkpoint have them.

A note is text that ends in a newline, an empty line, and signature lines. A checkpoint is a note
whose text is three lines: the log's origin, the number of leaves, the root in base64. It says
nothing until a known key's signature was checked; signatures of unknown keys do not count.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from callboard_broker.errors import BadInput
from callboard_broker.signing import PublicKey, SigningKey

__all__ = [
    "Checkpoint",
    "NoteBroken",
    "UnknownSigner",
    "open_note",
    "read_notes",
    "sign_checkpoint",
    "sign_note",
]

_SIGNED = "\u2014 "  # an em dash, as the format wants it
_MOST_SIGNATURES = 32
_MOST_CHARACTERS = 20_000


class NoteBroken(BadInput):
    """A note that no known key has signed, or that is none."""


class UnknownSigner(NoteBroken):
    """A note that only keys have signed which nobody gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree as its log stated it. note: the text it was read from. signed: a known key did."""

    origin: str
    size: int
    root: bytes
    note: str
    signed: bool

    @classmethod
    def read(cls, note: str, keys: Sequence[PublicKey]) -> Checkpoint:
        """Read a checkpoint. Without keys its signatures are not looked at. Raises `NoteBroken`."""
        text = open_note(note, keys) if keys else _parts(note)[0]
        lines = text.split("\n")
        if len(lines) < 4 or "" in lines[:-1]:
            raise NoteBroken("checkpoint", "not three lines: origin, size, root")
        origin, size, root = lines[:3]
        try:
            if not size.isascii() or not size.isdecimal() or size != str(int(size)):
                raise NoteBroken("checkpoint", f"{size[:40]!r} is not the size of a tree")
            digest = base64.b64decode(root, validate=True)
        except ValueError as error:
            raise NoteBroken("checkpoint", f"not a root in base64: {error}") from error
        if len(digest) != 32:
            raise NoteBroken("checkpoint", "its root is not a hash of 32 bytes")
        return cls(origin=origin, size=int(size), root=digest, note=note, signed=bool(keys))


def sign_note(text: str, key: SigningKey) -> str:
    """The note of `text`, which ends in a newline, with one signature."""
    public = key.public
    signature = base64.b64encode(public.id + key.sign(text.encode())).decode()
    return f"{text}\n{_SIGNED}{public.name} {signature}\n"


def sign_checkpoint(size: int, root: bytes, key: SigningKey) -> str:
    """The note that states this tree; its origin is the key's name."""
    return sign_note(f"{key.public.name}\n{size}\n{base64.b64encode(root).decode()}\n", key)


def open_note(note: str, keys: Sequence[PublicKey]) -> str:
    """The text of `note`, if one of `keys` signed it. Raises `NoteBroken`."""
    text, signatures = _parts(note)
    known = {(key.name, key.id): key for key in keys}
    signed = False
    for name, key_id, signature in signatures:
        key = known.get((name, key_id))
        if key is None:
            continue
        if not key.verifies(signature, text.encode()):
            raise NoteBroken("signature", f"that of {name} is not over this text")
        signed = True
    if not signed:
        names = ", ".join(sorted({name for name, _, _ in signatures}))
        raise UnknownSigner("signature", f"signed by {names}, and by no key that was given")
    return text


def read_notes(text: str) -> Iterator[str]:
    """The notes of a file that holds one after the other, with empty lines between them.

    The last one is left out if it was not written to its end.
    """
    lines: list[str] = []
    signed = False
    for line in text.splitlines(keepends=True):
        if signed and not line.startswith(_SIGNED):
            yield "".join(lines)
            lines, signed = [], False
            if line == "\n":
                continue
        lines.append(line)
        signed = line.startswith(_SIGNED) and line.endswith("\n")
    if signed:
        yield "".join(lines)


def _parts(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """The text, and of each signature the key's name, its id and the signature itself."""
    if len(note) > _MOST_CHARACTERS or any(ord(char) < 32 and char != "\n" for char in note):
        raise NoteBroken("note", "not a signed note")
    text, separator, rest = note.rpartition("\n\n")
    lines = rest.split("\n")
    if not separator or lines[-1] or not 2 <= len(lines) <= _MOST_SIGNATURES + 1:
        raise NoteBroken("note", "not a signed note: text, an empty line, signatures")
    found = []
    for line in lines[:-1]:
        name, _, encoded = line.removeprefix(_SIGNED).partition(" ")
        try:
            signature = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise NoteBroken("signature", f"not base64: {error}") from error
        if not line.startswith(_SIGNED) or not name or len(signature) < 5:
            raise NoteBroken("signature", "not a signature line")
        found.append((name, signature[:4], signature[4:]))
    return f"{text}\n", found
