"""How long a regular expression may look: an upper bound, found without looking.

Python's engine tries one way to match after the other, so a pattern with several repetitions may
take hours on a text that does not fit. `ways` bounds their number by what stands in the pattern:
each repetition multiplies it by the length of the text, each choice adds to it, and a repetition of
something that has several ways itself raises it to a power.
"""

from __future__ import annotations

import math
import re

__all__ = ["ways"]

_MANY = math.inf
_VERBOSE = re.compile(r"\(\?[a-zA-Z-]*x")  # blanks and comments mean nothing there


def ways(pattern: str, length: int) -> float:
    """In how many ways, at most, a text of `length` characters is tried; infinite: very many.

    The pattern is one that `re` can compile.
    """
    if _VERBOSE.search(pattern):
        return _MANY
    groups: list[tuple[float, float]] = []  # (of the alternatives before, of what stood before)
    others, so_far, last = 0.0, 1.0, 1.0
    at, end = 0, len(pattern)
    while at < end:
        sign = pattern[at]
        if sign == "(":
            groups.append((others, so_far * last))
            others, so_far, last = 0.0, 1.0, 1.0
            at += 1
        elif sign == ")":
            if not groups:  # a bracket in a comment: `(?#...)` knows no escapes
                return _MANY
            inside = others + so_far * last
            others, so_far = groups.pop()
            last = inside
            at += 1
        elif sign == "|":
            others, so_far, last = others + so_far * last, 1.0, 1.0
            at += 1
        elif sign in "*+?{" and (times := _times(pattern, at, length)) is not None:
            most, at = times
            last = _repeated(last, most)
        else:
            so_far, last = so_far * last, 1.0
            at = _after(pattern, at)
    return _MANY if groups else others + so_far * last


def _repeated(inside: float, most: int) -> float:
    """The ways of something that is repeated up to so often."""
    if inside <= 1:
        return most + 2.0  # one more than there are, for what it costs to begin
    return inside**most if most * math.log(inside) < 100 else _MANY


def _times(pattern: str, at: int, length: int) -> tuple[int, int] | None:
    """(how often at most, where the pattern goes on); None: the sign stands for itself."""
    most, end = (1 if pattern[at] == "?" else length), at + 1
    if pattern[at] == "{":
        end = pattern.find("}", at) + 1
        low, comma, high = pattern[at + 1 : end - 1].partition(",")
        if not end or not all(part.isdecimal() for part in (low, high) if part) or not low + high:
            return None
        if high or not comma:
            most = min(int(high or low), length)
    if end < len(pattern) and pattern[end] in "?+":  # lazy or possessive
        end += 1
    return most, end


def _after(pattern: str, at: int) -> int:
    """Where the pattern goes on after a character, an escape or a set."""
    if pattern[at] == "\\":
        return at + 2
    if pattern[at] != "[":
        return at + 1
    at += 2 if pattern[at + 1 : at + 2] == "^" else 1
    at += pattern[at : at + 1] == "]"
    while at < len(pattern) and pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at + 1
