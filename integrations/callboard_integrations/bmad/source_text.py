"""Reads a stranger's text file: bounded, strictly UTF-8, and without leaving the project's folder.

The text is exactly what the file holds, so that encoding it again gives the same bytes; `lines_of`
is for whoever parses it.
"""

from __future__ import annotations

import re
from pathlib import Path

from callboard_config.document import MAX_BYTES
from callboard_integrations.bmad.diagnostics import Findings

__all__ = ["line_of", "lines_of", "read_text"]


def read_text(path: Path, findings: Findings, *, inside: Path) -> str | None:
    """The text of `path`, or None with a diagnostic. inside: the folder that it must not leave."""
    try:
        if not path.resolve().is_relative_to(inside.resolve()):
            findings.error("outside", "a link that leads out of the project; copy the file instead")
            return None
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        findings.error("unreadable", f"cannot be read: {error.strerror}; check its permissions")
        return None
    if len(data) > MAX_BYTES:
        findings.error("too-large", f"larger than {MAX_BYTES // 1024} KiB; is this the right file?")
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        findings.error("not-utf8", "not UTF-8 text; save it as UTF-8", line)
        return None


def lines_of(text: str) -> str:
    """`text` as it is parsed: without a byte order mark and carriage returns."""
    return text.removeprefix("\ufeff").replace("\r", "")


def line_of(text: str, pattern: str) -> int | None:
    """The line, from 1, on which a regular expression first matches."""
    found = re.search(pattern, text, re.MULTILINE)
    return None if found is None else text.count("\n", 0, found.start()) + 1
