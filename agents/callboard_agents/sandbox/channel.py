"""What a host and its child say to each other: frames over one inherited socket, nothing else.

A frame is its length, a verb and a number, then its body. A child is not to be trusted, so a reader
takes no more of a frame than its verb allows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

__all__ = [
    "ANSWER",
    "ASKED",
    "CANCEL",
    "FAILED",
    "HEAD",
    "REFUSE",
    "RESULT",
    "START",
    "TOLD",
    "Frame",
    "Frames",
    "TooLong",
    "frame",
    "join",
    "split",
]

START, ANSWER, REFUSE, CANCEL = 1, 2, 3, 4
"""To a child: its task, the answer to what it asked, or why there is none; that it shall stop."""
TOLD, ASKED, RESULT, FAILED = 5, 6, 7, 8
"""From a child: what needs no answer, what needs one, and its end. The number of a result is 1 if
the child can take another task."""

HEAD = struct.Struct("!IBI")
_SIZE = struct.Struct("!I")

Frame = tuple[int, int, bytes]
"""Verb, number, body."""


class TooLong(Exception):
    """A frame beyond its bound; the verb is `args[0]`, its length `args[1]`."""


def frame(verb: int, number: int, *parts: bytes) -> bytes:
    """Return the bytes of one frame."""
    return HEAD.pack(sum(map(len, parts)), verb, number) + b"".join(parts)


def join(first: bytes, rest: bytes) -> bytes:
    """Return one body of two parts."""
    return _SIZE.pack(len(first)) + first + rest


def split(body: bytes) -> tuple[bytes, bytes]:
    """Return the two parts. Raises `ValueError` if it has not two."""
    if len(body) < _SIZE.size:
        raise ValueError("a body without its first part")
    size = _SIZE.size + _SIZE.unpack_from(body)[0]
    if size > len(body):
        raise ValueError("a body shorter than its first part")
    return body[_SIZE.size : size], body[size:]


class Frames:
    """Puts together what has come. bounds: the longest body by verb; others are refused."""

    def __init__(self, bounds: dict[int, int]) -> None:
        self._bounds = bounds
        self._parts = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now. Raises `TooLong`."""
        parts = self._parts
        parts += data
        at = 0
        try:
            while len(parts) - at >= HEAD.size:
                size, verb, number = HEAD.unpack_from(parts, at)
                if size > self._bounds.get(verb, -1):
                    raise TooLong(verb, size)
                end = at + HEAD.size + size
                if len(parts) < end:
                    return
                body = bytes(parts[at + HEAD.size : end])
                at = end
                yield verb, number, body
        finally:
            del parts[:at]
