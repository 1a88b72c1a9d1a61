"""Which parameters and exceptions a docstring names, in Sphinx, Google or NumPy style."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Described", "described"]

_SPHINX_PARAMETER = re.compile(
    r":(?:param|parameter|arg|argument|key|keyword)\s{1,20}([^:\s][^:]{0,200}):"
)
_SPHINX_RAISES = re.compile(r":(?:raise|raises|except)\s{1,20}([\w.][\w., ]{0,200}):")
_GOOGLE = re.compile(r"^(Args|Arguments|Parameters|Keyword Args|Raises):$")
_GOOGLE_ITEM = re.compile(r"^(\*{0,2}[\w.]+(?:,\s*\*{0,2}\w+)*)\s*(?:\([^)]*\))?\s*:(?:\s|$)")
_NUMPY_ITEM = re.compile(r"^(\*{0,2}[\w.]+(?:,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_NUMPY = {"Parameters", "Other Parameters", "Raises"}
# Bounds what a docstring made to be slow can cost.
_MAX_LINES = 2_000
_MAX_WIDTH = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The names a docstring describes; `raises` is None if it says nothing about exceptions."""

    parameters: frozenset[str]
    raises: frozenset[str] | None


def described(docstring: str) -> Described:
    """Read a cleaned docstring (`ast.get_docstring`)."""
    parameters: set[str] = set()
    raises: set[str] = set()
    lines = [each[:_MAX_WIDTH] for each in docstring.splitlines()[:_MAX_LINES]]
    for line in lines:
        if found := _SPHINX_PARAMETER.match(line.lstrip()):
            parameters.add(found[1].split()[-1].lstrip("*\\"))
        elif found := _SPHINX_RAISES.match(line.lstrip()):
            raises.update(re.findall(r"[\w.]+", found[1]))
    says_raises = bool(raises)
    for title, names in _sections(lines):
        if title == "Raises":
            says_raises = True
            raises.update(names)
        else:
            parameters.update(names)
    return Described(
        parameters=frozenset(parameters),
        raises=frozenset(each.rpartition(".")[2] for each in raises) if says_raises else None,
    )


def _sections(lines: list[str]) -> list[tuple[str, list[str]]]:
    """(title, names) of each section that lists parameters or exceptions."""
    found: list[tuple[str, list[str]]] = []
    for at, line in enumerate(lines):
        title = line.strip()
        below = lines[at + 1].strip() if at + 1 < len(lines) else ""
        if title in _NUMPY and set(below) == {"-"}:
            found.append((title, _names(lines[at + 2 :], _NUMPY_ITEM, _indent(line))))
        elif match := _GOOGLE.match(title):
            inner = next((_indent(each) for each in lines[at + 1 :] if each.strip()), 0)
            if inner > _indent(line):
                found.append((match[1], _names(lines[at + 1 :], _GOOGLE_ITEM, inner)))
    return found


def _names(lines: list[str], item: re.Pattern[str], indent: int) -> list[str]:
    """The names of the items that stand at `indent`, up to the next section."""
    names: list[str] = []
    for at, line in enumerate(lines):
        if not line.strip() or _indent(line) > indent:
            continue
        below = lines[at + 1].strip() if at + 1 < len(lines) else ""
        match = item.match(line.strip())
        if _indent(line) < indent or match is None or (below and set(below) == {"-"}):
            break
        names.extend(each.strip(" *") for each in match[1].split(","))
    return names


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
