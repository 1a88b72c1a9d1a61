"""The settings of one agent host."""

from __future__ import annotations

import os
import re
import secrets
import socket
from dataclasses import dataclass, field, fields

import msgspec

from callboard_agents.child_limits import ChildLimits
from callboard_agents.log_options import LogOptions
from callboard_agents.policy import Policy
from callboard_broker.endpoint import Endpoint
from callboard_broker.errors import BadInput
from callboard_broker.subjects import SHARED_POOL, check_host, check_token

__all__ = ["OWN_KEY", "HostOptions", "host_name"]

OWN_KEY = "own"
"""`HostOptions.signing`: with a key that lives as long as the process."""


def host_name() -> str:
    """Return `<node>-<pid>-<random>`, as a subject may have it: in containers every pid is 1."""
    node = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().lower()).strip("-")
    return f"{node[:40] or 'host'}-{os.getpid()}-{secrets.token_hex(2)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    """What a host is started with. Raises `BadInput` that names the field."""

    url: str
    """The NATS server, `nats://host:port`."""
    prefix: str = "cb"
    """The board's prefix of subjects."""
    pool: str = SHARED_POOL
    """Whose work this host does: `shared`, or one tenant's."""
    name: str = field(default_factory=host_name)
    """Unlike any other host's in its pool, and no number. By default `<node>-<pid>-<random>`."""
    incarnation: str = ""
    """Given by a supervisor that will report this process's death; else made up."""
    beat_seconds: float = 1.0
    """From one beat to the next."""
    lease_seconds: float = 20.0
    """How long the host may work without an acknowledged beat; the router's setting."""
    hung_seconds: float = 30.0
    """With a supervisor: how long the thread of the beats may stand still before the process counts
    as hung, and is killed and started again; three beats at the least."""
    drain_seconds: float = 30.0
    """How long running handlers may take to finish after SIGTERM."""
    blob_bytes: int = 32 * 1024
    """Longer results go to the blob store, and the outcome names them."""
    slots_inline: int = 100
    """Attempts at once of an inline agent that says nothing else."""
    slots_thread: int = 8
    """Attempts, and threads, of a thread agent that says nothing else."""
    timeout_seconds: float = 300.0
    """How long a handler may run if neither its agent nor the task says so."""
    cpus: float = 0.0
    """Cores that its attempts together may be promised; 0: all that this process may use."""
    memory_mb: float = 0.0
    """MiB that its attempts together may be promised; 0: all that this process may use."""
    limits: ChildLimits = field(default_factory=ChildLimits)
    """What holds for handlers in child processes whose agents say nothing else."""
    policy: Policy = field(default_factory=Policy)
    """How far the work of tenants is kept apart."""
    metrics: Endpoint | None = None
    """Where its metrics are shown; None: nowhere."""
    signing: str = ""
    """How outcomes are signed: empty: they are not; `own`: with a key made at the start; else the
    file of a private key, made if there is none."""
    log: LogOptions = field(default_factory=LogOptions)
    """What it says of itself, and how much of what its handlers log it passes on."""
    middleware: tuple[str, ...] = ()
    """Around every attempt of a handler, the first outermost: `package.module:name`, or
    `path/to/file.py:name`. The middleware of the agents' own modules comes after it."""

    def __post_init__(self) -> None:
        check_token(self.prefix, "prefix")
        check_token(self.pool, "pool")
        check_host(self.name, "name")
        for name in ("beat_seconds", "lease_seconds", "hung_seconds", "timeout_seconds"):
            if not getattr(self, name) > 0:
                raise BadInput(name, "must be above 0 seconds")
        for name in ("slots_inline", "slots_thread", "blob_bytes"):
            if getattr(self, name) < 1:
                raise BadInput(name, "must be at least 1")
        for name in ("drain_seconds", "cpus", "memory_mb"):
            if getattr(self, name) < 0:
                raise BadInput(name, "must not be negative")
        if self.lease_seconds < 2 * self.beat_seconds:
            raise BadInput("lease_seconds", "must be at least two beats, or one late beat ends it")

    def arguments(self) -> list[str]:
        """The flags of `python -m callboard_agents` that mean the same.

        Without the URL, which may hold a password: a command line is there for everyone to read.
        """
        return [
            f"--{each.name.replace('_', '-')}={_written(getattr(self, each.name))}"
            for each in fields(self)
            if each.name != "url"
        ]


def _written(value: object) -> str:
    if isinstance(value, ChildLimits | Policy | Endpoint | LogOptions | tuple | None):
        return msgspec.json.encode(value).decode()
    return str(value)
