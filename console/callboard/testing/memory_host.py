"""An agent host of a board in memory: the lanes, intake, attempts and reports of a real one.

What differs is what carries them: no process, no thread of beats, no pull. Its lease never ends by
itself. Agents that are isolated in child processes run as the others do, on the loop or in a
thread, and no limit is enforced; what a machine has is not measured, so that every attempt finds
room.
"""

from __future__ import annotations

import asyncio
import copy
import math
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from callboard.testing.faults import Faults
from callboard.testing.memory_lifespans import lived_here
from callboard.testing.memory_link import MemoryConnection, open_memory_link
from callboard.testing.memory_queue import MemoryQueues, Taker
from callboard.testing.memory_running import MemoryRunning
from callboard.testing.memory_server import MemoryServer
from callboard.testing.seeded_board import SeededChildren
from callboard_agents.agent import Agent
from callboard_agents.attempts import Attempts
from callboard_agents.checkpoints import Checkpoints
from callboard_agents.intake import Intake
from callboard_agents.lane import Lane
from callboard_agents.lifespans import refuse_async, spans_of
from callboard_agents.mailbox import Mailbox
from callboard_agents.middleware import Middleware, chained
from callboard_agents.options import HostOptions
from callboard_agents.outcomes import Outcomes
from callboard_agents.payloads import Payloads
from callboard_agents.reports import Reports
from callboard_agents.resources import Resources
from callboard_agents.signer import Signer
from callboard_agents.stagehand import Stagehand
from callboard_agents.stop_requests import listen_for_stops
from callboard_broker.publisher import Publisher
from callboard_broker.streams import Topology
from callboard_broker.wire import Beat

__all__ = ["MemoryHost", "Surroundings"]

_PLENTY = 1e6  # cores, and MiB: more than any agent declares


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all hosts of one board share. middleware: of every host, the first outermost."""

    server: MemoryServer
    queues: MemoryQueues
    faults: Faults
    rng: random.Random
    topology: Topology
    middleware: tuple[Middleware, ...] = ()


class MemoryHost:
    """One life of one host: `run` it until `kill`, or until it is cancelled."""

    def __init__(
        self, agents: Sequence[Agent[..., Any]], options: HostOptions, around: Surroundings
    ) -> None:
        refuse_async(spans_of([agent for agent in agents if agent.isolation == "process"]))
        self.options = options
        self.ready = asyncio.Event()
        self.dead = False
        self._around = around
        self._attempts = Attempts(options.incarnation, lease_seconds=options.lease_seconds)
        self._attempts.beat_stored(self._attempts.life, math.inf)
        resources = Resources(_PLENTY, _PLENTY, changed=_nothing)
        self._lanes = [
            Lane(
                own,
                options,
                resources.claim(own),
                lambda: not self.dead,
                chained(own, around.middleware),
            )
            for own in map(_of_this_host, agents)
        ]
        self._takers: list[Taker] = []
        self._connection: MemoryConnection | None = None
        self._running: MemoryRunning | None = None
        self._intake: Intake | None = None

    @property
    def busy(self) -> int:
        """How many attempts it holds."""
        return len(self._attempts.life.held)

    def beat(self, *, gone: bool = False) -> Beat:
        """What it would say of itself now."""
        options, life = self.options, self._attempts.life
        if gone:
            return Beat(options.name, life.incarnation, options.pool, gone=True)
        return Beat(
            options.name,
            life.incarnation,
            options.pool,
            [lane.offer(lane.slots) for lane in self._lanes],
            list(life.held),
            fresh_from=self._attempts.fresh_from,
        )

    def kill(self) -> None:
        """Nothing of it is heard any more, and its handlers are stopped without a report."""
        self.dead = True
        for taker in self._takers:
            self._around.queues.leave(taker)
        if self._intake is not None:
            self._intake.close()
        if self._connection is not None:
            self._connection.cut()
        if self._running is not None:
            self._running.stop("lease")

    async def run(self) -> None:
        """Work until cancelled."""
        around, options = self._around, self.options
        for lane in self._lanes:
            _ = lane.agent.handler  # instances are made before anything is promised
        spans = spans_of([lane.agent for lane in self._lanes])
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(lived_here(spans))
            connection = await stack.enter_async_context(
                open_memory_link(around.server, options.name)
            )
            self._connection = connection
            publisher = await stack.enter_async_context(Publisher(connection))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            children = await stack.enter_async_context(
                SeededChildren(connection, host=options.name, group=group, rng=around.rng)
            )
            outcomes = Outcomes(publisher, self._attempts)
            payloads = Payloads(connection, around.topology)
            subjects = around.topology.subjects
            reports = Reports(connection, subjects, outcomes, payloads, Signer(options), options)
            checkpoints = Checkpoints(publisher, payloads, self._attempts, options)
            self._running = running = MemoryRunning(
                Stagehand(reports.news, payloads, checkpoints),
                reports,
                group,
                spawn=children.spawn,
                clock=around.server.clock,
                faults=around.faults,
            )
            stack.callback(running.close)
            stack.callback(running.stop, "lease")
            self._intake = intake = Intake(connection, options, self._attempts, running, group)
            await intake.learn()
            await listen_for_stops(connection, subjects, options.pool, running)
            lanes = {lane.agent.capability: lane for lane in self._lanes}
            await Mailbox(connection, options, lanes, intake.take).open()
            for lane in self._lanes:
                place = (options.pool, lane.agent.capability)
                self._takers.append(around.queues.join(place, lane, connection, intake.deliver))
            self.ready.set()
            await asyncio.get_running_loop().create_future()


def _of_this_host(agent: Agent[..., Any]) -> Agent[..., Any]:
    """The agent, with an instance of its own, and without a child process."""
    own = copy.copy(agent)
    vars(own).pop("handler", None)
    if own.isolation == "process":
        own.isolation = "inline" if own.is_async else "thread"
    return own


def _nothing() -> None:
    """Nobody hears that the resources changed."""
