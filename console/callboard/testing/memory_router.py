"""The router of a board in memory: the shell and engine of production, woken when time matters.

A real router looks at the clock ten times a second. This one looks when something was stored, and
at the moment for which the engine has something on its agenda, so that a week without work costs
nothing. Whenever it looks, it hears first the beats that every living host would have sent by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from callboard.testing.board_clock import BoardClock
from callboard.testing.memory_link import open_memory_link
from callboard.testing.memory_server import MemoryServer
from callboard_broker.batch import GuardedWriter
from callboard_broker.blobs import Blobs
from callboard_broker.publisher import Publisher
from callboard_broker.record import Record
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.wire import Beat
from callboard_router.desk import Policy
from callboard_router.engine import ROUTERS, Engine
from callboard_router.fetching import Fetching
from callboard_router.questions import Questions
from callboard_router.shell import RouterOptions, Shell

__all__ = ["MemoryRouter", "open_memory_router"]

_NAME = "router"
_TICK_SECONDS = 0.1


class MemoryRouter(Shell):
    """beats: asks every living host for its beat of this moment."""

    beats: Callable[[], Iterable[Beat]]
    clock: BoardClock
    _looked_at = float("-inf")
    _timer: asyncio.TimerHandle | None = None
    _changed = True
    _closed = False

    def hosts_changed(self) -> None:
        """A host came or went: look now, whatever the clock says."""
        self._changed = True
        self.wake()

    def wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._wake)

    def heard(self, record: Record) -> None:
        """The journal has stored this."""
        self.read_journal([record])

    def start_and_wake(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Answer a question, and look: it may have asked for other budgets."""
        self.start(work, name)
        self.wake()

    def close(self) -> None:
        """Look no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._closed:
            return
        now = self.now()
        due = self.engine.next_ms()
        if (
            self._changed
            or now - self._looked_at >= _TICK_SECONDS
            or (due is not None and due <= self.clock.now_ms())
        ):
            self._changed = False
            self._looked_at = now
            self.engine.heard(Beat(_NAME, _NAME, ROUTERS), at=now)
            for beat in self.beats():
                self.engine.heard(beat, at=now)
            self.look()
        else:
            self.decide()
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.engine.next_ms()
        times = []
        if due is not None and due > self.clock.now_ms():
            times.append(self.clock.at(due))
        if (due is not None and not times) or self._is_restless():
            times.append(now + _TICK_SECONDS)  # as a real one would look again
        if times:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(min(times) - now, self.wake)

    def _is_restless(self) -> bool:
        """Whether something may come of a look that no agenda names: a loss, a stop."""
        engine = self.engine
        if engine.desk.agenda.to_stop or not engine.tenure.leads_on:
            return True
        liveness = engine.desk.liveness
        living = {(beat.pool, beat.host, beat.incarnation) for beat in self.beats()}
        if len(liveness.hosts) > len(living):
            return True  # one is dead, and nobody has said so
        return any(hold.owner not in living for hold in liveness.holds.values())


@asynccontextmanager
async def open_memory_router(
    server: MemoryServer,
    policy: Policy,
    secret: Callable[[], str],
    beats: Callable[[], Iterable[Beat]],
) -> AsyncIterator[MemoryRouter]:
    """A router that leads, and ends with the block. It makes the streams."""
    clock, topology = server.clock, Topology()
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(open_memory_link(server, _NAME))
        await ensure_streams(connection, topology)
        publisher = await stack.enter_async_context(Publisher(connection))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        subjects = topology.subjects
        blobs = Blobs(connection, topology)
        router = MemoryRouter(
            options=RouterOptions(url="memory:", name=_NAME, policy=policy),
            connection=connection,
            topology=topology,
            engine=Engine(_NAME, subjects, policy, secret=secret, on_the_way=0.0),
            publisher=publisher,
            writer=GuardedWriter(connection, publisher, subjects.epoch, batched=False),
            blobs=blobs,
            fetching=Fetching(connection, topology, blobs),
            group=group,
            now=clock.now,
        )
        router.beats, router.clock = beats, clock
        questions = Questions(connection, topology, router.engine, router.start_and_wake)
        await questions.listen()
        heard = server.streams[topology.journal].heard
        heard.append(router.heard)
        router.engine.tenure.start(clock.now())
        router.wake()
        try:
            yield router
        finally:
            heard.remove(router.heard)
            router.close()
