"""Text from strangers, made safe to stand in a Markdown table.

File names and identifiers may hold pipes, HTML, terminal escapes or characters that turn the
direction of writing; a reader must see them as they are, and neither a browser nor a terminal may
obey them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["code", "plain", "table"]

_SPECIAL = re.compile(r"([\\*_\[\]|~#])")
_CODE = re.compile(r"`([^`]*)`")
_MAX_CELL = 400


def plain(text: str) -> str:
    """`text` as ordinary words; what stands between backticks stays code."""
    parts: list[str] = []
    end = 0
    text = _visible(text)
    for found in _CODE.finditer(text):
        parts.extend((_words(text[end : found.start()]), code(found[1])))
        end = found.end()
    return "".join((*parts, _words(text[end:])))


def code(text: str) -> str:
    """`text` as code. A pipe is escaped, since even in code it would end a table's cell."""
    shown = _visible(text).replace("`", "'").replace("|", "\\|").strip()
    # A backslash before the closing backtick is literal, but at the end of a cell reads badly.
    return f"`{shown}`" if shown else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, right: str = "") -> list[str]:
    """The lines of a table whose cells are safe already; `right` names the columns of figures."""
    figures = set(right.split())
    lines = [f"| {' | '.join(header)} |"]
    lines.append("|" + "|".join(" ---: " if each in figures else " --- " for each in header) + "|")
    lines.extend(f"| {' | '.join(row)} |" for row in rows)
    return [*lines, ""]


def _words(text: str) -> str:
    escaped = _SPECIAL.sub(r"\\\1", text.replace("`", "'"))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _visible(text: str) -> str:
    """Control, format and unpaired characters written out, and the length bounded."""
    if len(text) > _MAX_CELL:
        text = text[: _MAX_CELL - 1] + "…"
    return "".join(each if _is_shown(each) else _written(each) for each in text)


def _is_shown(char: str) -> bool:
    return char == " " or unicodedata.category(char)[0] not in "CZ"


def _written(char: str) -> str:
    number = ord(char)
    return f"<{number:02x}>" if number < 0x100 else f"<u+{number:04x}>"
