"""What commands print: tables and colours on a terminal, aligned plain text in a pipe, or JSON.

Names and messages come from strangers; their control characters are written out, so that no
terminal obeys them, and nothing of theirs is taken for markup.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["STATES", "Cell", "Screen", "clock_time", "state_text", "visible"]

Cell = str | int | float | Text | None

_KEPT_WIDTH = 36

STATES = {
    "waiting": "yellow",
    "running": "cyan",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "magenta",
    "expired": "magenta",
}


class Screen:
    """Where one command writes. json: machines read it, and nothing else goes to stdout."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
        self.errors = Console(
            stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=False
        )

    @property
    def terminal(self) -> bool:
        """Whether a person looks at stdout."""
        return self.console.is_terminal and not self.json

    def document(self, value: Any) -> None:
        """One JSON document on one line."""
        sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")
        sys.stdout.flush()

    def line(self, text: str | Text = "", style: str = "") -> None:
        """One line on stdout; never cut, in a pipe never wrapped."""
        shown = text if isinstance(text, Text) else Text(visible(text), style=style)
        if self.terminal:
            self.console.print(shown)
        else:
            sys.stdout.write(shown.plain + "\n")
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """Something beside the result: on stderr, dimmed."""
        if self.errors.is_terminal:
            self.errors.print(Text(visible(text), style="dim"))
        else:
            sys.stderr.write(visible(text) + "\n")
            sys.stderr.flush()

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        title: str = "",
        fold: str = "",
    ) -> None:
        """A table. A column whose name ends in `#` holds figures.

        fold: the column that wraps where a terminal is too narrow; else the last one is cut.
        """
        texts = [[_text(cell) for cell in row] for row in rows]
        if title:
            self.line(title, "bold")
        if self.terminal:
            self.console.print(_grid(columns, texts, fold))
            return
        names = [name.removesuffix("#") for name in columns]
        plain = [names, *([text.plain for text in row] for row in texts)]
        widths = [max(len(row[place]) for row in plain) for place in range(len(columns))]
        for row in plain:
            cells = [
                cell.rjust(width) if name.endswith("#") else cell.ljust(width)
                for cell, width, name in zip(row, widths, columns, strict=True)
            ]
            sys.stdout.write("  ".join(cells).rstrip() + "\n")
        sys.stdout.flush()


def _grid(columns: Sequence[str], rows: Sequence[Sequence[Text]], fold: str) -> Table:
    """A table without lines, for a terminal. The other columns keep their width, within reason."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for place, column in enumerate(columns):
        name = column.removesuffix("#")
        width = max([len(name), *(row[place].cell_len for row in rows)])
        gives_way = column == (fold or columns[-1])
        table.add_column(
            name,
            justify="right" if column.endswith("#") else "left",
            overflow="fold" if column == fold else "ellipsis",
            no_wrap=column != fold,
            min_width=min(width, 8 if gives_way else _KEPT_WIDTH),
        )
    for row in rows:
        table.add_row(*row)
    return table


def visible(text: str) -> str:
    """`text` with control, format and unpaired characters written out as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or unicodedata.category(each) == "Zs"
        else each.encode("unicode_escape").decode()
        for each in text
    )


def clock_time(at_ms: int | None) -> str:
    """A time of today as a clock shows it, an earlier one with its date; local."""
    if at_ms is None:
        return ""
    when = datetime.fromtimestamp(at_ms / 1000).astimezone()
    today = datetime.now().astimezone().date() == when.date()
    return when.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def state_text(state: str) -> Text:
    """A task's state in its colour."""
    return Text(state, style=STATES.get(state, ""))


def _text(cell: Cell) -> Text:
    if isinstance(cell, Text):
        return cell
    return Text("" if cell is None else visible(str(cell)))
