"""Bounds on what comes from outside: a document's depth is checked before it is decoded.

Counting the opening brackets settles almost every document in a few nanoseconds. Of one with more
brackets than its depth may have, strings are cut out and innermost pairs are cancelled, one level
at a time; only what is left after a few levels is walked, and no further than the depth allowed.
"""

from __future__ import annotations

import re

from callboard_broker.errors import BadInput, TooLarge

__all__ = ["MAX_DEPTH", "check_document", "check_size"]

MAX_DEPTH = 64

# Possessive, and an unterminated string goes to the end: no input makes it look twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_OPENS = ord("[")
_CANCELLED_LEVELS = 8


def check_size(data: bytes, limit: int, field: str = "payload") -> None:
    """Raise `TooLarge` if `data` has more than `limit` bytes."""
    if len(data) > limit:
        raise TooLarge(field, f"{len(data):,} bytes; at most {limit:,} are accepted")


def check_document(data: bytes, *, depth: int = MAX_DEPTH, field: str = "body") -> None:
    """Raise `BadInput` if the JSON in `data` nests deeper than `depth` levels."""
    if len(data) <= depth or data.count(b"[") + data.count(b"{") <= depth:
        return
    left = _STRING.sub(b"", data).translate(_ONE_KIND, _NO_BRACKETS)
    level = min(depth, _CANCELLED_LEVELS)
    for _ in range(level):
        left = left.replace(b"[]", b"")
    for bracket in left:
        level += 1 if bracket == _OPENS else -1
        if level > depth:
            raise BadInput(field, f"nested deeper than {depth} levels")
