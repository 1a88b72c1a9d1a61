"""The agent host: takes dispatches of its agents' queues, runs them, and says what came of it.

One connection carries the work; the beats have a thread and a connection of their own. A drained
host takes nothing more, lets its handlers finish, and says with its last beat that it is gone.
What it could not finish it leaves unreported, so that the router declares it lost.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Any

from callboard_agents.admission import Measured
from callboard_agents.agent import Agent
from callboard_agents.attempts import Attempts, Life
from callboard_agents.beats import Beats, Said
from callboard_agents.cell_plans import cell_plans, runs_in_children
from callboard_agents.checkpoints import Checkpoints
from callboard_agents.clock import lease_now
from callboard_agents.context import HostSide
from callboard_agents.intake import Intake
from callboard_agents.kept_nursery import KeptNursery, keep_nursery
from callboard_agents.lane import Lane
from callboard_agents.lifeline import Lifeline
from callboard_agents.lifespans import lived, refuse_async, spans_of
from callboard_agents.loading import is_command_file
from callboard_agents.log_book import LogBook
from callboard_agents.mailbox import Mailbox
from callboard_agents.middleware import chained, load_middleware
from callboard_agents.options import HostOptions
from callboard_agents.outcomes import Outcomes
from callboard_agents.payloads import Payloads
from callboard_agents.reports import Reports
from callboard_agents.resources import Resources
from callboard_agents.running import Running
from callboard_agents.sandbox.living import Living
from callboard_agents.signer import Signer
from callboard_agents.spawning import Children
from callboard_agents.stagehand import Stagehand
from callboard_agents.stop_requests import listen_for_stops
from callboard_broker.connection import Connection, open_link
from callboard_broker.endpoint import Endpoint
from callboard_broker.errors import BadInput
from callboard_broker.publisher import Publisher
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects

__all__ = ["Host"]

_STOP_SECONDS = 1.0  # for cancelled handlers to clean up
_STORE_SECONDS = 5.0  # for the last outcomes to be acknowledged
_LINES_SECONDS = 2.0  # for the last lines of handlers
_MAX_UNSTORED = 10_000  # outcomes on their way: beyond, the host takes no work
_LOG = logging.getLogger("callboard.host")


class Host:
    """One host of `agents`. `run` it; `drain` ends it.

    places: where its agents come from, as `load` takes it: children load them from there. lifeline:
    to the supervisor of its process. Raises `BadInput` if there is no agent, two of one capability,
    no place that children need, an async lifespan of agents that run in children, or middleware
    that is none.
    """

    def __init__(
        self,
        agents: Sequence[Agent[..., Any]],
        options: HostOptions,
        *,
        places: Sequence[str] = (),
        lifeline: Lifeline | None = None,
    ) -> None:
        if not agents:
            raise BadInput("agents", "a host needs at least one")
        capabilities = [agent.capability for agent in agents]
        for capability in capabilities:
            if capabilities.count(capability) > 1:
                raise BadInput("agents", f"two agents of one host offer {capability}")
        self._plans = cell_plans(agents, options)
        loaded = {plan.capability for plan in self._plans if plan.command is None}
        if loaded and not places:
            raise BadInput("places", "child processes load their agents from modules: name them")
        refuse_async(spans_of([agent for agent in agents if agent.capability in loaded]))
        self._places = [place for place in places if not is_command_file(place)]
        self.options = options
        self._lifeline = lifeline
        self.attempts = Attempts(
            options.incarnation or secrets.token_hex(8),
            lease_seconds=options.lease_seconds,
            suspect_seconds=min(3 * options.beat_seconds, options.lease_seconds),
        )
        self.resources = Resources(options.cpus, options.memory_mb, changed=self._changed)
        outer = load_middleware(options.middleware)
        self._lanes = [
            Lane(
                agent,
                options,
                self.resources.claim(agent),
                self._asking(agent),
                None if agent.command is not None else chained(agent, outer),
            )
            for agent in agents
        ]
        self._beats: Beats | None = None
        self._draining = asyncio.Event()
        self._closed = False
        self._alive = asyncio.Event()
        self._ready = asyncio.Event()
        self._nursery: KeptNursery | None = None
        self._running: Running | None = None
        self._outcomes: Outcomes | None = None
        self._failed: BaseException | None = None
        self._key = ""

    @property
    def incarnation(self) -> str:
        """The present one; another after each lease that ended."""
        return self.attempts.life.incarnation

    @property
    def draining(self) -> bool:
        """Whether the host takes nothing more."""
        return self._draining.is_set()

    async def ready(self) -> None:
        """Return when the host has its lease and reads all of its queues."""
        await self._ready.wait()

    def drain(self) -> None:
        """Take nothing more, finish what runs (`drain_seconds`), say goodbye; `run` returns."""
        self._draining.set()

    async def run(self) -> None:
        """Work until drained. Raises `BoardUnreachable` if there is no server at the start, and
        `StartFailed` if what the agents need cannot be set up."""
        agents = [lane.agent for lane in self._lanes]
        agents = [agent for agent in agents if not runs_in_children(agent, self.options)]
        for agent in agents:
            _ = agent.handler  # instances are made before anything is promised
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(lived(spans_of(agents)))
            connection = await stack.enter_async_context(
                open_link(self.options.url, name=self.options.name)
            )
            publisher = await stack.enter_async_context(Publisher(connection))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            children = await stack.enter_async_context(
                Children(
                    connection, prefix=self.options.prefix, host=self.options.name, group=group
                )
            )
            if self._plans:
                required = self.options.policy.required
                kept = keep_nursery(self._places, self._plans, required)
                self._nursery = await stack.enter_async_context(kept)
            await self._work(connection, publisher, children, group)
        if self._failed is not None:
            raise self._failed

    async def _work(
        self,
        connection: Connection,
        publisher: Publisher,
        children: Children,
        group: asyncio.TaskGroup,
    ) -> None:
        options = self.options
        subjects = Subjects(options.prefix)
        self._outcomes = outcomes = Outcomes(publisher, self.attempts)
        payloads = Payloads(connection, Topology(subjects))
        signer = Signer(options)
        self._key = signer.public
        reports = Reports(connection, subjects, outcomes, payloads, signer, options)
        checkpoints = Checkpoints(publisher, payloads, self.attempts, options)
        logs = LogBook(
            publisher,
            subjects,
            host=options.name,
            options=options.log,
            now_ms=connection.server_now_ms,
        )
        self._running = running = Running(
            Stagehand(reports.news, payloads, checkpoints),
            reports,
            group,
            board=options.prefix,
            inline=HostSide(room=connection.drained, spawn=children.spawn, logs=logs),
            threaded=HostSide(spawn=children.spawn, loop=asyncio.get_running_loop(), logs=logs),
        )
        if self._nursery is not None:
            running.isolate(self._nursery, options.policy, self._plans)
        intake = Intake(connection, options, self.attempts, running, group)
        lanes = {lane.agent.capability: lane for lane in self._lanes}
        await listen_for_stops(connection, subjects, options.pool, running)
        await Mailbox(connection, options, lanes, intake.take).open()
        self._beats = beats = Beats(
            options,
            self.attempts,
            self._says,
            self,
            lifeline=self._lifeline,
            living=self._living,
        )
        beats.start()
        finished = False
        try:
            async with _shown(options.metrics, beats, reports, outcomes):
                await self._serve(intake, beats)
                await self._finish(running, outcomes, logs)
            finished = True
        finally:
            logs.close()
            await beats.stop(gone=finished and not running)
            running.close()

    async def _serve(self, intake: Intake, beats: Beats) -> None:
        """Read all queues until drained; what is delivered until the last is closed, runs."""
        opened = [asyncio.Event() for _ in self._lanes]
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = [
                group.create_task(intake.serve(lane, event))
                for lane, event in zip(self._lanes, opened, strict=True)
            ]
            tasks += [group.create_task(intake.learn()), group.create_task(self._await(opened))]
            await self._draining.wait()
            for task in tasks:
                task.cancel()
        intake.close()
        self._closed = True
        beats.soon()

    async def _await(self, opened: list[asyncio.Event]) -> None:
        for event in [self._alive, *opened]:
            await event.wait()
        self._ready.set()
        _LOG.info("%s is ready", self.options.name)

    async def _finish(self, running: Running, outcomes: Outcomes, logs: LogBook) -> None:
        """Let the handlers end, then stop them; see that what is decided gets stored."""
        try:
            async with asyncio.timeout(0 if self._failed else self.options.drain_seconds):
                await running.idle()
        except TimeoutError:
            _LOG.warning("%d handlers still run: they are stopped and left as lost", len(running))
            running.stop("drain")
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await running.idle()
        except TimeoutError:
            _LOG.warning("%d handlers do not stop", len(running))
        try:
            async with asyncio.timeout(0 if self._failed else _STORE_SECONDS):
                await outcomes.settled()
        except TimeoutError:
            _LOG.warning("%d outcomes could not be stored", outcomes.unstored)
        try:
            async with asyncio.timeout(0 if self._failed else _LINES_SECONDS):
                await logs.settled()
        except TimeoutError:
            _LOG.warning("not all lines of the handlers could be stored")

    # -- what the lanes and the beats ask; from any thread

    def _wants_work(self) -> bool:
        if self._draining.is_set() or not self.attempts.wants_work(lease_now()):
            return False
        return self._outcomes is not None and self._outcomes.unstored < _MAX_UNSTORED

    def _asking(self, agent: Agent[..., Any]) -> Callable[[], bool]:
        if not runs_in_children(agent, self.options):
            return self._wants_work
        return lambda: self._nursery is not None and self._nursery.open and self._wants_work()

    def _says(self, measured: Measured) -> Said:
        self.resources.measured(measured)
        parts: dict[str, int] = {}
        if not self._closed:
            slots = {lane.agent.capability: lane.slots for lane in self._lanes}
            parts = self.resources.divide(slots, time.monotonic())
        offers = [lane.offer(parts.get(lane.agent.capability, 0)) for lane in self._lanes]
        layers = () if self._nursery is None else tuple(sorted(self._nursery.layers))
        return Said(offers, self.resources.taken, layers, self._key)

    def _living(self) -> Living | None:
        return None if self._nursery is None else self._nursery.living()

    # -- what the resources tell; on the loop

    def _changed(self) -> None:
        if self._beats is not None:
            self._beats.soon()

    # -- what the beats tell; on the loop

    def beat_stored(self) -> None:
        """The lease is longer; after a pause of the beats, the lanes may take work again."""
        self._alive.set()
        for lane in self._lanes:
            lane.advance()

    def lease_ended(self, old: Life) -> None:
        """Stop everything that was started in `old`; none of it is reported."""
        if self._running is not None:
            self._running.stop("lease", old)

    def beats_failed(self, error: BaseException) -> None:
        """A host that cannot say that it lives must not work."""
        _LOG.error("the beats have failed: the host ends", exc_info=error)
        self._failed = error
        if self._running is not None:
            self._running.stop("lease")
        self._draining.set()


def _shown(
    endpoint: Endpoint | None, beats: Beats, reports: Reports, outcomes: Outcomes
) -> AbstractAsyncContextManager[None]:
    """The metrics, whose library is imported only where they are wanted."""
    if endpoint is None:
        return nullcontext()
    from callboard_agents.metrics import HostMetrics  # noqa: PLC0415  see above
    from callboard_broker.exposition import new_registry, shown  # noqa: PLC0415  see above

    registry = new_registry()
    metrics = HostMetrics(registry, lambda: beats.last, lambda: outcomes.unstored)
    reports.observer = metrics.ended
    return shown(endpoint, registry)
