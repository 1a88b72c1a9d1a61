"""A board of `deploy/compose.yaml` for tests: its own project, password and port.

Images that no registry gives: DEPLOY_BASE_IMAGE names one with python3 to build on (and
DEPLOY_BUILDER_IMAGE one with pip, if that is another), and without the official NATS image the
server is the one in Callboard's own.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.utils
from docker.models.containers import Container

from tests.servers import require

__all__ = ["DEPLOY", "Project", "base_image", "compose_command", "open_engine", "open_project"]

DEPLOY = Path(__file__).parents[1] / "deploy"

_BASE = "python:3.13-slim-bookworm"
_NATS = "nats:2.15.1-alpine"
_SECONDS = 60
_UNREACHABLE = 3  # the exit code of the `callboard` command
_COMPOSE_SECONDS = 300


@contextmanager
def open_engine() -> Iterator[docker.DockerClient]:
    """The engine on this machine; the test is skipped where none answers."""
    address = docker.utils.parse_host(os.environ.get("DOCKER_HOST"))
    if not address.startswith("http+unix://"):
        require("docker", f"the board is published on the loopback of {address}, not on ours")
    try:
        # The docker package leaks a socket when it finds out itself, and warnings are errors.
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(address.removeprefix("http+unix://"))
        engine = docker.from_env(timeout=_COMPOSE_SECONDS)
    except (OSError, docker.errors.DockerException) as error:
        require("docker", f"no Docker engine answers ({error})")
    try:
        yield engine
    finally:
        engine.close()


def base_image(engine: docker.DockerClient) -> dict[str, str]:
    """Build arguments that name a base which the engine has or gets; else the test is skipped."""
    if given := os.environ.get("DEPLOY_BASE_IMAGE"):
        return {"BASE": given, "BUILDER": os.environ.get("DEPLOY_BUILDER_IMAGE", given)}
    if not _has(engine, _BASE):
        require("registry", f"no registry gives {_BASE}; name a base image in DEPLOY_BASE_IMAGE")
    return {"BASE": _BASE}


def compose_command(folder: Path) -> list[str]:
    """Docker Compose, of either generation; the test is skipped where there is neither.

    It shall not read the `.env` beside our files: it gets an empty one in `folder`.
    """
    empty = folder / "empty.env"
    empty.touch()
    return [*_compose(), "--env-file", str(empty)]


def _compose() -> list[str]:
    if plugin := shutil.which("docker"):
        asked = subprocess.run([plugin, "compose", "version"], capture_output=True, check=False)
        if asked.returncode == 0:
            return [plugin, "compose"]
    single = shutil.which("docker-compose")
    if single is None:
        require("docker", "there is no Docker Compose here")
    return [single]


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One running board. name: of the Compose project; url: where it is reached from here."""

    engine: docker.DockerClient
    command: list[str]
    environment: dict[str, str]
    name: str
    url: str
    folder: Path

    def compose(self, *words: str) -> None:
        """Run a command of Compose on this project. Fails the test with what it said."""
        done = subprocess.run(
            [*self.command, "--project-name", self.name, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_COMPOSE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def submit(self, name: str) -> dict[str, Any]:
        """Post a `hello` from outside and wait for what the agent says."""
        told = self._told("submit", "hello", json.dumps(name), "--wait")
        done: dict[str, Any] = json.loads(told)
        return done

    def listed(self) -> list[dict[str, Any]]:
        """What the ledger knows of tasks."""
        return [json.loads(line) for line in self._told("list").splitlines()]

    def up(self) -> None:
        """Start it, and return when router, ledger and agents are heard: Compose does not wait."""
        self.compose("up", "--detach")
        deadline = time.monotonic() + _SECONDS
        while not self._is_complete():
            assert time.monotonic() < deadline, self._told("status")

    def _is_complete(self) -> bool:
        try:
            told = json.loads(self._told("status"))
        except subprocess.CalledProcessError as error:
            if error.returncode != _UNREACHABLE:
                raise
            return False  # no part has made the streams yet
        return bool(told["routers"] and told["hosts"] and told["ledger"])

    def container(self, service: str) -> Container:
        """The container of a service that runs."""
        filters: dict[str, Any] = {
            "label": [
                f"com.docker.compose.project={self.name}",
                f"com.docker.compose.service={service}",
            ]
        }
        (found,) = self.engine.containers.list(filters=filters)
        return found

    def routers(self) -> tuple[Container, Container]:
        """The active router, and the one that stands by."""
        pair = [self.container("router"), self.container("standby")]
        pair.sort(key=lambda router: b"is now leader" not in router.logs())
        return pair[0], pair[1]

    def leftovers(self) -> list[str]:
        """What of this project the engine still has."""
        mine: dict[str, Any] = {"label": f"com.docker.compose.project={self.name}"}
        engine = self.engine
        return [
            *(str(each.name) for each in engine.containers.list(all=True, filters=mine)),
            *(str(each.name) for each in engine.networks.list(filters=mine)),
            *(str(each.name) for each in engine.volumes.list(filters=mine)),
        ]

    def _told(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "callboard", *words, "--json", "--nats", self.url],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
        return done.stdout


@contextmanager
def open_project(image: str) -> Iterator[Project]:
    """A board from `image`, up when this returns; nothing of it is left at the end."""
    files = [DEPLOY / "compose.yaml"]
    password, port = f"p{secrets.token_hex(12)}", _free_port()
    with open_engine() as engine, tempfile.TemporaryDirectory() as folder:
        if not _has(engine, _NATS):
            files.append(DEPLOY / "compose.bundled-nats.yaml")
        project = Project(
            engine=engine,
            command=[
                *compose_command(Path(folder)),
                *(word for file in files for word in ("--file", str(file))),
            ],
            environment={
                **os.environ,
                "BOARD_IMAGE": image,
                "BOARD_PASSWORD": password,
                "BOARD_PORT": str(port),
            },
            name=f"cbt{secrets.token_hex(4)}",
            url=f"nats://callboard:{password}@127.0.0.1:{port}",
            folder=Path(folder),
        )
        try:
            project.up()
            yield project
        finally:
            project.compose("down", "--volumes", "--remove-orphans", "--timeout", "5")


def _has(engine: docker.DockerClient, image: str) -> bool:
    try:
        engine.images.get(image)
    except docker.errors.ImageNotFound:
        try:
            engine.images.pull(image)
        except docker.errors.APIError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port: int = door.getsockname()[1]
        return port
