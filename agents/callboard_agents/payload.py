"""From JSON to what a handler is annotated with.

msgspec reads plain types, dataclasses and structs; pydantic reads its own models, strictly. What
does not fit is refused with the name of the field that must change, never passed on half read.
"""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any

import msgspec

from callboard_broker.errors import BadInput

__all__ = ["Reader", "join", "reader", "shown"]

Reader = Callable[[bytes | msgspec.Raw], Any]

_NAMED_FIELD = re.compile(r"(?:missing required|contains unknown) field `([^`]*)`")
_SHOWN = 300


def reader(annotation: Any) -> Reader:
    """Return what decodes a payload into `annotation`; it raises `BadInput` naming the field.

    Raises `BadInput("payload")` if no payload can ever be read into such a type.
    """
    if annotation is None:
        annotation = type(None)
    try:
        if _is_pydantic(annotation):
            found: Reader = _models().reader(annotation)
            return found
        decoder = msgspec.json.Decoder(annotation, dec_hook=_nested)
        _refuse_strange(msgspec.inspect.type_info(annotation))
    except TypeError as error:
        raise BadInput("payload", f"cannot be read into {annotation!r}: {error}") from error
    return functools.partial(_read_msgspec, decoder)


def _read_msgspec(decoder: msgspec.json.Decoder[Any], data: bytes | msgspec.Raw) -> Any:
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _explain(error) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("payload", shown(str(error))) from error


def _is_pydantic(annotation: Any) -> bool:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return hasattr(annotation, "__pydantic_validator__")
    return any(_is_pydantic(part) for part in typing.get_args(annotation))


def _is_foreign(kind: type) -> bool:
    """Whether `_nested` can read what msgspec cannot; to msgspec, `object` is a class as any."""
    return kind is object or _is_pydantic(kind)


def _refuse_strange(info: msgspec.inspect.Type) -> None:
    """Raise `TypeError` if a class that is no data stands anywhere in the type."""
    seen: set[int] = set()
    stack: list[object] = [info]
    while stack:
        part = stack.pop()
        if id(part) in seen:  # a type may contain itself
            continue
        seen.add(id(part))
        if isinstance(part, msgspec.inspect.CustomType) and not _is_foreign(part.cls):
            raise TypeError(f"{part.cls.__qualname__} is not a type of data")
        if isinstance(part, msgspec.inspect.Type | msgspec.inspect.Field):
            stack += [getattr(part, name) for name in part.__struct_fields__]
        elif isinstance(part, tuple):
            stack += part


def _nested(kind: type, value: Any) -> Any:
    """Read a pydantic model that is a field of a struct or dataclass."""
    if kind is object:
        return value
    # In its JSON form, because pydantic takes a date as text from JSON only.
    return _models().adapter(kind).validate_json(msgspec.json.encode(value), strict=True)


def _explain(error: msgspec.ValidationError) -> BadInput:
    """msgspec says: Expected `int`, got `str` - at `$.files[0].size`; the path is the field."""
    text, _, place = str(error).rpartition(" - at `")
    if not text:
        text, place = place, "$"
    field = place.rstrip("`").removeprefix("$").lstrip(".")
    if hasattr(error.__cause__, "error_count"):
        inner = _models().explain(error.__cause__)
        joined = inner.field if inner.field != "payload" else ""
        return BadInput(join(field, joined), inner.reason)
    if named := _NAMED_FIELD.search(text):
        field = join(field, named.group(1))
    return BadInput(shown(field) or "payload", shown(text))


def _models() -> ModuleType:
    """What reads pydantic's models; not loaded where no agent has one."""
    from callboard_agents import payload_models  # noqa: PLC0415  see above

    return payload_models


def join(field: str, name: str) -> str:
    """The name of a field within a field."""
    return f"{field}.{name}" if field and name and not name.startswith("[") else field + name


def shown(text: str) -> str:
    """`text` for a person: bounded, and on one line."""
    return " ".join(text.split())[:_SHOWN]
