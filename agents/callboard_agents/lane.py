"""One agent on one host: its slots, its threads, and what fills them.

Dispatches come by the pull of the shared queue and by the host's mailbox, which know nothing of
each other; what finds no free slot waits in a line, so that no more than `slots` ever run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from callboard_agents.agent import Agent
from callboard_agents.options import HostOptions
from callboard_agents.threads import Threads
from callboard_broker.pull import Pull
from callboard_broker.wire import Offer

__all__ = ["Lane"]


class Lane:
    """An agent's place. `free` may be asked from any thread; everything else is the loop's.

    wants_work: whether the host as a whole takes anything now.
    """

    def __init__(
        self, agent: Agent[..., Any], options: HostOptions, wants_work: Callable[[], bool]
    ) -> None:
        self.agent = agent
        self.timeout = agent.timeout or options.timeout_seconds
        self.threads: Threads | None = None
        self.slots = agent.slots or options.slots_inline
        if agent.isolation == "thread":
            self.slots = agent.slots or options.slots_thread
            self.threads = Threads(self.slots, agent.capability)
        self.pull: Pull | None = None
        self._wants_work = wants_work
        self._used = 0
        self._line: deque[Callable[[], None]] = deque()

    @property
    def full(self) -> bool:
        """Whether every slot is taken."""
        return self._used >= self.slots

    def free(self) -> int:
        """How many dispatches more the lane takes now."""
        return self.slots - self._used if self._wants_work() else 0

    def offer(self, *, closed: bool) -> Offer:
        """What a beat says of the lane. closed: the host takes nothing more."""
        agent = self.agent
        slots = self._used if closed else self.slots  # or the router would go on dispatching to it
        return Offer(
            agent.capability,
            slots,
            slots - self._used,
            agent=agent.name,
            version=agent.version,
            specialization=list(agent.specialization),
            labels=agent.labels,
            cpu=agent.cpu,
            memory_mb=agent.memory_mb,
        )

    def enter(self) -> None:
        """A slot is taken."""
        self._used += 1

    def leave(self) -> None:
        """A slot is free again; whoever stands in the line gets it."""
        self._used -= 1
        while self._line and self._used < self.slots:
            self._line.popleft()()
        self.refill()

    def line_up(self, take: Callable[[], None]) -> None:
        """Call `take` when a slot is free."""
        self._line.append(take)

    def refill(self) -> None:
        """Ask for as many dispatches as there are free slots."""
        if self.pull is not None:
            self.pull.refill()

    def close(self) -> None:
        """Let the threads end."""
        if self.threads is not None:
            self.threads.close()
