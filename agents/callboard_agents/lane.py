"""One agent on one host: its slots, its threads, and the pull that fills them."""

from __future__ import annotations

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

    def free(self) -> int:
        """How many dispatches more the lane takes now."""
        return self.slots - self._used if self._wants_work() else 0

    def offer(self, *, closed: bool) -> Offer:
        """What a beat says of the lane. closed: the host takes nothing more."""
        slots = self._used if closed else self.slots  # or the router would go on dispatching to it
        return Offer(self.agent.capability, slots, slots - self._used)

    def enter(self) -> None:
        """A slot is taken."""
        self._used += 1

    def leave(self) -> None:
        """A slot is free again."""
        self._used -= 1
        self.refill()

    def refill(self) -> None:
        """Ask for as many dispatches as there are free slots."""
        if self.pull is not None:
            self.pull.refill()

    def close(self) -> None:
        """Let the threads end."""
        if self.threads is not None:
            self.threads.close()
