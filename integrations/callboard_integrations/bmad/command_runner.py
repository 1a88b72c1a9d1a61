"""Lets a command line do the work: the prompt on its standard input, the answer on its output.

The persona's text lies in a file, whose path stands in `CALLBOARD_SYSTEM_PROMPT` and wherever the
command says `{system}`. It runs in the task's own folder; cancelled, it dies with its children.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import tempfile
from pathlib import Path

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.runner import Answer, Request, RunnerFailed
from callboard_integrations.bmad.worktrees import git_environment

__all__ = ["CommandRunner"]

_MAX_OUTPUT = 8 * 1024 * 1024
_MAX_SHOWN = 500


class CommandRunner:
    """command: as for a shell, but run without one. Raises `BadInput` if it is empty."""

    def __init__(self, command: str) -> None:
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise BadInput("command", f"{error}") from error
        if not self._words:
            raise BadInput("command", "name a program")
        self.name = Path(self._words[0]).name

    async def run(self, request: Request) -> Answer:
        with tempfile.TemporaryDirectory(prefix="callboard-persona-") as folder:
            system = Path(folder) / "system.md"
            system.write_bytes(request.system.encode())
            place = Path(request.folder or folder)
            words = [word.replace("{system}", str(system)) for word in self._words]
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    cwd=place,
                    env={**git_environment(place), "CALLBOARD_SYSTEM_PROMPT": str(system)},
                    start_new_session=True,
                )
            except OSError as error:
                raise RunnerFailed(f"{self.name} does not start: {error.strerror}") from error
            try:
                output, errors = await process.communicate(request.prompt.encode())
            finally:
                await _end(process)
        if process.returncode != 0:
            last = errors.decode(errors="replace").strip()[-_MAX_SHOWN:]
            raise RunnerFailed(f"{self.name} ended with {process.returncode}: {last}")
        if len(output) > _MAX_OUTPUT:
            raise RunnerFailed(f"{self.name} wrote more than {_MAX_OUTPUT} bytes")
        return Answer(text=output.decode(errors="replace"))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of it, and reap it."""
    with contextlib.suppress(ProcessLookupError):  # it and all of its children have ended
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
