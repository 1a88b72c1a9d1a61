"""What ended without success stays for a while, so that it can be started again; then it is final.

The windows are those of the rule: of the same journal router and ledger come to the same answer to
whether something can still be redriven or resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from callboard_broker.rule import DEAD_WINDOW_MS
from callboard_ledger.rows import Flow, Task

__all__ = ["Dead"]

_Row = TypeVar("_Row", Task, Flow)


class Dead(Generic[_Row]):
    """Rows by their ids, the oldest end first. most: how many. forget: hears which one goes."""

    def __init__(self, most: int, forget: Callable[[_Row], None]) -> None:
        self._most = most
        self._forget: Callable[[_Row], None] = forget
        self._rows: dict[str, tuple[int, _Row]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, row_id: str) -> _Row | None:
        """The row, if it can be started again."""
        found = self._rows.get(row_id)
        return None if found is None else found[1]

    def bury(self, row: _Row, now_ms: int) -> None:
        """The row has just ended without success; what is too old or too much goes."""
        rows = self._rows
        rows[row.id] = (now_ms, row)
        while rows:
            oldest = next(iter(rows))
            ended_at, gone = rows[oldest]
            if ended_at + DEAD_WINDOW_MS > now_ms and len(rows) <= self._most:
                return
            del rows[oldest]
            self._forget(gone)

    def revive(self, row: _Row) -> None:
        """It begins again."""
        del self._rows[row.id]
