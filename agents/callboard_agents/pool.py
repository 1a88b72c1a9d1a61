"""Agent hosts as child processes of this one, restarted when they end.

The death of a child is certain to its parent, so the pool reports it to the router at once with
the last beat of that incarnation; nobody waits for a lease to end. A child that cannot start is
tried again with growing pauses; one that refuses its own settings ends the pool.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from callboard_agents.options import HostOptions
from callboard_broker import child
from callboard_broker.connection import open_link
from callboard_broker.errors import BadInput, WriteRefused
from callboard_broker.publisher import Publisher
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Beat, encode

__all__ = ["LocalPool"]

_BAD_INPUT = 2  # what the child's `main` returns for it
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
_SETTLED_SECONDS = 30.0  # a child that lived so long starts with the first pause again
_SPARE_SECONDS = 12.0  # beyond the drain, until a child is killed
_REPORTS = 3
_LOG = logging.getLogger("callboard.pool")


@dataclass(slots=True)
class _Place:
    """One child: its options, and the process that fills the place now."""

    options: HostOptions
    process: subprocess.Popen[bytes] | None = None


class LocalPool:
    """`hosts` processes, each with all agents of `modules`. `run` it in the main thread.

    options: of every host; names get `-0`, `-1`, ... appended.
    """

    def __init__(self, modules: Sequence[str], options: HostOptions, *, hosts: int = 1) -> None:
        if hosts < 1:
            raise BadInput("hosts", "must be at least 1")
        self._modules = list(modules)
        self._options = options
        self._places = [
            _Place(replace(options, name=f"{options.name}-{number}")) for number in range(hosts)
        ]
        self._stopping = asyncio.Event()

    @property
    def pids(self) -> list[int]:
        """The process ids of the children that live now."""
        return [
            place.process.pid
            for place in self._places
            if place.process is not None and place.process.poll() is None
        ]

    def stop(self) -> None:
        """Drain all children; `run` returns when they have ended."""
        self._stopping.set()

    async def run(self) -> None:
        """Keep the children running until stopped.

        Raises `BoardUnreachable`, and `BadInput` if a child refused its modules or options (it
        printed why).
        """
        try:
            async with open_link(self._options.url, name=f"{self._options.name} pool") as link:
                async with Publisher(link) as publisher, asyncio.TaskGroup() as group:
                    for place in self._places:
                        group.create_task(self._keep(place, publisher))
                    await self._stopping.wait()
                    self._terminate()
                    late = asyncio.get_running_loop().call_later(
                        self._options.drain_seconds + _SPARE_SECONDS, self._kill
                    )
                late.cancel()
        except* BadInput as refused:
            raise refused.exceptions[0] from None
        finally:
            self._kill()

    async def _keep(self, place: _Place, publisher: Publisher) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            incarnation = secrets.token_hex(8)
            begun = time.monotonic()
            place.process = child.start(
                _command(self._modules, place.options, incarnation),
                # The URL may hold a password, and a command line is there for everyone to read.
                env={**os.environ, "CALLBOARD_NATS_URL": place.options.url},
            )
            code = await child.wait(place.process)
            await self._report(place.options, incarnation, publisher)
            if self._stopping.is_set():
                return
            if code == _BAD_INPUT:
                raise BadInput("agents", f"host {place.options.name} refused them; see its output")
            if time.monotonic() - begun > _SETTLED_SECONDS:
                pause = _FIRST_PAUSE
            _LOG.warning(
                "host %s ended (code %d); it starts again in %g s", place.options.name, code, pause
            )
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            except TimeoutError:
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _report(self, options: HostOptions, incarnation: str, publisher: Publisher) -> None:
        """Tell the router that this incarnation is dead, with all that came after it."""
        beat = Beat(options.name, incarnation, options.pool, gone=True)
        subject = Subjects(options.prefix).beat(options.pool, options.name)
        for _ in range(_REPORTS):
            try:
                await publisher.put(subject, encode(beat), timeout=options.beat_seconds)
            except (OSError, LookupError, WriteRefused) as error:
                _LOG.warning("the death of host %s is not reported: %s", options.name, error)
            else:
                return

    def _terminate(self) -> None:
        for place in self._places:
            if place.process is not None:
                place.process.terminate()

    def _kill(self) -> None:
        for place in self._places:
            if place.process is not None and place.process.poll() is None:
                child.kill(place.process)


def _command(modules: Sequence[str], options: HostOptions, incarnation: str) -> list[str]:
    command = [sys.executable, "-m", "callboard_agents", *modules]
    for name, value in asdict(replace(options, incarnation=incarnation)).items():
        if name == "url":
            continue
        command.append(f"--{name.replace('_', '-')}={value}")
    return command
