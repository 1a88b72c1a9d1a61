"""Connections: in order within one, in any order between two, and broken at any moment.

What a client has sent when its connection breaks may still arrive, all of it or a first part, and
much later than what it sends on the next connection. What is on its way to it is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.simulation.world import Process, World

if TYPE_CHECKING:
    from tests.simulation.server import Server

__all__ = ["LOST", "TIMEOUT", "Link", "Pipe"]

LOST = "the connection was lost"
TIMEOUT = "no answer"

_RETRY = 0.2
_JAMS = (0.05, 0.2, 0.8, 2.5)
_LATE = (0.0, 0.01, 0.5, 3.0, 12.0)
_OUTAGES = (0.0, 0.0, 0.5, 3.0, 8.0)


class _Lane:
    """One direction of a connection: it jams now and then, and never overtakes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last = 0.0
        self._next_jam = world.now + world.rng.expovariate(1 / 20)

    def delay(self) -> float:
        world = self._world
        at = world.now + world.rng.uniform(0.0002, 0.002)
        if world.faults.active and at > self._next_jam:
            at += world.rng.choice(_JAMS)
            self._next_jam = at + world.rng.expovariate(1 / 20)
        self._last = max(at, self._last + 1e-7)
        return self._last - world.now


class Pipe:
    """One connection as TCP gives it."""

    def __init__(self, world: World, server: Server, link: Link) -> None:
        self.open = True
        self.link = link
        self._world = world
        self._server = server
        self._server_life = server.life
        self._up, self._down = _Lane(world), _Lane(world)
        self._sent = self._arrived = 0
        self._late = 0.0

    def send(self, verb: str, args: tuple[Any, ...]) -> None:
        """Client to server."""
        self._sent += 1
        self._world.after(self._up.delay(), self._arrive, self._sent, verb, args, False)

    def _arrive(self, number: int, verb: str, args: tuple[Any, ...], late: bool) -> None:  # noqa: FBT001  positional by way of the event queue
        if self._server.life != self._server_life:
            return
        if not self.open:
            if number > self._sent:
                return
            if self._late and not late:
                self._world.after(self._late, self._arrive, number, verb, args, True)
                return
        self._arrived = max(self._arrived, number)
        self._server.take(self, verb, args)

    def push(self, call: Callable[..., None], *args: Any) -> None:
        """Server to client."""
        if self.open:
            self._world.after(self._down.delay(), self._come, call, args)

    def _come(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self.open:
            call(*args)

    def close(self, *, late: float | None = None) -> None:
        """It breaks; a first part of what the client has sent will still arrive. late: all of it,
        so many seconds later."""
        rng = self._world.rng
        self.open = False
        if late is not None:
            self._late = late
            return
        self._sent = rng.choice((self._arrived, self._sent, rng.randint(self._arrived, self._sent)))
        self._late = rng.choice(_LATE)


class Link:
    """A process's connection to the server, made again whenever it breaks.

    made: called at each (re)connection. lost: called when it breaks.
    """

    def __init__(
        self,
        process: Process,
        server: Server,
        *,
        made: Callable[[], None],
        lost: Callable[[], None] = lambda: None,
        step: str = "",
    ) -> None:
        self.process = process
        self._server = server
        self._made, self._lost, self._step = made, lost, step
        self._pipe: Pipe | None = None
        self._waiting: dict[int, tuple[str, Callable[..., None]]] = {}
        self._held: list[tuple[str, tuple[Any, ...]]] = []
        self._numbers = 0
        self._closed = False
        self._not_before = 0.0
        server.links.append(self)
        self._connect()

    @property
    def connected(self) -> bool:
        return self._pipe is not None

    def close(self) -> None:
        """The process is dead."""
        self._closed = True
        self._server.links.remove(self)
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def cut(self, seconds: float | None = None, *, late: float | None = None) -> None:
        """The connection breaks, and cannot be made again for `seconds`. late: see `Pipe.close`."""
        if self._pipe is None:
            return
        world = self.process.world
        self._pipe.close(late=late)
        self._pipe = None
        outage = world.rng.choice(_OUTAGES) if seconds is None else seconds
        self._not_before = world.now + outage
        self.process.step("", self._break)
        world.after(outage + _RETRY, self._connect)

    def _break(self) -> None:
        waiting, self._waiting = self._waiting, {}
        self._lost()
        for _, done in waiting.values():
            done(None, LOST)

    def _connect(self) -> None:
        world = self.process.world
        if self._closed or self._pipe is not None:
            return
        if self._server.up and (world.now >= self._not_before or not world.faults.active):
            self._pipe = pipe = Pipe(world, self._server, self)
            pipe.push(self.process.step, self._step, self._begin)
        else:
            world.after(_RETRY, self._connect)

    def _begin(self) -> None:
        if self._pipe is not None:
            held, self._held = self._held, []
            for verb, args in held:
                self._pipe.send(verb, args)
            self._made()

    def send(self, verb: str, *args: Any) -> None:
        """Nothing comes back, and it may be lost."""
        if self._pipe is not None:
            self._pipe.send(verb, (None, *args))

    def request(
        self, verb: str, *args: Any, done: Callable[..., None], step: str = "", timeout: float
    ) -> None:
        """done: called with (value, None), or (None, why not)."""
        self._numbers += 1
        number = self._numbers
        if self._pipe is None and self.process.world.rng.random() < 0.8:
            self.process.step("", done, None, LOST)
            return
        self._waiting[number] = (step, done)
        if self._pipe is None:  # a client may also buffer what it sends while it is cut off
            self._held.append((verb, (number, *args)))
        else:
            self._pipe.send(verb, (number, *args))
        self.process.after(timeout, "", self._timed_out, number)

    def answered(self, number: int, value: Any, error: Any) -> None:
        """The server has answered."""
        found = self._waiting.get(number)
        if found is not None:
            self.process.step(found[0], self._answer, number, value, error)

    def _answer(self, number: int, value: Any, error: Any) -> None:
        found = self._waiting.pop(number, None)
        if found is not None:
            found[1](value, error)

    def _timed_out(self, number: int) -> None:
        self._answer(number, None, TIMEOUT)
