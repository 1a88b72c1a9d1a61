"""How much memory is left to this process: the least of its machine and of each of its cgroups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["free_memory_mb"]

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_MIB = 1024 * 1024


def free_memory_mb(*, cgroup_root: Path = _CGROUP_ROOT, membership: Path = _MEMBERSHIP) -> float:
    """Return the MiB that can still be allocated without swapping or being killed.

    File pages that the kernel would drop first count as free. cgroup_root, membership: as for
    `usable_cpus`. A few small files are read each time; what cannot be read limits nothing.
    """
    free = float(psutil.virtual_memory().available)
    for left in _left_in_groups(cgroup_root, membership):
        free = min(free, left)
    return max(free, 0.0) / _MIB


def _left_in_groups(root: Path, membership: Path) -> Iterator[float]:
    for line in _read(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            for folder in _upwards(root, group):
                files = ("memory.max", "memory.current", "inactive_file")
                yield from _left(folder, *files)
        elif "memory" in controllers.split(","):
            for folder in _upwards(root / "memory", group):
                files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                yield from _left(folder, *files)


def _left(folder: Path, limit: str, used: str, droppable: str) -> Iterator[float]:
    try:
        left = int(_read(folder / limit)) - int(_read(folder / used))
    except ValueError:  # `max`, or no such file: no limit
        return
    for line in _read(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == droppable and value.isdigit():
            left += int(value)
    yield left


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """Yield the group's folder and those above it; one that does not exist limits nothing."""
    parts = [part for part in group.strip().split("/") if part not in {"", "..", "."}]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
