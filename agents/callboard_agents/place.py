"""One place of a pool: an agent host as a child process, started again when it ends.

The death of a child is certain to its parent, so it is reported to the router at once with the last
beat of that incarnation; nobody waits for a lease to end. A child that cannot start is tried again
with growing pauses; one that refuses its own settings ends the place. A pipe says when it is ready,
another one that it still lives: a child that hangs is killed, and its death is as certain.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from callboard_agents.lifeline import Watch
from callboard_agents.options import HostOptions
from callboard_broker import child
from callboard_broker.errors import BadInput, WriteRefused
from callboard_broker.publisher import Publisher
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Beat, encode

__all__ = ["Place"]

_BAD_INPUT = 2  # what the child's `main` returns for it
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 10.0
_SETTLED_SECONDS = 30.0  # a child that lived so long starts with the first pause again
_SPARE_SECONDS = 17.0  # beyond the drain, until a child is killed
_REPORTS = 3
_MISSED_BEATS = 3
_LOG = logging.getLogger("callboard.pool")


class Place:
    """Whoever makes it runs `keep`, from the main thread's loop.

    ready: the child that fills it now works. over: `keep` has ended. trial: until the first child
    is ready, its end is the place's; nothing is tried again.
    """

    def __init__(
        self, modules: Sequence[str], options: HostOptions, *, trial: bool = False
    ) -> None:
        self.options = options
        self.trial = trial
        self.ready = asyncio.Event()
        self.over = asyncio.Event()
        self._modules = list(modules)
        self._retired = asyncio.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._late: asyncio.TimerHandle | None = None

    @property
    def retired(self) -> bool:
        """Whether it takes no more work."""
        return self._retired.is_set()

    @property
    def pid(self) -> int | None:
        """The process that lives now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def retire(self) -> None:
        """Drain the child; `keep` returns when it has ended. Killed if that takes too long."""
        if self.retired:
            return
        self._retired.set()
        if self._process is not None:
            self._process.terminate()
            grace = self.options.drain_seconds + _SPARE_SECONDS
            self._late = asyncio.get_running_loop().call_later(grace, self.kill)

    def kill(self) -> None:
        """End the child at once."""
        if self.pid is not None and self._process is not None:
            child.kill(self._process)

    async def keep(self, publisher: Publisher) -> None:
        """Keep the place filled until it is retired. Raises `BadInput` if a child refused its
        modules or options (it printed why)."""
        try:
            await self._keep(publisher)
        finally:
            if self._late is not None:
                self._late.cancel()
            self.kill()
            self.over.set()

    async def _keep(self, publisher: Publisher) -> None:
        pause = _FIRST_PAUSE
        while not self.retired:
            incarnation = secrets.token_hex(8)
            begun = time.monotonic()
            code = await self._run(incarnation)
            await self._report(incarnation, publisher)
            if self.retired:
                return
            name = self.options.name
            if code == _BAD_INPUT:
                raise BadInput("agents", f"host {name} refused them; see its output")
            if self.trial:
                _LOG.error("host %s ended (code %d) before it was ready", name, code)
                return
            if time.monotonic() - begun > _SETTLED_SECONDS:
                pause = _FIRST_PAUSE
            _LOG.warning("host %s ended (code %d); it starts again in %g s", name, code, pause)
            try:
                async with asyncio.timeout(pause):
                    await self._retired.wait()
            except TimeoutError:
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _run(self, incarnation: str) -> int:
        """Start a child; return its exit code when it has ended."""
        loop = asyncio.get_running_loop()
        told, tells = os.pipe()
        life, lives = os.pipe()
        try:
            self._process = process = child.start(
                [*self._command(incarnation), f"--ready-fd={tells}", f"--life-fd={lives}"],
                # The URL may hold a password, and a command line is there for everyone to read.
                env={**os.environ, "CALLBOARD_NATS_URL": self.options.url},
                pass_fds=(tells, lives),
            )
        except BaseException:
            os.close(told)
            os.close(life)
            raise
        finally:
            os.close(tells)
            os.close(lives)
        patience = max(self.options.hung_seconds, _MISSED_BEATS * self.options.beat_seconds)
        watch = Watch(life, patience, functools.partial(self._hung, process))

        def heard() -> None:
            loop.remove_reader(told)
            if os.read(told, 1):
                self.trial = False
                self.ready.set()

        loop.add_reader(told, heard)
        try:
            return await child.wait(process)
        finally:
            self.ready.clear()
            watch.close()
            loop.remove_reader(told)
            os.close(told)

    def _hung(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        """It is not waited for here: what the kernel does not let go of at once holds up nobody."""
        _LOG.error(
            "host %s (pid %d) hangs: no sign of life for %.1f s; it is killed",
            self.options.name,
            process.pid,
            seconds,
        )
        process.kill()

    def _command(self, incarnation: str) -> list[str]:
        arguments = replace(self.options, incarnation=incarnation).arguments()
        return [sys.executable, "-m", "callboard_agents", *self._modules, *arguments]

    async def _report(self, incarnation: str, publisher: Publisher) -> None:
        """Tell the router that this incarnation is dead, with all that came after it."""
        options = self.options
        beat = Beat(options.name, incarnation, options.pool, gone=True)
        subject = Subjects(options.prefix).beat(options.pool, options.name)
        for _ in range(_REPORTS):
            try:
                await publisher.put(subject, encode(beat), timeout=options.beat_seconds)
            except (OSError, LookupError, WriteRefused) as error:
                _LOG.warning("the death of host %s is not reported: %s", options.name, error)
            else:
                return
