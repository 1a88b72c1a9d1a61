"""What attempts hold: a place with a host, from the dispatch that gives it until it is returned.

An allocation is made by a dispatch that counts and returned by the outcome or the loss of that very
attempt, so a task holds at most one. Which host has it the journal may only say at the end: until
then `host` is known where the dispatch went to a mailbox.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import msgspec

from callboard_broker.wire import Dispatch, Lost, Outcome

if TYPE_CHECKING:
    from callboard_broker.subjects import Address
    from callboard_ledger.rows import Task

__all__ = ["Allocation", "Allocations", "Ending"]

_LATEST_MS = 1 << 53  # a host may say what it likes; a store has 64 bits

Ending = Literal["succeeded", "failed", "lost"]


class Allocation(msgspec.Struct, gc=False):
    """An attempt's place. Times are Unix milliseconds, sequences the journal's.

    seq: of its dispatch. capability: of the queue that it was dispatched to, as hosts offer it.
    since: when it was dispatched. end_seq, returned_at, ending: None while it is held. started_at,
    ended_at: by the host's clock, of an attempt that has an outcome, if they can be true.
    """

    seq: int
    task: str
    attempt: int
    tenant: str
    pool: str
    capability: str
    since: int
    host: str | None = None
    end_seq: int | None = None
    returned_at: int | None = None
    ending: Ending | None = None
    started_at: int | None = None
    ended_at: int | None = None


class Allocations:
    """held: what is not returned, by task. changed: since the last save; the store's in the end."""

    def __init__(self) -> None:
        self.held: dict[str, Allocation] = {}
        self.changed: list[Allocation] = []
        self._kept: set[str] = set()

    def restore(self, rows: Iterable[Allocation]) -> None:
        """Begin with what a store says is held."""
        self.held = {row.task: row for row in rows}
        self._kept = set(self.held)

    def begin(self, task: Task, seq: int, address: Address, event: Dispatch) -> None:
        """The dispatch of the task's attempt counts."""
        boxed = event.host is not None
        found = Allocation(
            seq,
            task.id,
            event.attempt,
            task.tenant,
            event.pool if boxed else address.pool,
            event.capability if boxed else address.rest,
            task.dispatched_at or 0,
            event.host,
        )
        self.held[task.id] = found
        self.changed.append(found)

    def end(self, task: str, seq: int, at_ms: int, event: Outcome | Lost) -> None:
        """The current attempt of the task has ended."""
        found = self.held.pop(task, None)
        if found is None:  # it was dispatched before its store knew of allocations
            return
        found.end_seq, found.returned_at = seq, at_ms
        if isinstance(event, Lost):
            found.ending = "lost"
            found.host = event.host or found.host
        else:
            found.ending = "succeeded" if event.error is None else "failed"
            found.host = event.host
            if 0 <= event.started_at <= event.ended_at <= _LATEST_MS:
                found.started_at, found.ended_at = event.started_at, event.ended_at
        if self._kept and task in self._kept:
            self._kept.discard(task)
            self.changed.append(found)

    def saved(self) -> None:
        """A store has what has changed."""
        for row in self.changed:
            if row.end_seq is None:
                self._kept.add(row.task)
        self.changed = []
