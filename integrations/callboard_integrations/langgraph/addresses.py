"""The subjects of checkpoints: every word is base64url, so that no id can reach another's rows.

    <prefix>.ckpt.<thread>.c.<ns>.<checkpoint>             a checkpoint, without its values
    <prefix>.ckpt.<thread>.b.<ns>.<channel>.<version>      a channel's value in one version
    <prefix>.ckpt.<thread>.w.<ns>.<checkpoint>.<task>.<n>  what one call of `put_writes` was given
    <prefix>.ckpt.<thread>.p.<name>.<part>                 a part of a value that is too large
    <prefix>.ckpt.<thread>.l, .h                           the claim of a lease, its heartbeat
    <prefix>.ckpt.<thread>.e                               that a graph agent came to its end
    <prefix>.ckpt.<thread>.q.<place>                       what a node of such a graph was asked

The thread comes first: to delete it is one purge.
"""

from __future__ import annotations

import base64
import binascii
import functools
from dataclasses import dataclass

from callboard_broker.errors import BadInput, TooLarge
from callboard_broker.subjects import check_token

__all__ = ["ThreadAddress", "all_checkpoints", "all_ended", "stream_name", "unword", "word"]

_EMPTY = "_"
_MOST_BYTES = 512  # of one name; a subject has at most 4 KiB in a server's line


@functools.lru_cache(maxsize=4096)
def word(name: str) -> str:
    """A name as a word of a subject. Raises `TooLarge`."""
    data = name.encode()
    if len(data) > _MOST_BYTES:
        raise TooLarge("id", f"{name[:80]!r}... has {len(data)} bytes; at most {_MOST_BYTES}")
    return base64.urlsafe_b64encode(data).decode().rstrip("=") or _EMPTY


def unword(text: str) -> str:
    """The name of which `text` is the word. Raises `BadInput`."""
    if text == _EMPTY:
        return ""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise BadInput("subject", f"{text[:80]!r} is not base64url") from error


def stream_name(kind: str, prefix: str) -> str:
    """The stream of a board's checkpoints or store; a board with another prefix has its own."""
    check_token(prefix, "prefix")
    return kind if prefix == "cb" else f"{kind}_{prefix.upper()}"


def all_checkpoints(prefix: str, *, thread: str = "*", ns: str = "*", checkpoint: str = "*") -> str:
    """The filter of checkpoints; each part is a word already."""
    return f"{prefix}.ckpt.{thread}.c.{ns}.{checkpoint}"


def all_ended(prefix: str) -> str:
    """The filter of the notes that a thread is at its end."""
    return f"{prefix}.ckpt.*.e"


@dataclass(frozen=True, slots=True)
class ThreadAddress:
    """The subjects of one thread. root: `<prefix>.ckpt.<thread>`."""

    root: str
    blobs: str

    @classmethod
    def of(cls, prefix: str, thread: str, stream: str) -> ThreadAddress:
        """The address of a thread by its id."""
        return cls(f"{prefix}.ckpt.{word(thread)}", stream)

    @property
    def claim(self) -> str:
        return f"{self.root}.l"

    @property
    def heartbeat(self) -> str:
        return f"{self.root}.h"

    @property
    def ended(self) -> str:
        return f"{self.root}.e"

    def question(self, place: str) -> str:
        """What the node at `place` was asked."""
        return f"{self.root}.q.{word(place)}"

    @property
    def everything(self) -> str:
        return f"{self.root}.>"

    def checkpoint(self, ns: str, checkpoint: str) -> str:
        """Both are words."""
        return f"{self.root}.c.{ns}.{checkpoint}"

    def value(self, ns: str, channel: str, version: object) -> str:
        """ns is a word."""
        return f"{self.root}.b.{ns}.{word(channel)}.{word(str(version))}"

    def writes(self, ns: str, checkpoint: str) -> str:
        """Below it, all writes of a checkpoint; both are words."""
        return f"{self.root}.w.{ns}.{checkpoint}"

    def blob(self, name: str, part: int) -> str:
        """A part of a large value, as `Blobs` wants it."""
        return f"{self.root}.p.{name}.{part}"
