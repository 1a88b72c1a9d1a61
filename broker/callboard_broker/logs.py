"""The log of a process: lines with time, level and component, and with the task they are about.

On a terminal a line is for a person, elsewhere it is one JSON object. The standard library's
logging does it, with two formatters: nothing more is imported, and what libraries log looks the
same. Passwords in URLs are masked whoever wrote them.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import unicodedata
from typing import Any, Literal, TextIO

import msgspec

__all__ = [
    "FACTS",
    "ConsoleFormat",
    "JsonFormat",
    "LogFormat",
    "escaped",
    "masked",
    "start_logging",
]

LogFormat = Literal["auto", "console", "json"]

FACTS = ("tenant", "workflow", "task", "attempt", "capability", "host", "trace")
"""What a record may say of the task that it is about: attributes, given as `extra`."""

_SHOWN = ("tenant", "task", "attempt", "host")  # to a person; the rest is in the JSON
_SECRET = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^\s/:@,\"]*)(?P<password>:[^\s/@,\"]*)?@",
    re.IGNORECASE,
)
_COLOURS = {
    logging.DEBUG: "2",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}
_encode = msgspec.json.Encoder(enc_hook=str).encode


def start_logging(
    component: str,
    *,
    form: LogFormat = "auto",
    level: str = "info",
    stream: TextIO | None = None,
) -> None:
    """Log what this process does, as `component`, to stderr. level: the least that is said."""
    target = sys.stderr if stream is None else stream
    if form == "auto":
        form = "console" if target.isatty() else "json"
    handler = logging.StreamHandler(target)
    if form == "json":
        handler.setFormatter(JsonFormat(component))
    else:
        handler.setFormatter(ConsoleFormat(component, colour=target.isatty()))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JsonFormat(logging.Formatter):
    """One object a line. component: which part of the board speaks."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON: time (UTC), level, component, logger, message, and its facts."""
        found: dict[str, Any] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "component": self._component,
            "logger": record.name,
            "message": masked(record.getMessage()),
            **_facts(record, FACTS),
        }
        if fields := getattr(record, "fields", None):
            found["fields"] = fields
        if error := _error(self, record):
            found["error"] = masked(error)
        try:
            return masked(_encode(found).decode())
        except (TypeError, ValueError, UnicodeError, RecursionError) as error:
            kept = {name: repr(value) for name, value in found.items()}
            return masked(_encode({**kept, "unwritable": repr(error)}).decode())


class ConsoleFormat(logging.Formatter):
    """A line for a person, local time; an exception's trace on the lines after it."""

    def __init__(self, component: str, *, colour: bool) -> None:
        super().__init__()
        self._component = component
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, control characters written out."""
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        fields = getattr(record, "fields", None) or {}
        facts = {**_facts(record, _SHOWN), **(fields if isinstance(fields, dict) else {"": fields})}
        told = "".join(f" {name}={value}" for name, value in facts.items())
        message = escaped(f"{record.getMessage()}{told}")
        head = f"{at}.{int(record.msecs):03d} {record.levelname} {self._component}:"
        line = f"{head} {message}"
        colour = _COLOURS.get(record.levelno, "") if self._colour else ""
        if colour:
            line = f"\x1b[{colour}m{line}\x1b[0m"
        if error := _error(self, record):
            line = "\n".join([line, *map(escaped, error.splitlines())])
        return masked(line)


def masked(text: str) -> str:
    """`text` with the password, or the token that stands alone, of each URL as `***`."""
    if "@" not in text or "://" not in text:
        return text
    return _SECRET.sub(_mask, text)


def escaped(text: str) -> str:
    """`text` on one line, with control, format and unpaired characters written out as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or unicodedata.category(each) == "Zs"
        else each.encode("unicode_escape").decode()
        for each in text
    )


def _mask(found: re.Match[str]) -> str:
    if found["password"] is None:
        return f"{found['scheme']}***@"
    return f"{found['scheme']}{found['user']}:***@"


def _facts(record: logging.LogRecord, names: tuple[str, ...]) -> dict[str, Any]:
    given = vars(record)
    return {name: given[name] for name in names if given.get(name) not in (None, "")}


def _error(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info:
        parts.append(formatter.formatException(record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _utc(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03d}Z"
