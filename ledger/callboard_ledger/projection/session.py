"""What a projector is started with, and what its parts share while it runs."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path

from callboard_broker.connection import Connection
from callboard_broker.endpoint import Endpoint
from callboard_broker.errors import BadInput
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_ledger.projection.batch import Beside
from callboard_ledger.projection.delivery import Standing
from callboard_ledger.projection.target import Target

__all__ = ["ProjectorOptions", "Session"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectorOptions:
    """What a projector is started with. Raises `BadInput`."""

    url: str
    """The NATS server, or several separated by commas."""
    prefix: str = "cb"
    """The board: the first token of its subjects."""
    replicas: int = 1
    """Copies of each stream that it has to create, and the least of one that is there."""
    name: str = "projector"
    """Of its bookmark: two projectors of one board, into two databases, have two names."""
    batch: int = 500
    """Events of one transaction at most."""
    flush_seconds: float = 0.1
    """How long an event may wait for others to be written with."""
    event_bytes: int = 4096
    """Bytes of an event's body above which only its hash is kept."""
    ledger: Path | None = None
    """A ledger's directory: where the rows are whose events have left the journal before this
    database was first written to."""
    metrics: Endpoint | None = None
    """Where its metrics are shown; None: nowhere."""

    def __post_init__(self) -> None:
        Subjects(self.prefix)
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", self.name):
            raise BadInput("name", "must be 1 to 64 of a-z, 0-9, - and _, and begin with neither")
        if not 1 <= self.batch <= 5000:
            raise BadInput("batch", "must be 1 to 5,000 events")
        if not 0.001 <= self.flush_seconds <= 60:
            raise BadInput("flush_seconds", "must be 0.001 to 60 seconds")
        if not 0 <= self.event_bytes <= 1_000_000:
            raise BadInput("event_bytes", "must be 0 to 1,000,000 bytes")


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a projector. stopped: set when it is to end. beside: what else it writes.
    standing: how it does."""

    options: ProjectorOptions
    connection: Connection
    topology: Topology
    target: Target
    stopped: asyncio.Event
    beside: Beside | None = None
    standing: Standing = field(default_factory=Standing)
