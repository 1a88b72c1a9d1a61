"""One agent on one host: its slots, its claim to CPU and memory, and what fills them.

Dispatches come by the pull of the shared queue and by the host's mailbox, which know nothing of
each other; what finds no free slot, or no room, waits in a line, so that no more ever run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from callboard_agents.agent import Agent
from callboard_agents.cell_plans import child_slots, runs_in_children
from callboard_agents.middleware import Start
from callboard_agents.options import HostOptions
from callboard_agents.resources import Claim
from callboard_broker.wire import Offer

__all__ = ["Asking", "Lane"]


class Asking(Protocol):
    """What brings dispatches into a lane; in production a `Pull`."""

    def refill(self) -> None:
        """Places have become free."""


class Lane:
    """An agent's place. `free` may be asked from any thread; everything else is the loop's.

    claim: to the host's resources. wants_work: whether the host as a whole takes anything now.
    start: calls the handler; without `through`, its middleware, it is the agent itself.
    """

    def __init__(
        self,
        agent: Agent[..., Any],
        options: HostOptions,
        claim: Claim,
        wants_work: Callable[[], bool],
        through: Start | None = None,
    ) -> None:
        self.agent = agent
        self.start: Start = through or agent.start
        self.needs_context = agent.takes_context or through is not None
        self.timeout = agent.timeout or options.timeout_seconds
        self.slots = agent.slots or options.slots_inline
        if runs_in_children(agent, options):
            self.slots = child_slots(agent, options)
        elif agent.isolation == "thread":
            self.slots = agent.slots or options.slots_thread
        self.pull: Asking | None = None
        self.claim = claim
        claim.freed = self.advance
        self._wants_work = wants_work
        self._used = 0
        self._line: deque[Callable[[], None]] = deque()

    @property
    def full(self) -> bool:
        """Whether every slot is taken, or the host has no room for another attempt."""
        return self._used >= self.slots or self.claim.room() < 1

    def free(self) -> int:
        """How many dispatches more the lane takes now."""
        if not self._wants_work():
            return 0
        return min(self.slots - self._used, self.claim.room()) - len(self._line)

    def offer(self, slots: int) -> Offer:
        """What a beat says of the lane. slots: the attempts that it may hold; those that it has, if
        the host takes nothing more, or the router would go on dispatching to it."""
        agent = self.agent
        slots = max(slots, self._used)
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
        self.claim.take()
        self._used += 1

    def leave(self) -> None:
        """A slot is free again; whoever stands in the line gets it."""
        self._used -= 1
        self.claim.give_back()
        self.advance()

    def advance(self) -> None:
        """There may be room: whoever stands in the line gets it, or more is asked for."""
        while self._line and not self.full:
            self._line.popleft()()
        self.refill()

    def line_up(self, take: Callable[[], None]) -> None:
        """Call `take` when a slot is free."""
        self._line.append(take)

    def refill(self) -> None:
        """Ask for as many dispatches as there are free slots."""
        if self.pull is not None:
            self.pull.refill()
