"""A whole board on this machine: server, routers, ledger and agents, each a process of its own.

What ends is started again, on the same store and port. At the end the agents drain first, then
ledger, routers and server stop, so that nothing is left that could still be stored. The kernel
ends every process when this one is killed (`callboard_broker.child`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from callboard.census import hosts_there
from callboard.keeper import Keeper, PartFailed
from callboard_agents.options import host_name
from callboard_broker.connection import open_link
from callboard_broker.endpoint import Endpoint
from callboard_broker.errors import ServerFailed
from callboard_broker.logs import LogFormat
from callboard_broker.server import EmbeddedServer, ServerOptions
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects

__all__ = ["PartFailed", "Stack", "StackOptions"]

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_DRAIN_SPARE_SECONDS = 20.0
_AGENTS_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What a board consists of.

    folder: for data and logs; created with mode 0700. url: of a server that runs already; without
    it one is started on host:port. agents: modules, each served by `processes` hosts.
    env: further environment of the Python parts. server_store, ledger_store: other directories.
    metrics: where the first router shows them; the others follow, each at the next port.
    projection: the database that a projector writes to; None: there is no projector.
    log_format: of the parts' files; `auto`: for a person, who reads them.
    """

    folder: Path
    prefix: str = "cb"
    url: str | None = None
    host: str = "127.0.0.1"
    port: int = 0
    sync: Literal["default", "always"] = "default"
    server_store: Path | None = None
    ledger_store: Path | None = None
    routers: int = 1
    agents: Sequence[str] = ()
    processes: int = 2
    drain_seconds: float = 30.0
    env: Mapping[str, str] = field(default_factory=dict)
    metrics: Endpoint | None = None
    projection: str | None = None
    log_format: LogFormat = "auto"

    @property
    def ledger(self) -> Path:
        """The ledger's own directory."""
        return self.ledger_store or self.folder / "ledger"

    @property
    def parts(self) -> list[str]:
        """The Python parts by name."""
        numbers = range(1, self.routers + 1)
        names = ["router"] if self.routers == 1 else [f"router-{n}" for n in numbers]
        further = [
            *(["agents"] if self.agents else []),
            *(["projector"] if self.projection else []),
        ]
        return [*names, "ledger", *further]

    @property
    def shown(self) -> dict[str, str]:
        """The address of each part's metrics, if they are shown at all."""
        first, parts = self.metrics, self.parts
        return {} if first is None else {p: first.plus(n).url for n, p in enumerate(parts)}

    def metrics_of(self, part: str) -> list[str]:
        """The option by which a part is told where to show them."""
        if self.metrics is None:
            return []
        return ["--metrics", str(self.metrics.plus(self.parts.index(part)).port)]


class Stack:
    """`async with` starts everything and returns when all of it is ready; the end stops
    everything in order. `wait` raises when a part cannot be kept alive.

    told: hears what happens, as (part, text). Start it from the main thread. Raises
    `ServerFailed`, `StoreLocked`, `PartFailed`.
    """

    def __init__(self, options: StackOptions, told: Callable[[str, str], None]) -> None:
        self.options = options
        self.url = options.url or ""
        self._told = told
        self._server: EmbeddedServer | None = None
        self._keepers: list[Keeper] = []
        self._hosts: Keeper | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._pool = host_name()
        self._stopping = False

    @property
    def parts(self) -> dict[str, int]:
        """Process ids by part, of those that live now."""
        found = {keeper.name: pid for keeper in self._keepers if (pid := keeper.pid) is not None}
        if self._server is not None and self._server.running:
            found = {"nats-server": self._server.pid, **found}
        return found

    @property
    def logs(self) -> Path:
        """The directory of the parts' logs."""
        return self.options.folder / "logs"

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:  # a cancellation too: without an entry there will be no `__aexit__`
            await self._stop()
            raise
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stop()

    async def wait(self) -> None:
        """Wait until a part fails for good, and raise why."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()

    async def _start(self) -> None:
        options = self.options
        options.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)
        if options.url is None:
            store = options.server_store or options.folder / "nats"
            self._server = EmbeddedServer(
                ServerOptions(store=store, host=options.host, port=options.port, sync=options.sync)
            )
            await self._server.astart()
            self.url = self._server.url
            self._tasks.append(asyncio.create_task(self._keep_server(self._server)))
        for keeper in self._make_keepers():
            self._keepers.append(keeper)
            self._tasks.append(asyncio.create_task(keeper.keep(), name=keeper.name))
        ready = asyncio.create_task(self._all_ready())
        try:
            await asyncio.wait([ready, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in self._tasks:
                if task.done():
                    task.result()
        finally:
            ready.cancel()
            await asyncio.wait([ready])

    async def _all_ready(self) -> None:
        for keeper in self._keepers:
            await keeper.ready.wait()
        names = [f"{self._pool}-{number}" for number in range(self.options.processes)]
        if not self.options.agents:
            return
        try:
            async with (
                asyncio.timeout(_AGENTS_SECONDS),
                open_link(self.url, name="callboard up") as connection,
            ):
                topology = Topology(Subjects(self.options.prefix))
                await hosts_there(connection, topology, names)
        except TimeoutError:
            log = self._log("agents")
            self._told("agents", f"not all of them are there after {_AGENTS_SECONDS} s; see {log}")

    def _make_keepers(self) -> list[Keeper]:
        options = self.options
        place = ["--prefix", options.prefix]
        # The URL may hold a password, and a command line is there for every user to read.
        env = {**os.environ, **options.env, "CALLBOARD_NATS_URL": self.url}
        env.pop("CALLBOARD_NATS__URL", None)
        env.update(_for_a_person(options.log_format))
        keepers = [
            Keeper(
                name,
                ["router", *place, *options.metrics_of(name)],
                log=self._log(name),
                env=env,
                told=self._told,
            )
            for name in options.parts[: options.routers]
        ]
        keepers.append(
            Keeper(
                "ledger",
                ["ledger", *place, "--store", str(options.ledger), *options.metrics_of("ledger")],
                log=self._log("ledger"),
                env=env,
                told=self._told,
            )
        )
        if options.projection is not None:
            seed = (
                ["--ledger", str(options.ledger)] if (options.ledger / "ledger.db").exists() else []
            )
            keepers.append(
                Keeper(
                    "projector",
                    ["projector", *place, *seed, *options.metrics_of("projector")],
                    log=self._log("projector"),
                    env={**env, "CALLBOARD_PROJECTION__TO": options.projection},
                    told=self._told,
                )
            )
        if options.agents:
            count = str(options.processes)
            name = ["--name", self._pool, *options.metrics_of("agents")]
            self._hosts = Keeper(
                "agents",
                ["agents", "run", *options.agents, "--processes", count, *place, *name],
                log=self._log("agents"),
                env=env,
                told=self._told,
                tells_ready=False,
                grace_seconds=options.drain_seconds + _DRAIN_SPARE_SECONDS,
            )
            keepers.append(self._hosts)
        return keepers

    def _log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    async def _keep_server(self, server: EmbeddedServer) -> None:
        pause = _FIRST_PAUSE
        while True:
            code = await server.wait()
            if self._stopping:
                return
            self._told("nats-server", f"ended (code {code}); it starts again on {self.url}")
            while True:
                try:
                    await server.astart()
                    break
                except ServerFailed as error:
                    self._told("nats-server", f"does not start: {error}")
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _LONGEST_PAUSE)
            pause = _FIRST_PAUSE

    async def _stop(self) -> None:
        self._stopping = True
        try:
            order = sorted(self._keepers, key=lambda keeper: _STOPS.index(_kind(keeper.name)))
            for keeper in order:
                await keeper.stop()
        finally:
            for keeper in self._keepers:
                keeper.kill()
            for task in self._tasks:
                task.cancel()
            if self._server is not None:
                self._server.stop()
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _for_a_person(form: LogFormat) -> dict[str, str]:
    """A part's file is no terminal, so that `auto` would make it JSON."""
    return {"CALLBOARD_LOG__FORMAT": "console"} if form == "auto" else {}


_STOPS = ("agents", "ledger", "projector", "router")


def _kind(name: str) -> str:
    return name.partition("-")[0]
