"""What a child process may use, what it is told of its task, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from msgspec import UNSET, Raw, UnsetType

from callboard_agents.command import Command
from callboard_broker.wire import Failure, Usage

__all__ = ["TIRED_CPU_S", "CellPlan", "Ending", "Grant", "Heard", "TaskHeader", "Usage"]

TIRED_CPU_S = 1
"""A child that has used so many seconds of CPU runs no other task. The kernel counts its limit from
its birth: a task in other hands may so exceed its own by this much and no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The limits of one child; None: none.

    memory_mb: beyond what it has when it is forked. cpu: cores at a time, where there are cgroups.
    cpu_seconds: of each of its processes. disk_mb: in its own folder. output_mb: of its result.
    files: open at once. processes: with itself; from 2 on, threads count as well.
    """

    memory_mb: float | None = 1024.0
    cpu: float | None = None
    cpu_seconds: float | None = None
    disk_mb: float = 256.0
    output_mb: float = 64.0
    files: int = 256
    processes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CellPlan:
    """The children of one agent. slots: how many may run; spares: how many more are kept ready.

    read: paths that they may read (and run), beside Python's own and those of the agents' modules.
    network: whether they may open connections. command: what is run instead of the agent's handler;
    it reads less: the system's programs, Python's, and its own paths. middleware: where the host's
    own is, outermost first. tasks_per_child: attempts of one tenant that a child may run, one after
    the other.
    """

    capability: str
    grant: Grant = field(default_factory=Grant)
    slots: int = 8
    spares: int = 2
    read: tuple[str, ...] = ()
    network: bool = False
    command: Command | None = None
    middleware: tuple[str, ...] = ()
    tasks_per_child: int = 1


class TaskHeader(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a child is told of the attempt that it runs, beside the payload.

    seconds: until its deadline. restored: the checkpoint of an earlier attempt. heartbeat: seconds
    within which it must give a sign of life. root, trace: see `Dispatch`. level: the least that is
    worth logging.
    """

    task: str
    attempt: int
    tenant: str
    capability: str
    seconds: float
    restored: Raw | UnsetType = UNSET
    heartbeat: float | None = None
    root: str = ""
    trace: str = ""
    level: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a child ended: with a result (JSON, as the child wrote it: not to be trusted) or a
    failure, never both. layers: what stood between it and its host."""

    result: bytes | None = None
    failure: Failure | None = None
    usage: Usage = field(default_factory=Usage)
    layers: tuple[str, ...] = ()


class Heard(Protocol):
    """What a child says; called on the host's loop. Bytes come from the child: not to be trusted,
    but bounded (64 KiB where nothing else is said)."""

    def told(self, kind: str, data: bytes) -> None:
        """It says something: `progress`, `output`, `log`, `heartbeat` or `used`."""

    def asked(self, number: int, kind: str, data: bytes) -> None:
        """It wants an answer to `number`: `spawn`, `child_result`, `child_cancel`, `blob_put` (up
        to the grant's output_mb), `blob_get` or `checkpoint`."""

    def ended(self, ending: Ending) -> None:
        """It has said its last word, or was reaped without one; said exactly once, and nothing
        after it. Whatever is left of it is being killed."""
