"""Lines that handlers log, as they stand in LOGS and as a reader gets them.

A message holds lines of one attempt, numbered by it: whoever gets a line twice knows it by
(task, attempt, n). Times are Unix milliseconds of the server's clock. Every line is bounded by its
host, and read with bounds again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from callboard_broker.bounds import check_document
from callboard_broker.decoding import decode_foreign
from callboard_broker.errors import BadInput
from callboard_broker.posts import Version

__all__ = [
    "ERROR_BYTES",
    "FIELDS_BYTES",
    "LEVELS",
    "MESSAGE_BYTES",
    "Level",
    "LogBatch",
    "LogBounds",
    "LogLine",
    "LoggedLine",
    "bounded_fields",
    "cut",
    "decode_log_batch",
    "level_name",
    "level_number",
]

Level = Literal["debug", "info", "warning", "error", "critical"]

LEVELS: dict[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

MESSAGE_BYTES = 8 * 1024
"""Of a message at the most, as JSON."""
ERROR_BYTES = 16 * 1024
"""Of the text of a traceback."""
FIELDS_BYTES = 4 * 1024
"""Of the further fields of a line."""

_MOST_LINES = 10_000
_CUT_BYTES = 40  # for saying that something was cut
_DEPTH = 64
_FIELDS_DEPTH = 32
_encode_any = msgspec.json.Encoder(enc_hook=str).encode
_Id = Annotated[str, Meta(min_length=1, max_length=512)]
_Name = Annotated[str, Meta(max_length=256)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBounds:
    """How much of what handlers log is kept: the oldest goes first."""

    max_mb: float = 256.0
    max_days: float = 7.0


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. n: its number in its attempt, from 1. error: the text of an exception's trace.
    fields: what the handler added, a JSON object."""

    n: Annotated[int, Meta(ge=1)]
    at: Annotated[int, Meta(ge=0)]
    level: Level
    message: str
    logger: _Name = ""
    fields: Raw | UnsetType = UNSET
    error: str = ""


class LogBatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """Lines of one attempt (`cb.log.<tenant>.<shard>`). workflow: the outermost task or workflow
    that the task is a part of. trace: of that."""

    task: _Id
    workflow: _Id
    attempt: Annotated[int, Meta(ge=1)]
    host: _Name
    capability: _Name
    trace: Annotated[str, Meta(max_length=32)]
    lines: Annotated[list[LogLine], Meta(max_length=_MOST_LINES)]
    v: Version = 1


class LoggedLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line with all that is known of it."""

    at: int
    level: Level
    message: str
    tenant: str
    workflow: str
    task: str
    attempt: int
    n: int
    host: str
    capability: str
    trace: str
    logger: str = ""
    fields: Any = None
    error: str = ""


_batch = msgspec.json.Decoder(LogBatch)


def decode_log_batch(data: bytes) -> LogBatch:
    """Read what a host has sent. Raises `BadInput` that names the field."""
    batch: LogBatch = decode_foreign(_batch, data, _DEPTH)
    for index, line in enumerate(batch.lines):
        if line.fields is UNSET:
            continue
        try:
            msgspec.json.decode(line.fields, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadInput(f"lines[{index}].fields", str(error)[:200]) from error
    return batch


def bounded_fields(fields: object) -> Raw | UnsetType:
    """What a handler added to a line, as JSON; as text, cut, where it is too long, too deep, no
    data, or no mapping."""
    if not fields:
        return UNSET
    try:
        data = _encode_any(fields)
        text = data.decode()
        if len(data) <= FIELDS_BYTES and isinstance(fields, Mapping):
            check_document(data, depth=_FIELDS_DEPTH)
            return Raw(data)
    except Exception as error:  # noqa: BLE001  a handler's own objects: whatever they raise is told
        text = f"cannot be written: {type(error).__name__}"
    return Raw(msgspec.json.encode({"fields": cut(text, FIELDS_BYTES - 64)}))


def level_name(number: int) -> Level:
    """The name of the highest level that is not above `number`."""
    found: Level = "debug"
    for name, least in LEVELS.items():
        if number >= least:
            found = name
    return found


def level_number(name: str, field: str = "level") -> int:
    """The number of a level. Raises `BadInput`."""
    for level, number in LEVELS.items():
        if level == name:
            return number
    raise BadInput(field, f"{name!r:.40} is none of {', '.join(LEVELS)}")


def cut(text: str, most: int, *, keep: Literal["begin", "end"] = "begin") -> str:
    """`text` as valid Unicode that takes at most `most` bytes of JSON.

    keep: which side of it, if it is too long; the other says how many characters are missing.
    """
    if len(text) * 6 <= most and text.isascii():
        return text
    whole = len(text)
    text = text[: most + 1] if keep == "begin" else text[-most - 1 :]
    text = text.encode("utf-8", "backslashreplace").decode()
    size = len(msgspec.json.encode(text))
    if len(text) >= whole and size <= most:
        return text
    room = max(1, most - _CUT_BYTES)
    while size > room and text:
        left = max(0, len(text) * room // size - 1)
        text = text[:left] if keep == "begin" else text[len(text) - left :]
        size = len(msgspec.json.encode(text))
    missing = whole - len(text)
    return f"{text}... ({missing} more)" if keep == "begin" else f"({missing} more) ...{text}"
