"""Limits that the kernel keeps for each process by itself; every Unix has them."""

from __future__ import annotations

import math
import resource

from callboard_agents.sandbox.grant import Grant

__all__ = ["MIB", "THREADS", "limit_cpu", "limit_this_process", "user_tasks"]

MIB = 1024 * 1024
THREADS = 64
"""Threads of a child that may be one process only."""


def limit_this_process(grant: Grant, *, has_bytes: int, tasks: int | None) -> None:
    """Set the limits of `grant` but that of CPU, for this process and what it starts; none can be
    raised again.

    has_bytes: the address space that it has already. tasks: how many threads and processes its
    user may have; None: as many as before (root is never limited).
    """
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: grant.files,
        resource.RLIMIT_FSIZE: int(grant.disk_mb * MIB),
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    if grant.memory_mb is not None:
        wanted[resource.RLIMIT_AS] = has_bytes + int(grant.memory_mb * MIB)
    if tasks is not None:
        wanted[resource.RLIMIT_NPROC] = tasks
    for name, most in wanted.items():
        hard = resource.getrlimit(name)[1]
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)  # noqa: PLW2901  a host may be limited itself
        resource.setrlimit(name, (most, most))


def limit_cpu(grant: Grant, *, used: float = 0.0, most_used: int = 0) -> None:
    """Set the limit of CPU seconds of this process's task; the kernel counts from the process's
    birth, in whole seconds.

    used: seconds that tasks before have taken. most_used: how many that may be before the last
    task, so that the limit can still be set for that one.
    """
    if grant.cpu_seconds is not None:
        soft = math.ceil(grant.cpu_seconds + used)
        resource.setrlimit(
            resource.RLIMIT_CPU, (soft, math.ceil(grant.cpu_seconds) + most_used + 1)
        )


def user_tasks(grant: Grant, *, counted: bool) -> int:
    """Return the threads and processes that a user of its own may have under `grant`. counted: a
    control group refuses one more, and counts that; it shall be the first to do so."""
    return (grant.processes if grant.processes > 1 else THREADS) + counted
