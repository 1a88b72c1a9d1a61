"""How busy the CPUs of this process are, whoever keeps them busy: the machine's or its cgroup's.

Of the machine only the CPUs count that this process may be scheduled on; under a quota, the time
that the whole group has used is compared with it as well, and the greater fraction holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from callboard_agents.groups import (
    CGROUP_ROOT,
    MEMBERSHIP,
    groups_of,
    number_in,
    numbers_in,
    read_file,
)

__all__ = ["CpuLoad"]


class CpuLoad:
    """Ask it every second or so, always from one thread."""

    def __init__(self, *, cgroup_root: Path = CGROUP_ROOT, membership: Path = MEMBERSHIP) -> None:
        self._root = cgroup_root
        self._membership = membership
        self._times = _times()
        self._used: dict[Path, float] = {}
        self._at: float | None = None

    def look(self, now: float) -> float:
        """Return the fraction, 0 to 1, that was busy since the last look. now: monotonic."""
        before, self._times = self._times, _times()
        busy = sum(self._times[cpu][0] - before.get(cpu, (0, 0))[0] for cpu in self._times)
        total = sum(self._times[cpu][1] - before.get(cpu, (0, 0))[1] for cpu in self._times)
        load = busy / total if total > 0 else 0.0
        passed = 0.0 if self._at is None else now - self._at
        self._at = now
        for folder, quota, used in _quotas(self._root, self._membership):
            earlier = self._used.get(folder)
            self._used[folder] = used
            if earlier is not None and passed > 0:
                load = max(load, (used - earlier) / (quota * passed))
        return min(max(load, 0.0), 1.0)


def _times() -> dict[int, tuple[float, float]]:
    """For each CPU that this process may run on: seconds busy, and seconds in all."""
    found = {}
    mine = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    for number, times in enumerate(psutil.cpu_times(percpu=True)):
        if mine is None or number in mine:
            total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
            idle = times.idle + getattr(times, "iowait", 0.0)
            found[number] = (total - idle, total)
    return found


def _quotas(root: Path, membership: Path) -> Iterator[tuple[Path, float, float]]:
    """Yield (group, its quota in cores, the seconds of CPU that it has used)."""
    for version, folder in groups_of("cpu", root, membership):
        if version == 2:
            quota, _, period = read_file(folder / "cpu.max").partition(" ")
            spent = numbers_in(folder / "cpu.stat").get("usage_usec", 0)
            if quota.isdigit() and period.isdigit() and int(quota) and int(period):
                yield folder, int(quota) / int(period), spent / 1e6
        else:
            limit, of, used = (
                number_in(folder / "cpu.cfs_quota_us"),
                number_in(folder / "cpu.cfs_period_us"),
                number_in(folder / "cpuacct.usage"),
            )
            if limit and of and used is not None:
                yield folder, limit / of, used / 1e9
