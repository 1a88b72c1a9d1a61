"""A cluster of three real nats-servers, each of which a test may kill, stop and start again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from callboard_broker import child
from callboard_broker.connection import ApiError, Connection
from callboard_broker.server import server_binary
from tests.servers import NatsServer

__all__ = ["Cluster", "open_cluster"]

_NODES = ("n1", "n2", "n3")
_ANSWER_SECONDS = 2.0


class Cluster:
    """Three nodes. url: the addresses of all."""

    def __init__(self, folder: Path) -> None:
        clients, routes = _free_ports(len(_NODES)), _free_ports(len(_NODES))
        self._folder = folder
        self._configs: dict[str, Path] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.urls: dict[str, str] = {}
        for name, client, route in zip(_NODES, clients, routes, strict=True):
            home = folder / name
            home.mkdir(parents=True)
            config = {
                "server_name": name,
                "host": "127.0.0.1",
                "port": client,
                "jetstream": {"store_dir": str(home)},
                "cluster": {
                    "name": "cluster",
                    "host": "127.0.0.1",
                    "port": route,
                    "routes": [f"nats://127.0.0.1:{port}" for port in routes],
                    "no_advertise": True,
                },
            }
            self._configs[name] = home / "nats.conf"
            self._configs[name].write_text(json.dumps(config))
            self.urls[name] = f"nats://127.0.0.1:{client}"
        self.url = ",".join(self.urls.values())

    def server(self) -> NatsServer:
        """What clients are given, with a prefix that nobody has used yet."""
        return NatsServer(url=self.url)

    def start(self, name: str) -> None:
        """Start a node (again), on its own data."""
        argv = [str(server_binary()), "--config", str(self._configs[name])]
        self._processes[name] = child.start(argv, log=self._folder / f"{name}.log")

    def start_all(self) -> None:
        for name in _NODES:
            self.start(name)

    def kill(self, name: str) -> None:
        """SIGKILL; its data remain."""
        child.kill(self._processes[name])

    def pause(self, name: str) -> None:
        os.kill(self._processes[name].pid, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        os.kill(self._processes[name].pid, signal.SIGCONT)

    def stop_all(self) -> None:
        with ExitStack() as stack:
            for process in self._processes.values():
                stack.callback(child.kill, process)

    @staticmethod
    async def leader(connection: Connection, stream: str) -> str:
        """The node that leads `stream` now, or as soon as there is one."""
        async with asyncio.timeout(60):
            while True:
                with suppress(OSError, LookupError, ApiError):
                    info = await connection.api(f"STREAM.INFO.{stream}", timeout=_ANSWER_SECONDS)
                    if found := info.get("cluster", {}).get("leader"):
                        return str(found)
                await asyncio.sleep(0.1)  # an election tells nobody that it is over


@contextmanager
def open_cluster(folder: Path) -> Iterator[Cluster]:
    """Start three nodes; streams can be created on them a second or two later."""
    cluster = Cluster(folder)
    try:
        cluster.start_all()
        yield cluster
    finally:
        cluster.stop_all()


def _free_ports(count: int) -> list[int]:
    """Ports that are free now: a node must keep its own over a restart, and know the others'."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in held]
