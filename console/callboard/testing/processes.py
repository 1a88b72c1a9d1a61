"""The parts of a real board, each a process of its own, and what a fault test does to them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from callboard.testing.servers import NatsServer
from callboard_broker.connection import open_link
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, last_sequence
from callboard_broker.subjects import Subjects

__all__ = ["Processes", "read_journal", "started_processes"]

_SAYS_SECONDS = 30
_STOP_SECONDS = 15
_READ_SECONDS = 60


class Processes:
    """Processes by name. folder: for their logs and the ledger. cwd: where agents' files are.

    environment: further variables, such as `CALLBOARD_LEASE__LEASE_SECONDS`.
    """

    def __init__(
        self, nats: NatsServer, folder: Path, *, cwd: Path, environment: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self._cwd = cwd
        self._environment = {
            **os.environ,
            "CALLBOARD_NATS_URL": nats.url,
            "CALLBOARD_BOARD__PREFIX": nats.prefix,
            **environment,
        }
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        """Start `callboard COMMAND` as `name`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(  # noqa: S603  this very program
                [sys.executable, "-m", "callboard", *command],
                cwd=self._cwd,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def router(self, name: str) -> None:
        """Start a router."""
        self.start(name, "router", "--name", name)

    def ledger(self) -> None:
        """Start the ledger, on a store in `folder`."""
        self.start("ledger", "ledger", "--store", str(self.folder / "ledger"))

    def host(self, name: str, *places: str) -> None:
        """Start an agent host. places: modules, or files in `cwd`."""
        self.start(name, "agents", "run", *places, "--name", name)

    def pid(self, name: str) -> int:
        """The process id of `name`."""
        return self._children[name].pid

    def kill(self, name: str) -> None:
        """SIGKILL, and the process is gone."""
        self._children[name].kill()
        self._children[name].wait()

    def pause(self, name: str) -> None:
        """SIGSTOP."""
        self._children[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self._children[name].send_signal(signal.SIGCONT)

    def log(self, name: str) -> str:
        """What the process has written so far."""
        return (self.folder / f"{name}.log").read_text()

    async def says(self, text: str, *names: str) -> str:
        """Wait until the log of one of these processes has the text; return whose."""
        async with asyncio.timeout(_SAYS_SECONDS):
            while True:
                for name in names:
                    if text in self.log(name):
                        return name
                await asyncio.sleep(0.02)  # a file tells nobody that it has grown

    def stop(self) -> None:
        """End every process: SIGTERM, then SIGKILL for what does not end."""
        for child in self._children.values():
            child.send_signal(signal.SIGCONT)
            child.terminate()
        for child in self._children.values():
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def started_processes(
    nats: NatsServer, folder: Path, *, cwd: Path | None = None, **settings: object
) -> Iterator[Processes]:
    """Processes that are all stopped at the end. settings: `CALLBOARD_*` without that prefix."""
    environment = {f"CALLBOARD_{name}": str(value) for name, value in settings.items()}
    processes = Processes(nats, folder, cwd=cwd or folder, environment=environment)
    try:
        yield processes
    finally:
        processes.stop()


async def read_journal(nats: NatsServer) -> list[Record]:
    """Every message of the journal, in order."""
    records: list[Record] = []
    async with open_link(nats.url, name="history") as connection:
        journal = Topology(Subjects(nats.prefix)).journal
        last, _ = await last_sequence(connection, journal)
        async with Reader(connection, journal, start=1, callback=records.extend) as reader:
            async with asyncio.timeout(_READ_SECONDS):
                await reader.reached(last)
    return records
