"""What others have written, as messages: whatever is wrong is one `BadInput` with its field.

A document's depth is settled before it is decoded, so no input reaches the interpreter's limit.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from msgspec import Raw

from callboard_broker.bounds import check_document
from callboard_broker.errors import BadInput

__all__ = ["check_value", "decode_foreign"]

_value = msgspec.json.Decoder(Any)


def decode_foreign(decoder: msgspec.json.Decoder[Any], data: bytes, depth: int) -> Any:
    """What `decoder` makes of `data`, of at most `depth` levels. Raises `BadInput`."""
    check_document(data, depth=depth)
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _explain(error) from error


def check_value(raw: Raw, field: str) -> None:
    """A `Raw` was only skipped over: its numbers and its UTF-8 are checked here."""
    try:
        _value.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(field, _shown(str(error))) from error


def _explain(error: Exception) -> BadInput:
    """msgspec says `Expected `int`, got `str` - at `$.priority``: the path is the field."""
    text, _, place = str(error).partition(" - at `")
    field = place.rstrip("`").removeprefix("$").lstrip(".") or "body"
    if text.startswith("Object ") and "`" in text:
        named = text.split("`")[1]
        field = named if field == "body" else f"{field}.{named}"
    return BadInput(_shown(field), _shown(text))


@functools.cache
def _control_characters() -> dict[int, str]:
    return {code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160)]}


def _shown(text: str) -> str:
    """`text` for a person: bounded, control characters escaped."""
    return text.translate(_control_characters())[:300]
