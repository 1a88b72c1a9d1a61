"""The beats: a thread with its own loop and its own connection says that the host lives.

A handler that blocks the host's loop does not stop them. An acknowledged beat extends the lease,
counted from its sending; when the lease ends, this thread begins the new incarnation at once and
tells the host's loop, which then stops what belonged to the old one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from callboard_agents.admission import Measured
from callboard_agents.allocations import Need
from callboard_agents.attempts import Attempts, Life
from callboard_agents.clock import lease_now
from callboard_agents.cpu_load import CpuLoad
from callboard_agents.footprint import Footprint
from callboard_agents.lifeline import Lifeline
from callboard_agents.loops import loop_factory
from callboard_agents.memory import free_memory_mb, total_memory_mb
from callboard_agents.options import HostOptions
from callboard_agents.pulse import Pulse
from callboard_agents.sandbox.living import Living
from callboard_broker.connection import open_link
from callboard_broker.publisher import Publisher
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Beat, Offer, encode
from callboard_config.cpus import usable_cpus

__all__ = ["Beats", "BeatsHeard", "Said"]

_LAST_SECONDS = 2.0  # how long the final beat may take
_LOG = logging.getLogger("callboard.host")


class BeatsHeard(Protocol):
    """What the thread of the beats tells; each is called on the host's loop."""

    def beat_stored(self) -> None:
        """A beat was acknowledged."""

    def lease_ended(self, old: Life) -> None:
        """Everything of `old` is void; a new incarnation has begun."""

    def beats_failed(self, error: BaseException) -> None:
        """The thread is dead: nothing may run any more."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a beat says of a moment. taken: what running attempts are promised. layers: what it can
    keep between itself and a child process. key: that its signatures are checked with."""

    offers: list[Offer]
    taken: Need
    layers: tuple[str, ...] = ()
    key: str = ""


def _nobody() -> None:
    """A host without child processes."""


class Beats:
    """The beats of one host. `start` and `stop` are called on the host's loop.

    says: what is offered at this moment, given what was measured; called from the thread of the
    beats. lifeline: of a process that has a supervisor. living: the host's child processes; called
    from that thread. last: the beat that was made last, for any thread.
    """

    def __init__(
        self,
        options: HostOptions,
        attempts: Attempts,
        says: Callable[[Measured], Said],
        heard: BeatsHeard,
        *,
        lifeline: Lifeline | None = None,
        living: Callable[[], Living | None] = _nobody,
    ) -> None:
        self._options = options
        self._attempts = attempts
        self._says = says
        self._load = CpuLoad()
        self._total_mb = total_memory_mb()
        self._heard = heard
        self._lifeline = lifeline
        self._subject = Subjects(options.prefix).beat(options.pool, options.name)
        self._living = living
        self._footprint = Footprint()
        self._node = socket.gethostname()
        self._thread = threading.Thread(target=self._run, name="callboard-beats", daemon=True)
        self._host_loop: asyncio.AbstractEventLoop | None = None
        self._pulse: Pulse | None = None
        self._own: _Own | None = None
        self._up = threading.Event()
        self._gone = False
        self.last: Beat | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._host_loop = asyncio.get_running_loop()
        self._pulse = Pulse(self._host_loop)
        self._thread.start()

    def soon(self) -> None:
        """Send the next beat now: what the host offers has changed."""
        own = self._own
        if own is not None and not own.loop.is_closed():
            own.loop.call_soon_threadsafe(own.wake.set)

    async def stop(self, *, gone: bool) -> None:
        """End the thread. gone: say with a last beat that this incarnation has ended."""
        await asyncio.to_thread(self._up.wait)
        own = self._own
        self._gone = gone
        if own is not None and self._thread.is_alive():
            own.loop.call_soon_threadsafe(own.end.set)
            own.loop.call_soon_threadsafe(own.wake.set)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(self._beat())
        except BaseException as error:  # noqa: BLE001  no beat, no host: told, never swallowed
            self._tell(self._heard.beats_failed, error)
        finally:
            self._up.set()
            if self._lifeline is not None:
                self._lifeline.close()

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        own = _Own(loop, asyncio.Event(), asyncio.Event())
        name = f"{self._options.name} beats"
        async with (
            open_link(self._options.url, name=name) as connection,
            Publisher(connection) as publisher,
        ):
            self._own = own
            self._up.set()
            while not own.end.is_set():
                self._end_lease()
                if self._lifeline is not None:
                    self._lifeline.pull()
                own.wake.clear()
                self._send(publisher, own)
                timer = loop.call_later(self._pause(), own.wake.set)
                await own.wake.wait()
                timer.cancel()
            if self._gone:
                await self._send_last(publisher)

    def _pause(self) -> float:
        """Until the next beat, or the end of the lease if that comes first."""
        end = self._attempts.life.lease_end - lease_now()
        return min(self._options.beat_seconds, end) if end > 0 else self._options.beat_seconds

    def _end_lease(self) -> None:
        old = self._attempts.end_lease(lease_now())
        if old is not None:
            _LOG.error(
                "no beat was acknowledged for %g s: the lease of %s has ended",
                self._options.lease_seconds,
                old.incarnation,
            )
            self._tell(self._heard.lease_ended, old)

    def _send(self, publisher: Publisher, own: _Own) -> None:
        life, beat = self._now()
        self.last = beat
        sent_at = lease_now()

        def done(_seq: int | None, error: Exception | None) -> None:
            if error is None:
                own.failing = False
                self._attempts.beat_stored(life, sent_at)
                self._tell(self._heard.beat_stored)
                return
            if not own.failing:
                own.failing = True
                _LOG.warning("a beat was not stored: %s", error)
            own.loop.call_later(self._options.beat_seconds / 5, own.wake.set)

        publisher.publish(self._subject, encode(beat), done=done)

    async def _send_last(self, publisher: Publisher) -> None:
        life = self._attempts.life
        last = Beat(self._options.name, life.incarnation, self._options.pool, gone=True)
        try:
            await publisher.put(self._subject, encode(last), timeout=_LAST_SECONDS)
        except (OSError, LookupError, RuntimeError) as error:
            _LOG.warning("the last beat was not stored: %s", error)

    def _now(self) -> tuple[Life, Beat]:
        free_mb = free_memory_mb()
        load = self._load.look(time.monotonic())
        said = self._says(Measured(free_mb=free_mb, total_mb=self._total_mb, load=load))
        cost = self._footprint.look(self._living())
        life, holds = self._attempts.snapshot()
        return life, Beat(
            host=self._options.name,
            incarnation=life.incarnation,
            pool=self._options.pool,
            offers=said.offers,
            holds=holds,
            cpu=cost.cores,
            memory_mb=cost.memory_mb,
            cpus=usable_cpus(),
            free_mb=free_mb,
            pid=os.getpid(),
            node=self._node,
            fresh_from=self._attempts.fresh_from,
            blocked=0.0 if self._pulse is None else self._pulse.look(),
            allocated_cpu=said.taken.cpu,
            allocated_mb=said.taken.memory_mb,
            layers=list(said.layers),
            key=said.key,
        )

    def _tell(self, what: Callable[..., None], *args: object) -> None:
        loop = self._host_loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(what, *args)


@dataclass(slots=True)
class _Own:
    """The loop of the thread, and what wakes and ends it."""

    loop: asyncio.AbstractEventLoop
    wake: asyncio.Event
    end: asyncio.Event
    failing: bool = False
