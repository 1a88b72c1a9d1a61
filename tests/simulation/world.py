"""A deterministic world: one seed, one clock, one order of everything that happens.

Everything a process does is a named step, and a fault is planned as (step, how many-th time): so a
process can be killed, put to sleep or cut off between any two things that it does. The same seed
gives the same run, event for event.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

__all__ = ["EPOCH_MS", "STEPS", "Faults", "Process", "Violation", "World"]

EPOCH_MS = 1_700_000_020_000
"""What the server's clock shows when a world begins: 20 s before the next full minute."""

_PARTS = {
    "router": "connect read heard decide write acked beat tick fetched asked answer durable"
    " snapshot stop",
    "host": "connect delivered handed ask answered started finish report reported beat beaten"
    " boxed stopped spawned checkpoint",
    "poster": "send acked",
    "server": "stored refused handed beaten",
}
STEPS = [f"{party}.{step}" for party, steps in _PARTS.items() for step in steps.split()]
"""Every place at which a fault can strike."""

_RARE = {"connect", "fetched", "asked", "ask", "answer", "answered", "durable", "refused"}
_RARE |= {"snapshot", "stop", "boxed", "stopped", "spawned"}
_ODDS = (8, 5, 4, 3, 2, 1)
_SLEEPS = (0.3, 1.5, 2.5, 4.0, 9.0, 26.0)


class Violation(AssertionError):
    """An invariant does not hold. invariant: `I1` ... `I8`."""

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(f"{invariant}: {message}")
        self.invariant = invariant


class Faults:
    """Which step is struck, and with what. `struck` counts what really happened.

    storm: hosts die just after they have started something, and the server right after them.
    """

    def __init__(self, rng: random.Random, *, storm: bool) -> None:
        self.active = True
        self.struck: Counter[tuple[str, str]] = Counter()
        self._passed: Counter[str] = Counter()
        self._plan: dict[str, dict[int, str]] = {}
        for _ in range(rng.randint(0, 40)):
            step = "host.started" if storm else rng.choice(STEPS)
            if storm:
                kind = "both"
            elif step.startswith("server."):
                kind = rng.choice(("server", "server", "server", "stall"))
            else:
                kind = rng.choices(("crash", "sleep", "cut", "both", "server", "stall"), _ODDS)[0]
            nth = int(2 ** rng.uniform(0, 3 if step.split(".")[1] in _RARE else 7))
            self._plan.setdefault(step, {})[nth] = kind

    def at(self, step: str) -> str | None:
        """What strikes this step, this time."""
        if not self.active or step not in self._plan:
            return None
        self._passed[step] += 1
        kind = self._plan[step].get(self._passed[step])
        if kind is not None:
            self.struck[(step, kind)] += 1
        return kind


class World:
    """The clock and the queue of events. crash_server, stall_server: set by the server."""

    def __init__(self, seed: int, *, storm: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.faults = Faults(self.rng, storm=storm)
        self.crash_server: Callable[[], None] = lambda: None
        self.stall_server: Callable[[], None] = lambda: None
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = 0
        self._lines: deque[tuple[float, str, tuple[Any, ...]]] = deque(maxlen=600)

    @property
    def server_ms(self) -> int:
        """The server's clock."""
        return EPOCH_MS + int(self.now * 1000)

    def after(self, delay: float, call: Callable[..., None], *args: Any) -> None:
        """Call it `delay` seconds from now."""
        self._numbers += 1
        heapq.heappush(self._events, (self.now + delay, self._numbers, call, args))

    def run(self, until: float, finished: Callable[[], bool] | None = None) -> bool:
        """Let things happen until then, or until `finished`; returns whether it is."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, call, args = heapq.heappop(events)
            call(*args)
            if finished is not None and finished():
                return True
        self.now = max(self.now, until)
        return False

    def note(self, who: str, *what: Any) -> None:
        """Remember a line of the trace; it is put into words only if it is needed."""
        self._lines.append((self.now, who, what))

    def trace(self, lines: int = 150) -> str:
        """The last things that happened."""
        shown = list(self._lines)[-lines:]
        return "\n".join(
            f"{now:9.4f} {who:8} {' '.join(map(str, what))}"[:220] for now, who, what in shown
        )


class Process:
    """A process that can be killed at any step, and stopped and continued (SIGSTOP, SIGCONT)."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.up = False
        self.asleep = False
        self.life = 0
        self._zero = 0.0
        self._backlog: list[tuple[bool, Callable[..., None], tuple[Any, ...]]] = []

    @property
    def mono(self) -> float:
        """Its monotonic clock, which nobody else shares."""
        return self.world.now + self._zero

    def start(self) -> None:
        """Begin with empty hands."""
        self.up = True
        self.asleep = False
        self._zero = self.world.rng.uniform(0, 10_000)
        self.begin()

    def begin(self) -> None:
        """What the process does first."""
        raise NotImplementedError

    def ended(self) -> None:
        """What others notice of its death."""

    def cut(self, seconds: float | None = None) -> None:
        """Its connections break."""

    def step(self, name: str, call: Callable[..., None], *args: Any, timer: bool = False) -> None:
        """Do this, unless a fault strikes just before."""
        if not self.up:
            return
        fault = self.world.faults.at(name)
        if fault is not None:
            self.world.note(self.name, "FAULT", fault, "at", name)
        if fault in ("server", "both"):
            self.world.after(self.world.rng.choice((0, 0.001, 0.02, 0.5)), self.world.crash_server)
        if fault in ("crash", "both"):
            self.crash()
            return
        if fault == "sleep":
            self.sleep(self.world.rng.choice(_SLEEPS))
        elif fault == "cut":
            self.cut()
        elif fault == "stall":
            self.world.stall_server()
        if self.asleep:
            self._backlog.append((timer, call, args))
        else:
            call(*args)

    def after(self, delay: float, name: str, call: Callable[..., None], *args: Any) -> None:
        """Do this step later, if this process still lives then."""
        self.world.after(delay, self._due, self.life, name, call, args)

    def _due(self, life: int, name: str, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        if life == self.life:
            self.step(name, call, *args, timer=True)

    def crash(self) -> None:
        """kill -9; somebody starts it again."""
        if not self.up:
            return
        self.world.note(self.name, "is killed")
        self.up = self.asleep = False
        self.life += 1
        self._backlog.clear()
        self.ended()
        self.world.after(self.world.rng.choice((0.05, 0.5, 2.0, 5.0)), self.start)

    def sleep(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after `seconds`."""
        if self.up and not self.asleep:
            self.world.note(self.name, f"sleeps for {seconds} s")
            self.asleep = True
            self.world.after(seconds, self._continue, self.life)

    def wake(self) -> None:
        """SIGCONT now."""
        self._continue(self.life)

    def _continue(self, life: int) -> None:
        if life != self.life or not self.asleep:
            return
        self.world.note(self.name, "wakes")
        self.asleep = False
        backlog, self._backlog = self._backlog, []
        if self.world.rng.random() < 0.5:
            backlog.sort(key=lambda item: not item[0])  # its timers are served first
        for index, (_, call, args) in enumerate(backlog):
            call(*args)
            if life != self.life:
                return
            if self.asleep:
                self._backlog[:0] = backlog[index + 1 :]
                return
