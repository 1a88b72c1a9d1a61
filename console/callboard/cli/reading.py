"""Reads what a person gives as an argument: JSON, a file, stdin, or NAME=VALUE."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from callboard_broker.bounds import check_document
from callboard_broker.errors import BadInput

__all__ = ["number", "read_json", "split_pair"]


def read_json(text: str, field: str = "payload") -> Any:
    """The value of an argument: JSON, `@file` or `-`. Raises `BadInput`, `OSError`."""
    if text == "-":
        data = sys.stdin.buffer.read()
    elif text.startswith("@"):
        data = Path(text[1:]).read_bytes()
    else:
        data = text.encode(errors="surrogateescape")
    check_document(data, field=field)
    try:
        return msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        hint = "" if text[:1] in '@-{["' else "; text must be quoted, as in '\"hello\"'"
        raise BadInput(field, f"{shown} is not JSON: {error}{hint}") from error


def split_pair(text: str, field: str, form: str = "NAME=VALUE") -> tuple[str, str]:
    """`tokens=2000` in two. Raises `BadInput` that names the option."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise BadInput(field, f"{text!r} is not {form}")
    return name, value


def number(text: str, field: str) -> float:
    """A figure; whole ones stay whole. Raises `BadInput`."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise BadInput(field, f"{text!r} is not a number")
    return int(value) if value.is_integer() else value
