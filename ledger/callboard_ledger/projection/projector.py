"""Projects the journal into a database: reads it in order, folds it, writes batch after batch.

The position lies in the database itself and moves in the transaction that writes the rows, so a
kill at any point, of this process or of the database, leaves both at the same event; from there it
goes on. While the database is away the journal keeps what is to be written: a bookmark there says
how far it is safe, and the router removes nothing behind it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import TypeVar

from callboard_broker.bookmarks import Bookmark, read_bookmarks, set_bookmark
from callboard_broker.connection import ApiError, NoResponder, open_link
from callboard_broker.errors import (
    BoardUnreachable,
    JournalMissing,
    StreamMissing,
    TargetAway,
    TargetRefused,
)
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.projection.allocations import Allocations
from callboard_ledger.projection.batch import Beside
from callboard_ledger.projection.delivery import Overtaken
from callboard_ledger.projection.reader import TargetReader
from callboard_ledger.projection.schema import check_schema
from callboard_ledger.projection.seeding import seed
from callboard_ledger.projection.session import ProjectorOptions, Session
from callboard_ledger.projection.target import Target
from callboard_ledger.projection.writing import Writing
from callboard_ledger.racing import first_of
from callboard_ledger.rows import Changes
from callboard_ledger.stopping import stop_event

__all__ = ["ProjectorOptions", "run_projector"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_PAUSE = 5.0
_BOOKMARK_SECONDS = 1.0
_STILL_SECONDS = 10.0
_OUTAGE = (BoardUnreachable, NoResponder, StreamMissing, ApiError, TimeoutError)


async def run_projector(
    options: ProjectorOptions,
    target: Target,
    *,
    beside: Beside | None = None,
    ready: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run until `stop` is set, or without it until SIGTERM or SIGINT. Closes the target.

    beside: makes rows of somebody else's tables, which this target writes too. ready: called once
    when it knows where the database is, or that it does not answer. Raises
    `SchemaMissing`, `JournalMissing`, `BoardUnreachable`, `StreamDrift`.
    """
    try:
        async with (
            stop_event(stop) as stopped,
            open_link(options.url, name="callboard-projector") as connection,
        ):
            topology = Topology(Subjects(options.prefix), options.replicas)
            await ensure_streams(connection, topology)
            session = Session(options, connection, topology, target, stopped, beside)
            projector = _Projector(session)
            async with projector.shown():
                await projector.run(ready)
    finally:
        await target.close()


class _Projector:
    """One run: two loops write what is read, two more say how it goes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._options = session.options
        self._connection = session.connection
        self._topology = session.topology
        self._target = session.target
        self._stopped = session.stopped
        self._standing = session.standing
        self._known = asyncio.Event()  # the database's position is known
        self._tried = asyncio.Event()  # or it does not answer

    def shown(self) -> AbstractAsyncContextManager[None]:
        """Its metrics, whose library is imported only where they are wanted."""
        if self._options.metrics is None:
            return nullcontext()
        from callboard_broker.exposition import new_registry, shown  # noqa: PLC0415  see above
        from callboard_ledger.projection.metrics import observe  # noqa: PLC0415  see above

        registry = new_registry()
        observe(self._standing, self._last, registry)
        return shown(self._options.metrics, registry)

    async def run(self, ready: Callable[[], None] | None) -> None:
        """Project until stopped."""
        try:
            async with asyncio.TaskGroup() as group:
                around = [
                    group.create_task(self._keep_bookmark()),
                    group.create_task(self._observe()),
                ]
                if ready is not None:
                    around.append(group.create_task(self._tell_ready(ready)))
                await self._project_on()
                for task in around:
                    task.cancel()
        except ExceptionGroup as errors:
            error: Exception = errors
            while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
                error = error.exceptions[0]
            raise error from None
        with suppress(*_OUTAGE):  # what it said last holds
            await self._mark()

    async def _tell_ready(self, ready: Callable[[], None]) -> None:
        await self._tried.wait()
        ready()

    async def _project_on(self) -> None:
        """Again from what the database says, whenever another one has written there."""
        while not self._stopped.is_set():
            begun = await self._patiently(self._begin)
            if begun is None:
                return
            stream, changes = begun
            aggregator = Aggregator(self._topology.subjects)
            aggregator.restore(changes)
            self._standing.position = changes.position
            self._standing.fine()
            self._known.set()
            self._tried.set()
            try:
                await Writing(self._session, stream, aggregator).run()
            except* Overtaken as error:
                _log.warning("%s; going on from there", error.exceptions[0])
                await asyncio.sleep(random.uniform(0.5, 1.5))  # noqa: S311  two must not keep step

    async def _begin(self) -> tuple[str, Changes]:
        """Where the database is. Raises `JournalMissing` if the journal has no way from there."""
        await check_schema(self._target)
        info = await self._connection.api(f"STREAM.INFO.{self._topology.journal}")
        first, last = int(info["state"]["first_seq"]), int(info["state"]["last_seq"])
        stream = f"{self._topology.journal} {info['created']}"
        reader = TargetReader(self._target, stream)
        changes = await reader.load()
        ledger = self._options.ledger
        if changes.position == 0 and first > 1 and ledger is not None:
            board, beside = self._options.prefix, self._session.beside
            await seed(self._target, ledger, stream=stream, board=board, beside=beside)
            changes = await TargetReader(self._target, stream).load()
        if changes.position > last or (last and changes.position + 1 < first):
            raise JournalMissing(self._target.name, changes.position, first, last)
        return stream, changes

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Do it until the database answers; None if told to stop before."""
        pause = 0.1
        while not self._stopped.is_set():
            try:
                return await work()
            except (TargetAway, TargetRefused, *_OUTAGE) as error:
                self._standing.failed(error)
                self._tried.set()
            wait = pause * random.uniform(0.5, 1.5)  # noqa: S311  jitter
            await first_of(asyncio.sleep(wait), self._stopped.wait())
            pause = min(2 * pause, _LONGEST_PAUSE)
        return None

    # -- what it says of itself

    async def _last(self) -> int:
        last, _ = await last_sequence(self._connection, self._topology.journal)
        return last

    async def _keep_bookmark(self) -> None:
        said, quiet = None, 0.0
        await self._tried.wait()  # a database that lacks the tables leaves no bookmark
        while True:
            standing = self._standing
            now = standing.position, standing.parked, standing.problem
            if now != said or quiet >= _STILL_SECONDS:
                try:
                    await self._mark()
                except _OUTAGE as error:
                    _log.warning("the bookmark cannot be set now: %s", error)
                else:
                    said, quiet = now, 0.0
            await asyncio.sleep(_BOOKMARK_SECONDS)
            quiet += _BOOKMARK_SECONDS

    async def _mark(self) -> None:
        standing = self._standing
        position = standing.position
        if not self._known.is_set():  # until the database says it, what was said last holds
            old = await read_bookmarks(self._connection, self._topology)
            said = [mark.position for mark in old if mark.name == self._options.name]
            position = max(said, default=0)
        bookmark = Bookmark(
            name=self._options.name,
            position=position,
            at=self._connection.server_now_ms(),
            target=self._target.name,
            parked=standing.parked,
            problem=standing.problem,
            since=standing.since,
        )
        await set_bookmark(self._connection, self._topology, bookmark)

    async def _observe(self) -> None:
        """Write what hosts say of themselves; what cannot be written now, a later beat replaces."""
        allocations = Allocations(self._connection, self._topology, self._target)
        await self._known.wait()
        while True:
            await allocations.write()
            await asyncio.sleep(allocations.PAUSE_SECONDS)
