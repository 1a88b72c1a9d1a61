"""The memory of this process: the least of its machine and of each of its cgroups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from callboard_agents.groups import CGROUP_ROOT, MEMBERSHIP, groups_of, number_in, numbers_in

__all__ = ["free_memory_mb", "total_memory_mb"]

_MIB = 1024 * 1024
_FILES = {  # by the version of cgroups: limits, in use, and what the kernel would drop first
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
    2: (("memory.max", "memory.high"), "memory.current", "inactive_file"),
}


def free_memory_mb(*, cgroup_root: Path = CGROUP_ROOT, membership: Path = MEMBERSHIP) -> float:
    """Return the MiB that can still be allocated without swapping or being killed.

    File pages that the kernel would drop first count as free. A few small files are read each
    time; what cannot be read limits nothing.
    """
    free = float(psutil.virtual_memory().available)
    for left in _left_in_groups(cgroup_root, membership):
        free = min(free, left)
    return max(free, 0.0) / _MIB


def total_memory_mb(*, cgroup_root: Path = CGROUP_ROOT, membership: Path = MEMBERSHIP) -> float:
    """Return the MiB that this process and its neighbours in the same groups may use in all."""
    total = psutil.virtual_memory().total
    for version, folder in groups_of("memory", cgroup_root, membership):
        total = min([total, *_limits(folder, _FILES[version][0])])
    return total / _MIB


def _left_in_groups(root: Path, membership: Path) -> Iterator[float]:
    for version, folder in groups_of("memory", root, membership):
        limit_files, used_file, droppable = _FILES[version]
        limits, used = _limits(folder, limit_files), number_in(folder / used_file)
        if limits and used is not None:
            yield min(limits) - used + numbers_in(folder / "memory.stat").get(droppable, 0)


def _limits(folder: Path, names: tuple[str, ...]) -> list[int]:
    """Where the kernel ends a process, and where it begins to hold all of them up."""
    return [limit for name in names if (limit := number_in(folder / name)) is not None]
