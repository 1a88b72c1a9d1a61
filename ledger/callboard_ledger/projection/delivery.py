"""Sends batches until the database has them: nothing is left out, and nothing is written twice.

While the database is away the same batch is tried again, after growing pauses with jitter. A
batch that it refuses is cut in halves, on trial, until the items that it refuses are known by
name; they are parked with the reason, in the transaction that writes the rest.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from callboard_broker.errors import CallboardError, TargetAway, TargetRefused
from callboard_ledger.projection.batch import Batch, Item, Parked
from callboard_ledger.projection.target import Target, refuses_rows

__all__ = ["Delivery", "Overtaken", "Standing"]

_log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


class Overtaken(CallboardError):
    """Somebody else has moved the database's position: read it again and go on from there."""

    def __init__(self, position: int) -> None:
        super().__init__(f"another projector has taken the database to {position}")
        self.position = position


@dataclass(slots=True)
class Standing:
    """How a projector does. parked: rows that the database does not take, as it counts them.
    problem: why nothing can be written, and since when (Unix milliseconds)."""

    position: int = 0
    written: int = 0
    parked: int = 0
    retries: int = 0
    problem: str = ""
    since: int = 0
    last_parked: list[str] = field(default_factory=list)

    def fine(self) -> None:
        """The database answers."""
        if self.problem:
            _log.info("the database answers again")
        self.problem, self.since = "", 0

    def failed(self, error: Exception) -> None:
        """It does not."""
        self.retries += 1
        said = str(error)
        if said != self.problem:
            _log.warning("not written, and tried again: %s", said)
            self.problem = said
        self.since = self.since or int(time.time() * 1000)


class Delivery:
    """The way of batches to one database."""

    def __init__(self, target: Target, standing: Standing) -> None:
        self._target = target
        self.standing = standing

    async def deliver(self, batch: Batch) -> None:
        """Return when the database has the batch. Raises `Overtaken`; waits for everything else."""
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._write(batch)
            except (TargetAway, TargetRefused) as error:
                self.standing.failed(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  jitter
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self.standing.fine()
                self.standing.position = batch.position
                return

    async def _write(self, batch: Batch) -> None:
        parked: list[Parked] = []
        try:
            await self._project(batch, batch.document())
        except TargetRefused as error:
            if not refuses_rows(error):
                raise
            # An empty batch that is refused too is the schema's fault, and no row's.
            await self._target.call("callboard_project", batch.trial([]))
            parked = await self._refused(batch, batch.items, error)
            if not parked:
                raise
            await self._project(batch, batch.document(parked))
        self.standing.written += len(batch.items) - len(parked)
        for entry in parked:
            self._note(entry)

    async def _project(self, batch: Batch, document: str) -> None:
        answer = await self._target.call("callboard_project", document)
        if int(answer["position"]) != batch.position:
            raise Overtaken(int(answer["position"]))
        self.standing.parked = answer.get("parked", self.standing.parked)

    async def _refused(
        self, batch: Batch, items: Sequence[Item], error: TargetRefused
    ) -> list[Parked]:
        """The items of a refused part that are refused each by itself."""
        if len(items) <= 1:
            return [Parked(item, error.sqlstate, error.reason) for item in items]
        found: list[Parked] = []
        middle = len(items) // 2
        for half in (items[:middle], items[middle:]):
            try:
                await self._target.call("callboard_project", batch.trial(half))
            except TargetRefused as refused:
                if not refuses_rows(refused):
                    raise
                found += await self._refused(batch, half, refused)
        return found

    def _note(self, entry: Parked) -> None:
        item = entry.item
        what = f"{item.kind} {item.id}: {entry.reason} (SQLSTATE {entry.sqlstate})"
        _log.error("parked, because the database refuses it: %s", what)
        self.standing.last_parked = [*self.standing.last_parked[-9:], what]
