"""The queues of a board in memory: what is dispatched to one, some host with a free slot takes.

In production a durable consumer hands each dispatch to a host that has asked for work. Here each is
handed, in order, to one of the lanes that have room, as the seed chooses.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

from callboard.testing.memory_link import MemoryConnection
from callboard_agents.lane import Lane
from callboard_broker.pull import Delivery
from callboard_broker.record import Record
from callboard_broker.subjects import Subjects

__all__ = ["MemoryQueues", "Taker"]


class Taker:
    """A lane that takes from a queue, until it is `gone`."""

    def __init__(
        self,
        queues: MemoryQueues,
        place: tuple[str, str],
        lane: Lane,
        connection: MemoryConnection,
        deliver: Callable[[Lane, Delivery], None],
    ) -> None:
        self.gone = False
        self.lane = lane
        self._queues = queues
        self._place = place
        self._connection = connection
        self._deliver = deliver

    def refill(self) -> None:
        """Places have become free."""
        self._queues.hand_out_soon(self._place)

    def take(self, record: Record) -> None:
        """The dispatch is this lane's."""
        delivery = Delivery(
            record.seq,
            record.at_ns,
            record.subject,
            record.data,
            record.headers,
            1,
            "memory.ack",
            self._connection,
        )
        self._deliver(self.lane, delivery)


class MemoryQueues:
    """All queues of a board, by (pool, capability)."""

    def __init__(self, subjects: Subjects, rng: random.Random) -> None:
        self._subjects = subjects
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[tuple[str, str], deque[Record]] = {}
        self._takers: dict[tuple[str, str], list[Taker]] = {}
        self._scheduled: set[tuple[str, str]] = set()

    def join(
        self,
        place: tuple[str, str],
        lane: Lane,
        connection: MemoryConnection,
        deliver: Callable[[Lane, Delivery], None],
    ) -> Taker:
        """Let `lane` take from the queue at `place`."""
        taker = Taker(self, place, lane, connection, deliver)
        self._takers.setdefault(place, []).append(taker)
        lane.pull = taker
        taker.refill()
        return taker

    def leave(self, taker: Taker) -> None:
        """It takes nothing more."""
        taker.gone = True
        for takers in self._takers.values():
            if taker in takers:
                takers.remove(taker)

    def heard(self, record: Record) -> None:
        """The journal has stored this."""
        address = self._subjects.parse(record.subject)
        if address.kind == "dispatch" and not address.box:
            place = (address.pool, address.rest)
            self._waiting.setdefault(place, deque()).append(record)
            self.hand_out_soon(place)

    def hand_out_soon(self, place: tuple[str, str]) -> None:
        """Hand out what waits, once in this turn of the loop."""
        if place not in self._scheduled:
            self._scheduled.add(place)
            self._loop.call_soon(self._hand_out, place)

    def _hand_out(self, place: tuple[str, str]) -> None:
        self._scheduled.discard(place)
        waiting = self._waiting.get(place)
        while waiting:
            free = [one for one in self._takers.get(place, ()) if one.lane.free() > 0]
            if not free:
                return
            self._rng.choice(free).take(waiting.popleft())
