"""A host's share of CPU and memory among its agents: what each may start, and what it offers.

What an agent declares it needs (`cpu`, `memory_mb`) is promised to an attempt at its start and
given back at its end; the promises never exceed the share, and no more is started than measured
memory and CPU allow. What is offered to the router is divided: no two lanes offer the same room,
those that used all of theirs get more. Where attempts are long and there is not room for everybody,
a lane that had none gets a moment's precedence at the next end, so that nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from callboard_agents.admission import Admission, Measured
from callboard_agents.agent import Agent
from callboard_agents.allocations import Allocations, Need
from callboard_agents.memory import total_memory_mb
from callboard_config.cpus import usable_cpus

__all__ = ["Claim", "Resources"]

_ANY = 1_000_000
_SOON_SECONDS = 2.0  # less than a dispatch may wait for its start
_PRECEDENCE_SECONDS = 0.25
_LOG = logging.getLogger("callboard.host")


class Claim:
    """What one lane has of the share. Of its host's loop; `room` and `offered` of any thread.

    need: of one attempt. used: attempts that have it now. freed: called when there may be room.
    """

    __slots__ = ("_of", "agent", "freed", "need", "offered", "served_at", "used")

    def __init__(self, agent: Agent[..., Any], need: Need, of: Resources) -> None:
        self.agent = agent
        self.need = need
        self.used = 0
        self.offered = 1
        self.served_at = -math.inf
        self.freed: Callable[[], None] = _nothing
        self._of = of

    def room(self) -> int:
        """How many attempts more may start now."""
        return self._of.room(self)

    def take(self) -> None:
        """An attempt starts."""
        self._of.take(self)

    def give_back(self) -> None:
        """It has ended."""
        self._of.give_back(self)


class Resources:
    """The share of one host. cpus (cores), memory_mb: 0 for all that this process may use.

    changed: called when what the host offers has changed, on its loop.
    """

    def __init__(
        self, cpus: float = 0.0, memory_mb: float = 0.0, *, changed: Callable[[], None]
    ) -> None:
        self._allocations = Allocations(
            Need.of(cpus or usable_cpus(), memory_mb or total_memory_mb())
        )
        self._admission = Admission()
        self._claims: list[Claim] = []
        self._changed = changed
        self._since = Need()
        self._running = 0
        self._ended_at = -math.inf
        self._preferred: frozenset[Claim] = frozenset()
        self._precedence: asyncio.TimerHandle | None = None

    @property
    def share(self) -> Need:
        """All that may be promised."""
        return self._allocations.share

    @property
    def taken(self) -> Need:
        """What is promised now."""
        return self._allocations.taken

    def claim(self, agent: Agent[..., Any]) -> Claim:
        """Make the claim of a lane. What needs more than the share gets all of it."""
        wanted = Need.of(agent.cpu, agent.memory_mb)
        need = wanted.at_most(self.share)
        if need != wanted:
            _LOG.warning(
                "an attempt of %s needs %g cores and %g MB, this host has %g and %.0f: it gets all",
                *(agent.capability, wanted.cpu, wanted.memory_mb),
                *(self.share.cpu, self.share.memory_mb),
            )
        claim = Claim(agent, need, self)
        self._claims.append(claim)
        return claim

    def measured(self, measured: Measured) -> None:
        """Take a measurement into account; from the thread of the beats."""
        self._since = Need()
        self._admission.look(measured)

    # -- what a claim asks

    def room(self, claim: Claim) -> int:
        """How many attempts of this claim may start now."""
        if self._preferred and claim.need and claim not in self._preferred:
            return 0
        allowed = self._admission.room(claim.need, self._since, idle=self._running == 0)
        room = self._allocations.room(claim.need)
        return room if allowed is None else min(room, allowed)

    def take(self, claim: Claim) -> None:
        """Promise what an attempt of this claim needs."""
        self._running += 1
        claim.used += 1
        if claim.need:
            self._allocations.reserve(claim.need)
            self._since = self._since.plus(claim.need)
            claim.served_at = time.monotonic()
            if claim in self._preferred:
                self._end_precedence()

    def give_back(self, claim: Claim) -> None:
        """Have it back, and let those who wait start."""
        self._running -= 1
        claim.used -= 1
        if not claim.need:
            return
        self._allocations.release(claim.need)
        now = time.monotonic()
        if now - self._ended_at > _SOON_SECONDS and not self._preferred:
            self._prefer(frozenset(one for one in self._claims if not (one.used or one.offered)))
        self._ended_at = now
        self._call()

    def _prefer(self, starved: frozenset[Claim]) -> None:
        if starved:
            self._preferred = starved
            loop = asyncio.get_running_loop()
            self._precedence = loop.call_later(_PRECEDENCE_SECONDS, self._end_precedence)
            self._changed()

    def _end_precedence(self) -> None:
        if self._precedence is not None:
            self._precedence.cancel()
        self._preferred, self._precedence = frozenset(), None
        self._call()

    def _call(self) -> None:
        """Who was served longest ago comes first."""
        for claim in sorted(self._claims, key=_served_at):
            if claim.need:
                claim.freed()

    # -- what is offered

    def divide(self, slots: dict[str, int], now: float) -> dict[str, int]:
        """For each capability, the attempts that it may hold: those it has, and its part of the
        room. slots: as many as its lane can hold. now: monotonic. Asked once a beat."""
        free = self._allocations.free
        eager = {id(claim) for claim in self._claims if claim.used >= max(claim.offered, 1)}
        order = sorted(self._claims, key=_served_at)
        parts = dict.fromkeys((claim.agent.capability for claim in order), 0)
        rounds = (order, [claim for claim in order if id(claim) in eager], order)
        for number, claims in enumerate(rounds):
            for position, claim in enumerate(claims):
                name = claim.agent.capability
                left = slots[name] - claim.used - parts[name]
                room = min(left, claim.need.fits(free), self._allowed(claim) - parts[name])
                if number == 0:
                    room = min(room, 1)
                elif claim.need:
                    room = min(room, math.ceil(room / (len(claims) - position)))
                if room > 0:
                    parts[name] += room
                    free = free.minus(claim.need.times(room))
        soon = now - self._ended_at < _SOON_SECONDS
        for claim in order:
            name = claim.agent.capability
            claim.offered = claim.used + parts[name]
            # Where something ends every moment, a task need not wait for the next beat.
            parts[name] = max(claim.offered, int(soon and self._admission.memory_open))
        return parts

    def _allowed(self, claim: Claim) -> int:
        allowed = self._admission.room(claim.need, self._since, idle=self._running == 0)
        return _ANY if allowed is None else allowed


def _served_at(claim: Claim) -> float:
    return claim.served_at


def _nothing() -> None:
    """Nobody waits."""
