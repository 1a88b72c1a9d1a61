"""How many CPUs this process may really use, and how many agents that is good for.

The machine's CPU count is wrong in a container and under `taskset`: the least of the affinity
mask and every cgroup quota from this process's group up to the root holds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["auto_concurrency", "usable_cpus"]

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")

_AGENTS_PER_CPU = 4
_LEAST_AGENTS = 10


def usable_cpus(*, cgroup_root: Path = _CGROUP_ROOT, membership: Path = _MEMBERSHIP) -> float:
    """Return the CPUs this process may use, e.g. 1.5 under a cgroup quota of 150 ms per 100 ms.

    cgroup_root: where cgroup v2 (or the v1 controllers) is mounted; membership: the file that
    names this process's groups. What cannot be read limits nothing. A few small files are read
    each time, because a quota may change while the process runs.
    """
    cpus = float(_schedulable())
    for quota in _quotas(cgroup_root, membership):
        cpus = min(cpus, quota)
    return cpus


def auto_concurrency(cpus: float | None = None) -> int:
    """Return how many attempts may run at once on `cpus` (default: `usable_cpus()`).

    An agent mostly waits for an LLM or a tool, so a CPU carries four of them; and never fewer
    than 10, the specification's `max_concurrent_agents`, because a small machine's agents wait
    just as long.
    """
    usable = usable_cpus() if cpus is None else cpus
    return max(_LEAST_AGENTS, _AGENTS_PER_CPU * math.ceil(usable))


def _schedulable() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path, membership: Path) -> Iterator[float]:
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            for folder in _upwards(root, group):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                yield from _cpus(quota, period)
        elif "cpu" in controllers.split(","):
            for mount in (root / "cpu", root / controllers):
                for folder in _upwards(mount, group):
                    quota = _read(folder / "cpu.cfs_quota_us")
                    yield from _cpus(quota, _read(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """Yield the group's folder and those above it, up to the mount.

    In a container without a cgroup namespace the named folder does not exist, and the mount
    itself is the process's group; so a missing folder is no error.
    """
    parts = [part for part in group.strip().split("/") if part not in {"", "..", "."}]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _cpus(quota: str, period: str) -> Iterator[float]:
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # `max`, or no such file: no quota
        return
    if cpus > 0:  # v1 says -1 for no quota
        yield cpus


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
