"""Payloads that are models of pydantic, or contain them: read strictly, by pydantic itself."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import pydantic

from callboard_agents.payload import Reader, join, shown
from callboard_broker.bounds import MAX_DEPTH, check_document
from callboard_broker.errors import BadInput

__all__ = ["adapter", "explain", "reader"]


def reader(annotation: Any) -> Reader:
    """Return what decodes a payload into `annotation`; raises `TypeError` if nothing can."""
    return functools.partial(_read, adapter(annotation))


@functools.cache
def adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    """Return what validates such values. Raises `TypeError` if pydantic cannot."""
    try:
        return pydantic.TypeAdapter(annotation)
    except pydantic.errors.PydanticUserError as error:
        raise TypeError(str(error)) from error


def explain(error: pydantic.ValidationError) -> BadInput:
    """Return what must change: the first field that is wrong."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ""
    for part in first["loc"]:
        field = f"{field}[{part}]" if isinstance(part, int) else join(field, part)
    more = error.error_count() - 1
    reason = first["msg"] + (f" (and {more} more)" if more else "")
    return BadInput(shown(field) or "payload", shown(reason))


def _read(adapter: pydantic.TypeAdapter[Any], data: bytes | msgspec.Raw) -> Any:
    raw = bytes(data)
    try:
        check_document(raw, depth=MAX_DEPTH, field="payload")
        return adapter.validate_json(raw, strict=True)
    except pydantic.ValidationError as error:
        raise explain(error) from error
