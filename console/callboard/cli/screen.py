"""What commands print: tables and colours on a terminal, aligned plain text in a pipe, or JSON.

Names and messages come from strangers; their control characters are written out, so that no
terminal obeys them, and nothing of theirs is taken for markup.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from callboard_broker.logs import escaped as visible
from callboard_broker.wire import Failure

__all__ = [
    "STATES",
    "Cell",
    "Screen",
    "clock_time",
    "lasted",
    "reason_of",
    "state_text",
    "visible",
]

Cell = str | int | float | Text | None

_GAP = 2
_LEAST_WIDTH = 12

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

    def clear(self) -> None:
        """Begin at the top of an empty terminal."""
        self.console.clear()

    def document(self, value: Any) -> None:
        """One JSON document on one line."""
        sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")
        sys.stdout.flush()

    def line(self, text: str | Text = "", style: str = "") -> None:
        """One line on stdout; never cut, in a pipe never wrapped."""
        shown = text if isinstance(text, Text) else Text(visible(text), style=style)
        if self.terminal:
            self.console.print(shown, soft_wrap=True)
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
        names = [Text(name.removesuffix("#"), style="dim") for name in columns]
        lines = [names, *texts]
        widths = [max(line[place].cell_len for line in lines) for place in range(len(columns))]
        gives_way = columns.index(fold) if fold else len(columns) - 1
        if self.terminal:
            others = sum(widths) - widths[gives_way] + _GAP * (len(columns) - 1)
            widths[gives_way] = max(_LEAST_WIDTH, min(widths[gives_way], self.width - others))
        right = [name.endswith("#") for name in columns]
        for line in lines:
            self._row(line, widths, right, gives_way if fold else None)

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self.console.width

    def _row(
        self, cells: list[Text], widths: list[int], right: list[bool], fold: int | None
    ) -> None:
        """One row; the cell at `fold` goes on in further lines where it is too long."""
        row = Text()
        rest: Text | None = None
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            shown = cell.copy()
            if shown.cell_len > width and place == fold:
                first, *more = shown.wrap(self.console, width, overflow="fold")
                shown, rest = first, Text("\n").join(more)
            shown.truncate(width, overflow="ellipsis")
            shown.align("right" if right[place] else "left", width)
            row += shown + Text(" " * _GAP)
        row.rstrip()
        self.line(row)
        if rest is not None and fold is not None:
            indent = " " * (sum(widths[:fold]) + _GAP * fold)
            for more_text in rest.split("\n"):
                self.line(Text(indent) + more_text)


def clock_time(at_ms: int | None) -> str:
    """A time of today as a clock shows it, an earlier one with its date; local."""
    if at_ms is None:
        return ""
    when = datetime.fromtimestamp(at_ms / 1000).astimezone()
    today = datetime.now().astimezone().date() == when.date()
    return when.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def lasted(begun: int | None, ended: int | None) -> str:
    """Unix milliseconds to a duration, or nothing if it has not ended."""
    if begun is None or ended is None:
        return ""
    took = ended - begun
    return f"{took} ms" if took < 1000 else f"{took / 1000:.1f} s"


def reason_of(error: Failure | None) -> str:
    """An error in one line; nothing if there is none."""
    return "" if error is None else error.line


def state_text(state: str) -> Text:
    """A task's state in its colour."""
    return Text(state, style=STATES.get(state, ""))


def _text(cell: Cell) -> Text:
    if isinstance(cell, Text):
        return cell
    return Text("" if cell is None else visible(str(cell)))
