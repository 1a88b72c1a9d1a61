"""The dotted keys of the settings, read off the models, and the nearest one to a misspelt name."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

__all__ = [
    "ANY_NAME",
    "at",
    "child",
    "is_branch",
    "is_text",
    "known_keys",
    "nullable",
    "suggestion",
]

ANY_NAME = "<name>"
"""Stands in `known_keys` for a word of the user's, such as a tenant's name."""


def is_branch(kind: Any) -> bool:
    """Say whether a value of this type has keys of its own: a section or a map."""
    return _is_section(kind) or get_origin(kind) is dict


def child(kind: Any, name: str) -> Any:
    """Return the type below `kind` at `name`, or None if it has no such key."""
    if _is_section(kind):
        field = kind.model_fields.get(name)
        return None if field is None else field.annotation
    if get_origin(kind) is dict:
        return get_args(kind)[1]
    return None


def at(kind: Any, path: Iterable[str]) -> Any:
    """Return the type at `path` below `kind`, or None if there is no such key."""
    for name in path:
        kind = child(kind, name)
    return kind


def is_text(kind: Any) -> bool:
    """Say whether the value is text as it stands: an address, a name or a path."""
    return any(option in {str, Path} for option in _options(kind))


def nullable(kind: Any) -> bool:
    return type(None) in _options(kind)


def known_keys(kind: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value below `kind`; a map also stands for itself."""
    if _is_section(kind):
        for name, field in kind.model_fields.items():
            yield from known_keys(field.annotation, (*path, name))
        return
    yield path
    if get_origin(kind) is dict:
        yield from known_keys(get_args(kind)[1], (*path, ANY_NAME))


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return what to tell someone who wrote `name`: the nearest known key, if one is near."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else "`callboard config show` lists them all"


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _options(kind: Any) -> list[Any]:
    if get_origin(kind) is Annotated:
        return _options(get_args(kind)[0])
    if get_origin(kind) in {Union, types.UnionType}:
        return [inner for option in get_args(kind) for inner in _options(option)]
    return [kind]
