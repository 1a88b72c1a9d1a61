"""Bounds on what comes from outside: a document's depth is checked before it is decoded.

Counting the opening brackets settles almost every document in a few nanoseconds; only one with
more brackets than its depth may have is walked.
"""

from __future__ import annotations

import re

from callboard_broker.errors import BadInput, TooLarge

__all__ = ["MAX_DEPTH", "check_document", "check_size"]

MAX_DEPTH = 64

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def check_size(data: bytes, limit: int, field: str = "payload") -> None:
    """Raise `TooLarge` if `data` has more than `limit` bytes."""
    if len(data) > limit:
        raise TooLarge(field, f"{len(data):,} bytes; at most {limit:,} are accepted")


def check_document(data: bytes, *, depth: int = MAX_DEPTH, field: str = "body") -> None:
    """Raise `BadInput` if the JSON in `data` nests deeper than `depth` levels."""
    if data.count(b"[") + data.count(b"{") <= depth:
        return
    level = 0
    for match in _STRING_OR_BRACKET.finditer(data):
        first = data[match.start()]
        if first in b"[{":
            level += 1
            if level > depth:
                raise BadInput(field, f"nested deeper than {depth} levels")
        elif first != 0x22:
            level -= 1
