"""Runs the `callboard` command as a person does, and finds every process that it started."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Shell", "UpBoard", "free_port", "running_board"]

_MARK = "MARK_OF_THE_TEST"
_SECONDS = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """A folder to work in, and an environment whose mark every descendant inherits."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def environment(self, **more: str) -> dict[str, str]:
        """Without the settings of whoever runs the tests; temporary files lie in the folder."""
        kept = {name: text for name, text in os.environ.items() if name[:10] != "CALLBOARD_"}
        kept.pop("NO_COLOR", None)
        return {**kept, _MARK: self.mark, "TMPDIR": str(self.folder), **more}

    def run(
        self, *arguments: str, stdin: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `callboard ARGUMENTS` to its end, its output in pipes."""
        return subprocess.run(
            [sys.executable, "-m", "callboard", *arguments],
            cwd=self.folder,
            env=self.environment(**environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """The one document that `callboard ARGUMENTS --json` prints."""
        done = self.run(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `callboard ARGUMENTS`; read its pipes, and end it."""
        return subprocess.Popen(
            [sys.executable, "-m", "callboard", *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[psutil.Process]:
        """Every live process that was started from this shell, by whatever way."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == self.mark:
                    found.append(process)
            except psutil.Error:
                continue  # gone, or not ours
        return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]


@dataclass(slots=True, kw_only=True)
class UpBoard:
    """A running `callboard up`. started: what it said with --json."""

    shell: Shell
    process: subprocess.Popen[str]
    started: dict[str, Any]

    def next_event(self) -> dict[str, Any]:
        """The next line that it prints."""
        assert self.process.stdout is not None
        event: dict[str, Any] = json.loads(self.process.stdout.readline())
        return event

    def end(self, number: int) -> int:
        """Send it a signal; its exit code."""
        self.process.send_signal(number)
        self.process.communicate(timeout=_SECONDS)
        return self.process.returncode


@contextmanager
def running_board(folder: Path, *arguments: str) -> Iterator[UpBoard]:
    """`callboard up --json ARGUMENTS` on a free port, ready; killed at the end if it still runs."""
    shell = Shell(folder=folder)
    process = shell.start("up", "--json", "--port", str(free_port()), *arguments)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate()[1])
        yield UpBoard(shell=shell, process=process, started=json.loads(line))
    finally:
        process.kill()
        process.communicate()


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port: int = door.getsockname()[1]
        return port
