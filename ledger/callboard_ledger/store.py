"""What the ledger needs of a database, so that rows may live elsewhere than in SQLite.

`save` is one transaction that holds the changed rows and the position up to which the journal was
folded, so that a kill at any moment leaves rows and position that belong together; the journal is
read again from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from callboard_broker.rule import TaskState
from callboard_ledger.rows import Changes, Flow, Merge, Task

__all__ = ["Query", "Store"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What `list` asks for: rows in the order of their sequences, the newest first.

    tenant, state, kind: None for any. before: only rows below this sequence.
    """

    tenant: str | None = None
    state: TaskState | None = None
    kind: Literal["task", "flow"] | None = None
    before: int | None = None
    limit: int = 100


class Store(Protocol):
    """What the ledger needs of a database. Calls block; they are short."""

    def load(self) -> Changes:
        """The position, and every row that has not ended (empty for a new store)."""
        ...

    def save(self, changes: Changes) -> None:
        """Store `changes` in one transaction, position included."""
        ...

    def task(self, task_id: str) -> Task | None:
        """The task with this id."""
        ...

    def flow(self, seq: int) -> Flow | None:
        """The workflow posted at `seq`."""
        ...

    def merge(self, seq: int) -> Merge | None:
        """What the post at `seq` repeats."""
        ...

    def find(self, query: Query) -> list[Task | Flow]:
        """The rows that `query` asks for."""
        ...

    def clear(self) -> None:
        """Forget everything: the journal will be folded from its beginning."""
        ...

    def close(self) -> None: ...
