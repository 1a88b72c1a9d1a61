"""What a child process has used and has, by the kernel's figures, for a host that waits for them.

They are read once, when an outcome is on its way; a child that has just been killed has none.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass

from callboard_agents.sandbox.grant import Grant

__all__ = ["Figures", "figures_of", "keeps_much", "read_kernel", "reset_peak"]

_MOST_KEPT = 0.1  # of the memory that is granted, by a process that runs another task
_RESET_PEAK = b"5"
_READ = 8192  # bytes of a file of /proc
_CPU_OF_PROCESS = 2  # of all its threads: the clock in clock_getcpuclockid(3)
_LOG = logging.getLogger("callboard.host")


@dataclass(frozen=True, slots=True)
class Figures:
    """What a process has used, and has, on the kernel's word. mapped_mb: of its address space,
    which is what is limited."""

    cpu_s: float
    peak_mb: float
    memory_mb: float
    mapped_mb: float
    threads: int


def figures_of(pid: int) -> Figures | None:
    """None: it has been killed in this very moment."""
    try:
        cpu_s = time.clock_gettime(~pid << 3 | _CPU_OF_PROCESS)
        status = read_kernel(f"/proc/{pid}/status")
        mapped = int(status.split(b"VmSize:", 1)[1].split(None, 1)[0])
        peak = int(status.split(b"VmHWM:", 1)[1].split(None, 1)[0])
        resident = int(status.split(b"VmRSS:", 1)[1].split(None, 1)[0])
        threads = int(status.split(b"Threads:", 1)[1].split(None, 1)[0])
    except (OSError, IndexError) as error:
        _LOG.debug("what process %d has used is not known: %s", pid, error)
        return None
    return Figures(cpu_s, peak / 1024, resident / 1024, mapped / 1024, threads)


def keeps_much(newborn: Figures, found: Figures, grant: Grant) -> bool:
    """Whether tasks have left so much that the next one would miss it."""
    kept = max(found.memory_mb - newborn.memory_mb, found.mapped_mb - newborn.mapped_mb)
    return grant.memory_mb is not None and kept > _MOST_KEPT * grant.memory_mb


def reset_peak(pid: int) -> bool:
    """Have the kernel measure the peak of its memory from here on; False: it cannot be had."""
    try:
        descriptor = os.open(f"/proc/{pid}/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        _LOG.debug("the peak of process %d cannot be reset: %s", pid, error)
        return False
    try:
        os.write(descriptor, _RESET_PEAK)
    except OSError as error:  # it is gone in this moment
        _LOG.debug("the peak of process %d cannot be reset: %s", pid, error)
        return False
    finally:
        os.close(descriptor)
    return True


def read_kernel(path: str) -> bytes:
    """Return what a short file of /proc says, in half the time of a file object: outcomes and beats
    wait for it. Raises `OSError` if the process is gone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ)
    finally:
        os.close(descriptor)
