"""Payloads as JSON: one place decides what may leave a process, and names what may not.

msgspec turns NaN and infinities into null without a word, so a document that holds a null is
looked through before it is sent.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import msgspec

from callboard_broker.bounds import MAX_DEPTH, check_document
from callboard_broker.errors import BadInput

__all__ = ["encode_payload"]


def encode_payload(value: Any, *, field: str = "payload", depth: int = MAX_DEPTH) -> bytes:
    """The JSON of `value`: plain data, dataclasses, msgspec structs, pydantic models.

    Raises `BadInput` that names the place of NaN, an infinity, or something that is no data.
    """
    try:
        data = msgspec.json.encode(value, enc_hook=_plain)
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise BadInput(field, f"cannot be written as JSON: {error}") from error
    except RecursionError as error:
        raise BadInput(field, f"nested deeper than {depth} levels") from error
    check_document(data, depth=depth, field=field)
    if b"null" in data:
        _refuse_not_finite(value, field)
    return data


def _plain(value: Any) -> Any:
    if _is_model(value):
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__name__} is no data")


def _is_model(value: Any) -> bool:
    """Whether it is a model of pydantic, which is not imported just for asking."""
    return hasattr(type(value), "__pydantic_validator__") and hasattr(value, "model_dump")


def _refuse_not_finite(value: Any, field: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadInput(field, f"{value} is not a number in JSON; send null or leave it out")
    elif isinstance(value, dict):
        for name, item in value.items():
            _refuse_not_finite(item, f"{field}.{name}")
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            _refuse_not_finite(item, f"{field}[{index}]")
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _refuse_not_finite(getattr(value, name), f"{field}.{name}")
    elif dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            _refuse_not_finite(getattr(value, part.name), f"{field}.{part.name}")
    elif _is_model(value):
        for name in type(value).model_fields:
            _refuse_not_finite(getattr(value, name), f"{field}.{name}")
