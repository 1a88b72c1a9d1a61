from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nats as nats_py
import psutil
import pytest

from callboard_broker import child
from callboard_broker.errors import BadInput, ServerFailed, StoreLocked
from callboard_broker.server import EmbeddedServer, ServerOptions, server_binary
from tests.servers import EVERY_SOURCE, NatsServer, require

PARENT = """
import signal, sys
from pathlib import Path
from callboard_broker.server import EmbeddedServer, ServerOptions
server = EmbeddedServer(ServerOptions(store=Path(sys.argv[1])))
server.start()
print(server.pid, server.url, flush=True)
signal.pause()
"""


# Without these nats-py tries a refused address sixty times, two seconds apart, also with
# allow_reconnect=False; 0 attempts mean for ever.
ONCE: dict[str, Any] = {
    "allow_reconnect": False,
    "connect_timeout": 3,
    "max_reconnect_attempts": 1,
    "reconnect_time_wait": 0.01,
}


async def publish(url: str, stream: str, data: bytes) -> None:
    client = await nats_py.connect(url, **ONCE)
    async with client:
        stream_context = client.jetstream()
        await stream_context.add_stream(name=stream, subjects=[f"{stream}.>"])
        await stream_context.publish(f"{stream}.x", data)


async def last(url: str, stream: str) -> bytes | None:
    client = await nats_py.connect(url, **ONCE)
    async with client:
        return (await client.jetstream().get_last_msg(stream, f"{stream}.x")).data


@contextmanager
def watched(pid: int) -> Iterator[Callable[[], bool]]:
    """Yield a function that waits until process `pid` has ended (False: it has not, in 10 s).

    Whatever the answer, the process is gone afterwards.
    """
    descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield lambda: bool(poll.poll(10_000))
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


@pytest.mark.parametrize("nats", EVERY_SOURCE, indirect=True)
async def test_a_server_of_every_source_stores_and_answers(nats: NatsServer):
    await publish(nats.url, nats.prefix, b"hello")
    assert await last(nats.url, nats.prefix) == b"hello"


def test_the_binary_is_found_without_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    assert os.access(server_binary(), os.X_OK)


def test_a_second_server_on_the_same_store_is_refused_by_name(tmp_path: Path):
    with EmbeddedServer(ServerOptions(store=tmp_path / "store")) as first:
        second = EmbeddedServer(ServerOptions(store=tmp_path / "store"))
        with pytest.raises(StoreLocked) as refusal:
            second.start()
        message = str(refusal.value)
        assert str(tmp_path / "store") in message
        assert f"process {os.getpid()} (nats-server {first.pid} at {first.url})" in message
        assert not second.running
        assert first.running


def test_the_lock_lasts_as_long_as_the_server_itself(tmp_path: Path):
    with EmbeddedServer(ServerOptions(store=tmp_path / "store")) as orphan:
        assert orphan._store._lock is not None
        os.close(orphan._store._lock)  # as if its owner had gone without taking it along
        orphan._store._lock = None
        other = EmbeddedServer(ServerOptions(store=tmp_path / "store"))
        with pytest.raises(StoreLocked):
            other.start()
        orphan.kill()
        with other:
            assert other.running


def test_a_taken_port_is_refused_with_a_hint(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = EmbeddedServer(ServerOptions(store=tmp_path / "store", port=port))
        with pytest.raises(ServerFailed, match=rf"port {port} on 127.0.0.1 is taken.*--port"):
            server.start()
    with server:
        assert server.url == f"nats://127.0.0.1:{port}"


def test_a_server_that_ends_at_its_start_tells_its_last_words(tmp_path: Path):
    options = ServerOptions(store=tmp_path / "store", extra={"lame_duck_duration": "1s"})
    with pytest.raises(ServerFailed, match=r"(?s)ended at its start.*lame.duck"):
        EmbeddedServer(options).start()
    with EmbeddedServer(ServerOptions(store=tmp_path / "store")) as server:
        assert server.running


def test_a_setting_that_callboard_owns_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match="extra: jetstream"):
        ServerOptions(store=tmp_path, extra={"jetstream": False})


def test_the_server_dies_with_its_parent(tmp_path: Path):
    argv = [sys.executable, "-c", PARENT, str(tmp_path / "store")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, url = parent.stdout.readline().split()
        with watched(int(pid)) as ended:
            asyncio.run(publish(url, "kept", b"before"))
            parent.kill()
            assert ended()
    with EmbeddedServer(ServerOptions(store=tmp_path / "store")) as server:
        assert asyncio.run(last(server.url, "kept")) == b"before"


def test_a_terminals_interrupt_does_not_reach_the_server(nats: NatsServer):
    assert os.getpgid(nats.embedded.pid) != os.getpgid(0)
    assert os.getsid(nats.embedded.pid) != os.getsid(0)


async def test_a_restart_keeps_url_and_data(nats: NatsServer):
    url, pid = nats.url, nats.embedded.pid
    await publish(url, nats.prefix, b"before")
    nats.restart()
    assert nats.embedded.url == url
    assert nats.embedded.pid != pid
    assert await last(url, nats.prefix) == b"before"


async def test_a_killed_server_comes_back_with_its_data(nats: NatsServer):
    await publish(nats.url, nats.prefix, b"before")
    nats.kill()
    assert not nats.embedded.running
    with pytest.raises(StoreLocked):
        EmbeddedServer(ServerOptions(store=nats.embedded.options.store)).start()
    nats.restart()
    assert await last(nats.url, nats.prefix) == b"before"


async def test_a_client_reconnects_after_a_restart(nats: NatsServer):
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    async def lost(_: Exception) -> None:
        """Say nothing: the loss is the point."""

    client = await nats_py.connect(
        nats.url, reconnect_time_wait=0.05, reconnected_cb=reconnected, error_cb=lost
    )
    try:
        nats.kill()
        nats.restart()
        await asyncio.wait_for(back.wait(), 10)
    finally:
        await client.close()  # not `async with`: to drain a lost connection takes for ever


async def test_a_supervisor_notices_a_death_and_starts_it_again(tmp_path: Path):
    async with EmbeddedServer(ServerOptions(store=tmp_path / "store", sync="always")) as server:
        url = server.url
        await publish(url, "kept", b"before")
        os.kill(server.pid, signal.SIGKILL)
        assert await asyncio.wait_for(server.wait(), 10) == -signal.SIGKILL
        await server.astart()
        assert await last(url, "kept") == b"before"


async def test_a_cancelled_start_leaves_no_server_and_no_lock(tmp_path: Path):
    server = EmbeddedServer(ServerOptions(store=tmp_path / "store"))
    start = asyncio.ensure_future(server.astart())
    await asyncio.sleep(0)  # one turn of the loop: the child is spawned, and not ready yet
    assert server.running
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not server.running
    with EmbeddedServer(ServerOptions(store=tmp_path / "store")) as other:
        assert other.running


def test_stop_leaves_no_process_and_releases_the_store(tmp_path: Path):
    server = EmbeddedServer(ServerOptions(store=tmp_path / "store"))
    server.start()
    server.stop()
    assert not server.running
    assert not psutil.pid_exists(server.pid)
    with EmbeddedServer(ServerOptions(store=tmp_path / "store")) as other:
        assert other.running
    server.stop()  # a second one does nothing


def test_the_store_is_private(tmp_path: Path):
    store = tmp_path / "store"
    store.mkdir(mode=0o755)
    with EmbeddedServer(ServerOptions(store=store)):
        assert stat.S_IMODE(store.stat().st_mode) == 0o700
        for name in ("lock", "nats-server.conf", "nats-server.log"):
            assert stat.S_IMODE((store / name).stat().st_mode) == 0o600, name


def test_a_shared_directory_with_other_files_is_not_made_private(tmp_path: Path):
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ServerFailed, match="directory of its own"):
        EmbeddedServer(ServerOptions(store=tmp_path)).start()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path):
    script = "trap '' TERM; echo ready; while :; do read x < /dev/zero; done"
    os.mkfifo(tmp_path / "told")
    process = child.start(["sh", "-c", f"exec > '{tmp_path}/told' 2>&1; {script}"])
    with (tmp_path / "told").open() as told:
        assert told.readline() == "ready\n"
        assert child.stop(process, grace_seconds=0.1) == -signal.SIGKILL


def test_what_is_required_fails_instead_of_skipping(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CALLBOARD_REQUIRE", "postgres, docker")
    with pytest.raises(pytest.fail.Exception, match="no engine"):
        require("docker", "no engine")
    with pytest.raises(pytest.skip.Exception, match="no engine"):
        require("podman", "no engine")
