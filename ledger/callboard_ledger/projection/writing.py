"""Reads, folds and writes from one position on: a batch is on its way while the next one is made.

What is read ahead is bounded by a window, what is made ahead by one batch; so a database that is
slow or away costs no more memory than one that is neither.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from callboard_broker.reader import Reader
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.projection.batch import Batch, Gathering
from callboard_ledger.projection.delivery import Delivery
from callboard_ledger.projection.session import Session
from callboard_ledger.projection.window import Window
from callboard_ledger.racing import first_of
from callboard_ledger.reading import read

__all__ = ["Writing"]

_BATCH_BYTES = 2 * 1024 * 1024
_LAST_SECONDS = 5.0


class Writing:
    """aggregator: where the database is. stream: the journal, as the database names it."""

    def __init__(self, session: Session, stream: str, aggregator: Aggregator) -> None:
        self._session = session
        self._options = session.options
        self._stopped = session.stopped
        self._delivery = Delivery(session.target, session.standing)
        self._aggregator = aggregator
        self._gathering = Gathering(
            stream,
            session.options.prefix,
            aggregator.position,
            event_bytes=session.options.event_bytes,
            beside=session.beside,
        )
        self._batches: asyncio.Queue[Batch | None] = asyncio.Queue(1)

    async def run(self) -> None:
        """Until it is stopped. Raises an exception group: `Overtaken`, and what reading raises."""
        async with asyncio.TaskGroup() as group:
            delivering = group.create_task(self._deliver())
            await self._fold()
            with suppress(TimeoutError):  # the database is away: what it lacks is read again
                async with asyncio.timeout(_LAST_SECONDS):
                    await self._batches.put(None)
                    await delivering
            delivering.cancel()

    async def _deliver(self) -> None:
        while (batch := await self._batches.get()) is not None:
            await self._delivery.deliver(batch)

    async def _fold(self) -> None:
        session = self._session
        while not self._stopped.is_set():
            window = Window()
            async with Reader(
                session.connection,
                session.topology.journal,
                start=self._aggregator.position + 1,
                callback=window.take,
            ) as reader:
                while len(window) or not window.full:
                    await first_of(window.stirred.wait(), reader.failed(), self._stopped.wait())
                    if self._stopped.is_set():
                        return
                    if len(window) < self._options.batch and not window.full:
                        await asyncio.sleep(self._options.flush_seconds)
                    putting = self._batches.put(self._batch(window))
                    await first_of(putting, self._stopped.wait())

    def _batch(self, window: Window) -> Batch:
        aggregator, gathering = self._aggregator, self._gathering
        subjects = self._session.topology.subjects
        while len(window) and len(gathering) < self._options.batch:
            record = window.next()
            reading = read(subjects, record)
            verdict = aggregator.fold(record, reading)
            gathering.add(record, reading, verdict)
            if gathering.size >= _BATCH_BYTES:
                break
        changes = aggregator.changes()
        batch = gathering.take(changes)
        aggregator.saved(changes)
        return batch
