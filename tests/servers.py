"""Where the integration tests' NATS server comes from: embedded, a container, or an existing one.

The embedded server is the default, fresh for each test. Tests marked `docker` run in a container
built from the same binary. With CALLBOARD_TEST_NATS_URL all others use that server: it may hold
other people's data, so a test names everything it creates after `NatsServer.prefix`.

What a machine lacks skips its tests with the reason; CALLBOARD_REQUIRE (comma separated, such as
`docker,postgres`) turns these skips into failures, so that CI cannot pass by skipping.
"""

from __future__ import annotations

import functools
import io
import os
import socket
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import docker
import docker.errors
import docker.utils
import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy

import callboard.testing
from callboard.testing import nats_server
from callboard_broker.server import EmbeddedServer, server_binary

__all__ = ["EVERY_SOURCE", "NatsServer", "open_server", "require"]

# @pytest.mark.parametrize("nats", EVERY_SOURCE, indirect=True) runs a test on each source.
EVERY_SOURCE = ["embedded", pytest.param("container", marks=pytest.mark.docker)]

_IMAGE = "callboard-tests/nats-server:latest"
_DOCKERFILE = b'FROM scratch\nCOPY nats-server /nats-server\nENTRYPOINT ["/nats-server"]\n'
_CLIENT_PORT, _MONITOR_PORT = 4222, 8222
_ENGINE_SECONDS = 5


def require(what: str, reason: str) -> NoReturn:
    """Skip this test for `reason`, or fail it if CALLBOARD_REQUIRE names `what`."""
    required = {name.strip() for name in os.environ.get("CALLBOARD_REQUIRE", "").split(",")}
    if what in required:
        pytest.fail(f"CALLBOARD_REQUIRE names {what}, but: {reason}", pytrace=False)
    pytest.skip(f"{what}: {reason}")


class NatsServer(callboard.testing.NatsServer):
    """The public one; a test that may not kill it is skipped."""

    @property
    def embedded(self) -> EmbeddedServer:
        """The embedded server behind it; the test is skipped where there is none."""
        if self.own is None:
            require("embedded", "this test needs a server that it may kill")
        return self.own


@contextmanager
def open_server(source: str, store: Path) -> Iterator[NatsServer]:
    """Yield a server from `source` (`embedded`, `container` or a URL); stop what was started."""
    if source == "embedded":
        with nats_server(store) as server:
            yield NatsServer(url=server.url, own=server.own)
    elif source == "container":
        with _container() as url:
            yield NatsServer(url=url)
    else:
        yield NatsServer(url=source)


@contextmanager
def _container() -> Iterator[str]:
    unavailable = _build_image()
    if unavailable:
        require("docker", unavailable)
    # Its reaper is an image from a registry, and this context manager cleans up anyway.
    testcontainers_config.ryuk_disabled = True
    ready = HttpWaitStrategy(_MONITOR_PORT, "/healthz").for_status_code(200)
    container = (
        DockerContainer(_IMAGE)
        .with_exposed_ports(_CLIENT_PORT, _MONITOR_PORT)
        .with_command(f"-js -sd /data -m {_MONITOR_PORT}")
        .waiting_for(ready)
    )
    with container:
        host, port = container.get_container_host_ip(), container.get_exposed_port(_CLIENT_PORT)
        yield f"nats://{host}:{port}"


def _knock(address: str) -> None:
    """Raise `OSError` if nothing listens on an engine's Unix socket.

    The docker package would find out too, but leaks a socket then, and warnings are errors here.
    """
    if address.startswith("http+unix://"):
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(address.removeprefix("http+unix://"))


@functools.cache
def _build_image() -> str:
    """Build the image once a session from our own binary; return why not, or an empty string."""
    try:
        _knock(docker.utils.parse_host(os.environ.get("DOCKER_HOST")))
        engine = docker.from_env(timeout=_ENGINE_SECONDS)
    except (OSError, docker.errors.DockerException) as error:
        return f"no Docker engine answers ({error})"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        for name, content in (
            ("Dockerfile", _DOCKERFILE),
            ("nats-server", server_binary().read_bytes()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    context.seek(0)
    try:
        engine.images.build(fileobj=context, custom_context=True, tag=_IMAGE, rm=True)
    except docker.errors.DockerException as error:
        return f"the Docker engine cannot build the image ({error})"
    finally:
        engine.close()
    return ""
