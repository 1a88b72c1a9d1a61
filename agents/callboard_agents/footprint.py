"""What a host costs its machine: its own process, its zygote, the keepers, and what children run.

CPU is what the kernel has counted for each process and for those that it has reaped, so that what
lived and died between two looks counts as well. Memory is what each has for itself: pages that are
shared with the zygote count once. A look takes some microseconds for each process that may have
done something, and no longer than its bound; what it does not come to has the figures of the look
before, and comes first next.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from callboard_agents.sandbox.figures import read_kernel
from callboard_agents.sandbox.living import Living, LivingCell

__all__ = ["Cost", "Footprint"]

_MIB = 1024 * 1024
_APART = 0.25  # seconds between two looks: the kernel tells CPU in hundredths of a second
_BOUND = 0.02  # seconds that a look may take
_MOST_BELOW = 256  # processes of one cell that are looked at
_PARENT, _TIMES, _THREADS = 1, (11, 12, 13, 14), 17  # words of `stat` behind the name


@dataclass(frozen=True, slots=True)
class Cost:
    """cores: that are kept busy. memory_mb: MiB."""

    cores: float = 0.0
    memory_mb: float = 0.0


@dataclass(slots=True)
class _Known:
    """What is known of the host, its zygote or a cell. cpu_s: used until `at`, a monotonic time.
    cores: in use lately. idle: what the cell was like at that time, if it had nothing to do."""

    at: float
    cpu_s: float = 0.0
    cores: float = 0.0
    memory_mb: float = 0.0
    idle: LivingCell | None = None

    def advance(self, cpu_s: float, now: float) -> None:
        """Take what was used until now into account."""
        passed = now - self.at
        self.cores = max(0.0, cpu_s - self.cpu_s) / passed if passed > 0 else 0.0
        self.cpu_s, self.at = cpu_s, now


@dataclass(frozen=True, slots=True)
class _Process:
    """One process on the kernel's word. cpu_s: with those that it has reaped."""

    pid: int
    cpu_s: float
    threads: int


class Footprint:
    """Look about once a second, always from one thread."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._own = _Known(time.monotonic(), time.process_time())
        self._zygote = 0
        self._known: dict[int, _Known] = {}
        self._rest_mb: float | None = None
        self._cost = Cost()

    def look(self, living: Living | None) -> Cost:
        """Return the cores since the last look, and the memory now. living: its child processes;
        None: it has none."""
        now = time.monotonic()
        before = self._own.at
        if now - before < _APART and self._cost.memory_mb:
            return self._cost
        self._own.advance(time.process_time(), now)
        self._own.memory_mb = self._process.memory_info().rss / _MIB
        self._look_below(living, before, now)
        known = (self._own, *self._known.values())
        self._cost = Cost(sum(one.cores for one in known), sum(one.memory_mb for one in known))
        return self._cost

    def _look_below(self, living: Living | None, before: float, now: float) -> None:
        zygote = None if living is None else _read(living.zygote, os.getpid())
        if living is None or zygote is None:
            self._zygote, self._known = 0, {}
            return
        known = self._known
        if zygote.pid != self._zygote:
            self._zygote, self._rest_mb, known, before = zygote.pid, None, {}, -math.inf
        # Of a cell that was begun since the last look, all that was used counts.
        pids = (zygote.pid, *(cell.keeper for cell in living.cells))
        self._known = {pid: known.get(pid) or _Known(before) for pid in pids}
        born_mb = _own_mb(zygote.pid)
        self._known[zygote.pid].advance(zygote.cpu_s, now)
        if self._rest_mb is None:
            self._rest_mb = _rest_mb(living)
        rest_mb = (self._rest_mb or 0.0) * len(living.cells)
        self._known[zygote.pid].memory_mb = born_mb + rest_mb
        for cell in sorted(living.cells, key=lambda one: self._known[one.keeper].at):
            self._look_into(cell, born_mb, now)
            if time.monotonic() - now > _BOUND:
                return

    def _look_into(self, cell: LivingCell, born_mb: float, now: float) -> None:
        known = self._known[cell.keeper]
        idle, known.idle = known.idle, None if cell.busy else cell
        if idle is not None and idle == known.idle:
            known.advance(known.cpu_s, now)
            return
        cpu_s, memory_mb = self._measure(cell, born_mb)
        if cpu_s < known.cpu_s:  # one of them was reaped in this moment
            cpu_s, memory_mb = self._measure(cell, born_mb)
        known.advance(cpu_s, now)
        known.memory_mb = memory_mb

    def _measure(self, cell: LivingCell, born_mb: float) -> tuple[float, float]:
        """Seconds of CPU of the cell's processes until now, and MiB that they have beyond what they
        share. Parents come first: what is reaped meanwhile is missing, and never there twice."""
        keeper = _read(cell.keeper, self._zygote)
        if keeper is None:
            return 0.0, 0.0
        cpu_s, memory_mb = keeper.cpu_s, 0.0
        for process in _below(keeper) if cell.starts else _children(keeper, [cell.child]):
            cpu_s += process.cpu_s
            shares = process.pid == cell.child or not cell.command
            memory_mb += max(0.0, _own_mb(process.pid) - born_mb * shares)
        return cpu_s, memory_mb


def _below(keeper: _Process) -> Iterator[_Process]:
    left, found = [keeper], 0
    while left and found < _MOST_BELOW:
        parent = left.pop()
        for process in _children(parent, _pids_below(parent)):
            found += 1
            left.append(process)
            yield process


def _children(parent: _Process, pids: list[int]) -> Iterator[_Process]:
    for pid in pids:
        process = _read(pid, parent.pid)
        if process is not None:
            yield process


def _pids_below(parent: _Process) -> list[int]:
    folder = Path(f"/proc/{parent.pid}/task")
    try:
        threads = folder.iterdir() if parent.threads > 1 else [folder / str(parent.pid)]
        found = [read_kernel(f"{thread}/children").split() for thread in threads]
    except OSError:  # it has just ended
        return []
    return [int(pid) for pids in found for pid in pids]


def _read(pid: int, parent: int) -> _Process | None:
    """None: it is gone, or that is another process by now."""
    try:
        words = read_kernel(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    if len(words) <= _THREADS or int(words[_PARENT]) != parent:
        return None
    ticks = sum(int(words[number]) for number in _TIMES)
    return _Process(pid, ticks / os.sysconf("SC_CLK_TCK"), int(words[_THREADS]))


def _own_mb(pid: int) -> float:
    """Memory of a process that is no file's: its own, and what it shares with its parent."""
    try:
        _, resident, shared, *_ = read_kernel(f"/proc/{pid}/statm").split()
    except (OSError, ValueError):
        return 0.0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / _MIB


def _rest_mb(living: Living) -> float | None:
    """What a keeper and its child have for themselves before any task; all are alike. None: no
    child waits for its first task at this moment."""
    for cell in living.cells:
        if cell.child and not cell.busy and not cell.tasks:
            return _private_mb(cell.keeper) + _private_mb(cell.child)
    return None


def _private_mb(pid: int) -> float:
    """What a process shares with nobody; costly. 0 where the kernel does not let this one look."""
    try:
        lines = read_kernel(f"/proc/{pid}/smaps_rollup").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith(b"Private_")) / 1024
