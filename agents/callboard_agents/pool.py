"""Agent hosts as child processes of this one: restarted when they end or hang, more or fewer of
them by demand.

Given a scaling policy, the pool asks the router each second what waits, and starts or drains
processes. A rolling restart brings modules up anew while nothing is lost (see `crew`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace

from callboard_agents.crew import Crew
from callboard_agents.demand import Demand
from callboard_agents.memory import total_memory_mb
from callboard_agents.options import HostOptions
from callboard_agents.scaling import Scaler, ScalingPolicy
from callboard_agents.survey import Surveyed, take_survey
from callboard_broker.connection import open_link
from callboard_broker.errors import BadInput
from callboard_broker.publisher import Publisher
from callboard_config.cpus import usable_cpus

__all__ = ["LocalPool"]

_LOG = logging.getLogger("callboard.pool")


class LocalPool:
    """Processes with all agents of `modules` each. `run` it in the main thread.

    options: of every host; names get `-0`, `-1`, ... appended, and each its part of the machine.
    hosts: how many, unless `scaling` says how few and how many there may be.
    """

    def __init__(
        self,
        modules: Sequence[str],
        options: HostOptions,
        *,
        hosts: int = 1,
        scaling: ScalingPolicy | None = None,
    ) -> None:
        if hosts < 1:
            raise BadInput("hosts", "must be at least 1")
        self._modules = list(modules)
        self._options = options
        self._policy = scaling or ScalingPolicy(least=hosts, most=hosts)
        self._crew: Crew | None = None
        self._stopping = asyncio.Event()
        self._restart = asyncio.Event()

    @property
    def pids(self) -> list[int]:
        """The process ids of the children that live now."""
        return [] if self._crew is None else self._crew.pids

    def stop(self) -> None:
        """Drain all children; `run` returns when they have ended."""
        self._stopping.set()

    def restart(self) -> None:
        """Replace every child by one that loads the modules anew, one after the other."""
        self._restart.set()

    async def run(self) -> None:
        """Keep the children running until stopped.

        Raises `BoardUnreachable`, and `BadInput` if a child refused its modules or options (it
        printed why).
        """
        options = self._options
        try:
            async with (
                open_link(options.url, name=f"{options.name} pool") as link,
                Publisher(link) as publisher,
            ):
                demand = Demand(link, options.prefix, options.pool)
                async with self._shown():
                    await self._work(publisher, demand)
        except* BadInput as refused:
            raise refused.exceptions[0] from None
        finally:
            if self._crew is not None:
                self._crew.kill()

    async def _work(self, publisher: Publisher, demand: Demand) -> None:
        policy = self._policy
        elastic = policy.least < policy.most
        if elastic:
            policy = await self._survey(demand)
        async with asyncio.TaskGroup() as group:
            options = _part(self._options, policy.most)
            crew = self._crew = Crew(self._modules, options, publisher=publisher, group=group)
            crew.resize(policy.least)
            tasks = [group.create_task(self._roll(crew, demand))]
            if elastic:
                tasks.append(group.create_task(self._scale(crew, Scaler(policy), demand)))
            await self._stopping.wait()
            for task in tasks:
                task.cancel()
            crew.resize(0)

    def _shown(self) -> AbstractAsyncContextManager[None]:
        """Its metrics, whose library is imported only where they are wanted."""
        if self._options.metrics is None:
            return nullcontext()
        from callboard_agents.metrics import observe_pool  # noqa: PLC0415  see above
        from callboard_broker.exposition import new_registry, shown  # noqa: PLC0415  see above

        registry = new_registry()
        observe_pool(registry, lambda: len(self.pids))
        return shown(self._options.metrics, registry)

    async def _survey(self, demand: Demand) -> ScalingPolicy:
        """Learn which agents there are; no more processes than have room for an attempt each."""
        agents = await take_survey(self._modules)
        demand.agents = [agent.capability for agent in agents]
        most = min([self._policy.most, *map(_fitting, agents)])
        if most < self._policy.most:
            _LOG.warning("at most %d processes: one attempt needs so much of this machine", most)
        return replace(self._policy, most=most, least=min(self._policy.least, most))

    async def _scale(self, crew: Crew, scaler: Scaler, demand: Demand) -> None:
        loop = asyncio.get_running_loop()
        while True:
            active = crew.active
            starting = sum(not place.ready.is_set() for place in active)
            seen = await demand.look(crew.pids, starting=starting)
            wanted = scaler.decide(None if crew.rolling else seen, len(active), time.monotonic())
            if wanted != len(active) and crew.active == active and not crew.rolling:
                _LOG.info("%d processes instead of %d", wanted, len(active))
                crew.resize(wanted)
            turn = loop.create_future()
            timer = loop.call_later(scaler.policy.look_seconds, turn.set_result, None)
            try:
                await turn
            finally:
                timer.cancel()

    async def _roll(self, crew: Crew, demand: Demand) -> None:
        while True:
            await self._restart.wait()
            self._restart.clear()
            try:
                agents = await take_survey(self._modules)
            except BadInput as error:
                _LOG.error("no restart: %s", error)
                continue
            _LOG.info("rolling restart of %d processes", len(crew.active))
            if await crew.roll():
                demand.agents = [agent.capability for agent in agents]


def _part(options: HostOptions, processes: int) -> HostOptions:
    """Of one of so many processes: its part of the machine, unless the options say how much."""
    return replace(
        options,
        cpus=options.cpus or usable_cpus() / processes,
        memory_mb=options.memory_mb or total_memory_mb() / processes,
    )


def _fitting(agent: Surveyed) -> int:
    """Processes that the machine has room for if each must be able to run one attempt."""
    fits = 1_000_000.0
    if agent.cpu > 0:
        fits = min(fits, usable_cpus() / agent.cpu)
    if agent.memory_mb > 0:
        fits = min(fits, total_memory_mb() / agent.memory_mb)
    return max(1, int(fits))
