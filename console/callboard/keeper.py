"""Keeps one child process alive: starts it, waits until it says that it is ready, starts it again
when it ends, with growing pauses, and stops it in order.

A child that ends before it was ever ready is not tried again: what it said last is the error.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from callboard_broker import child
from callboard_broker.errors import ServerFailed

__all__ = ["Keeper", "PartFailed"]

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_SETTLED_SECONDS = 30.0
_READY_SECONDS = 60.0
_LOG_BYTES = 8 * 1024 * 1024
_TAIL_BYTES = 4096
_TAIL_LINES = 6
_BAD_INPUT = 2  # the command's own code for it: another try changes nothing


class PartFailed(ServerFailed):
    """A part of the board did not start. `.part` names it."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(reason)
        self.part = part


class Keeper:
    """One `python -m callboard ...` child. `keep` it; `stop` ends both.

    tells_ready: whether the command takes `--ready-fd`. told: hears what happens, for a person.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str],
        told: Callable[[str, str], None],
        tells_ready: bool = True,
        grace_seconds: float = 10.0,
    ) -> None:
        self.name = name
        self.log = log
        self._arguments = list(arguments)
        self._env = env
        self._told = told
        self._tells_ready = tells_ready
        self._grace_seconds = grace_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = asyncio.Event()
        self._log_start = 0
        self.ready = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the child that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    async def keep(self) -> None:
        """Run the child until stopped. Raises `PartFailed` if it never gets ready."""
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            begun = time.monotonic()
            code = await self._live()
            if self._stopping.is_set():
                return
            if not self.ready.is_set() or code == _BAD_INPUT:
                raise PartFailed(self.name, f"{self.name} did not start: {self._last_words(code)}")
            if time.monotonic() - begun > _SETTLED_SECONDS:
                pause = _FIRST_PAUSE
            self._told(self.name, f"ended ({_ending(code)}); it starts again in {pause:g} s")
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def stop(self) -> None:
        """Ask the child to end, and kill it if it does not within its grace."""
        self._stopping.set()
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self._grace_seconds):
                await child.wait(process)
        except TimeoutError:
            self._told(self.name, f"did not end within {self._grace_seconds:g} s: killed")
            child.kill(process)

    def kill(self) -> None:
        """End the child at once, whatever it does; waits until it is gone."""
        self._stopping.set()
        if self._process is not None and self._process.poll() is None:
            child.kill(self._process)

    async def _live(self) -> int:
        """One life of the child; returns its exit code."""
        self._set_long_log_aside()
        command = [sys.executable, "-m", "callboard", *self._arguments]
        if not self._tells_ready:
            self._process = child.start(command, log=self.log, env=self._env)
            self.ready.set()
            return await child.wait(self._process)
        heard, said = os.pipe()
        try:
            command += ["--ready-fd", str(said)]
            try:
                self._process = child.start(command, log=self.log, env=self._env, pass_fds=[said])
            finally:
                os.close(said)
            if await self._heard(heard):
                self.ready.set()
        finally:
            os.close(heard)
        return await child.wait(self._process)

    async def _heard(self, pipe: int) -> bool:
        """Whether the child said that it is ready; else it has ended, or takes too long."""
        loop = asyncio.get_running_loop()
        stirred = asyncio.Event()
        loop.add_reader(pipe, stirred.set)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await stirred.wait()
        except TimeoutError:
            if self._process is not None:
                child.kill(self._process)
            return False
        finally:
            loop.remove_reader(pipe)
        return bool(os.read(pipe, 64))

    def _set_long_log_aside(self) -> None:
        with suppress(FileNotFoundError):
            self._log_start = self.log.stat().st_size
            if self._log_start > _LOG_BYTES:
                self.log.replace(self.log.with_suffix(".log.1"))
                self._log_start = 0

    def _last_words(self, code: int) -> str:
        """What a person needs of the log: a command's own complaint, else its last lines."""
        with suppress(FileNotFoundError), self.log.open("rb") as file:
            size = self.log.stat().st_size
            file.seek(max(self._log_start, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
            for sign in ("error: ", "callboard: "):  # a host's word is nearer to the cause
                if complaints := [line for line in lines if line.startswith(sign)]:
                    return complaints[-1].removeprefix(sign)
            if lines:
                return f"{_ending(code)}; see {self.log}:\n" + "\n".join(lines[-_TAIL_LINES:])
        return f"{_ending(code)}; its log {self.log} is empty"


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
