"""A real NATS server for a test: the one that Callboard ships, on a free port and a store of its
own.

It is a process that a test may kill and start again on the same data and URL; it ends with the
block, and with the process that started it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from callboard_broker.errors import CallboardError
from callboard_broker.server import EmbeddedServer, ServerOptions

__all__ = ["NatsServer", "NotStartedHere", "nats_server"]


class NotStartedHere(CallboardError, LookupError):
    """The test wants to kill a server that somebody else runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsServer:
    """A server to test against; `.url` for clients, `.prefix` (one token) for names of its own.

    own: the process behind it; None if somebody else runs it.
    """

    url: str
    prefix: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:12]}")
    own: EmbeddedServer | None = None

    @property
    def embedded(self) -> EmbeddedServer:
        """The process behind it. Raises `NotStartedHere`."""
        if self.own is None:
            raise NotStartedHere(f"the server at {self.url} was not started by this test")
        return self.own

    def kill(self) -> None:
        """Kill the server (SIGKILL). Its data, its URL and the lock on its store remain."""
        self.embedded.kill()

    def stop(self) -> None:
        """Stop the server in order and release its store."""
        self.embedded.stop()

    def restart(self) -> None:
        """Start the server again on the same data and URL, stopping it first if it runs."""
        self.embedded.restart()


@contextmanager
def nats_server(store: Path) -> Iterator[NatsServer]:
    """Start a server with JetStream that keeps its data in `store`, and stop it at the end.

    Raises `ServerFailed`.
    """
    with EmbeddedServer(ServerOptions(store=store)) as server:
        yield NatsServer(url=server.url, own=server)
