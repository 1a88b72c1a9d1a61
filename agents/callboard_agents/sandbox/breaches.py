"""The limit that an error of a handler or the end of a command comes from, with what was measured.

A child measures it itself, when its handler or its program has ended; where nothing goes wrong
nothing is measured. What was closed or removed on the way out is not there any more, and the
message then says what is left.
"""

from __future__ import annotations

import errno
import os
import resource
import signal

from callboard_agents.sandbox.cells import Cell
from callboard_agents.sandbox.grant import Grant
from callboard_agents.sandbox.rlimits import MIB, THREADS
from callboard_broker.wire import Failure

__all__ = ["HELD", "breach_of", "breach_of_end"]

HELD = "the kernel held it to the "
"""How a failure begins whose count only the host can take."""

_MOST_ENTRIES = 10_000  # of a folder that are looked at
_MOST_DESCRIPTORS = 1 << 16
_MOST_STACK = 8 * MIB  # glibc's own where there is no limit is less
_NEARLY = 0.9  # of a limit: so much of it is still there
_TICKED = 0.5  # of the seconds of CPU: the limit is kept by a clock of ticks, which may be ahead
_SHELLS = 128  # a shell's exit code for a signal that has ended what it ran: this and the signal


def breach_of(error: BaseException, grant: Grant, cell: Cell) -> Failure | None:
    """The failure that an error of the handler stands for; None if it is about no limit."""
    if isinstance(error, MemoryError):
        return _memory_exceeded(grant)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return _processes_exceeded(grant, "threads") if _has_stack() else _memory_exceeded(grant)
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return _disk_exceeded(grant, cell, one_file=error.errno == errno.EFBIG)
    if error.errno == errno.EMFILE:  # ENFILE: the whole machine has no more
        return _files_exceeded(grant)
    if error.errno == errno.EAGAIN:
        return _processes_exceeded(grant, "processes")
    if error.errno == errno.ENOMEM:
        return _memory_exceeded(grant)
    return None


def breach_of_end(code: int, grant: Grant, cell: Cell) -> Failure | None:
    """The failure that the end of a command's program stands for; None if no limit of a process or
    of the folder was met that can be seen from outside.

    code: what it exited with, or minus the signal that it died of. A signal of the kernel's own is
    believed at once; where the program, such as a shell, passes on how another one ended, it is
    looked at what that has used.
    """
    limit = grant.cpu_seconds
    if limit is not None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = used.ru_utime + used.ru_stime
        told = code == _SHELLS + signal.SIGXCPU and seconds >= _TICKED * limit
        killed = code in (-signal.SIGKILL, _SHELLS + signal.SIGKILL) and seconds >= limit
        if code == -signal.SIGXCPU or told or killed:
            why = f"{seconds:.2f} s of CPU, of {limit:g} that are granted"
            return Failure("CpuExceeded", why)
    if code == -signal.SIGXFSZ:
        return _disk_exceeded(grant, cell, one_file=True)
    folder = _reachable(cell.place)
    if folder is None:
        return None
    if cell.disk is not None and not os.statvfs(folder).f_bfree:
        return _disk_exceeded(grant, cell, one_file=False)
    if 0 < resource.getrlimit(resource.RLIMIT_FSIZE)[0] <= _sizes(folder)[1]:
        return _disk_exceeded(grant, cell, one_file=True)
    return None


def _disk_exceeded(grant: Grant, cell: Cell, *, one_file: bool) -> Failure:
    """The failure of a task that has filled its folder. one_file: the limit of each file held it
    up, and not that of all together."""
    folder = _reachable(cell.place)
    why = f"more than the {grant.disk_mb:g} MiB that are granted"
    if folder is not None:
        used = _used(folder, apart=cell.disk is not None, one_file=one_file) / MIB
        if used < _NEARLY * grant.disk_mb:
            why += f"; {used:.1f} of them are left"
        else:
            what = "in one file" if one_file else "in its folder"
            why = f"{used:.1f} MiB {what}, of {grant.disk_mb:g} that are granted"
    return Failure("DiskExceeded", why)


def _reachable(place: str) -> str | None:
    """The folder of a cell; by its name it cannot be found where one above it is closed to the
    child's user, but it is the working directory unless the handler has left it."""
    if os.access(place, os.R_OK):
        return place
    try:
        return os.curdir if os.getcwd() == place else None
    except OSError:  # the handler has removed where it was
        return None


def _used(folder: str, *, apart: bool, one_file: bool) -> int:
    """Bytes. apart: the folder is a file system of its own, which knows without looking."""
    if apart and not one_file:
        found = os.statvfs(folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize
    together, largest = _sizes(folder)
    return largest if one_file else together


def _memory_exceeded(grant: Grant) -> Failure:
    """The host adds the peak, which it is told by the kernel."""
    return Failure("MemoryExceeded", f"more than the {grant.memory_mb:g} MiB that are granted")


def _has_stack() -> bool:
    """Whether there is address space for another thread's stack, or that is what was missing."""
    size = resource.getrlimit(resource.RLIMIT_STACK)[0]
    if not 0 < size <= _MOST_STACK:
        size = _MOST_STACK
    try:
        bytearray(size)
    except MemoryError:
        return False
    return True


def _processes_exceeded(grant: Grant, what: str) -> Failure:
    if grant.processes > 1:
        why = f"{HELD}{grant.processes} processes and threads that are granted"
    elif what == "threads":
        why = f"{HELD}{THREADS} threads that each child is granted"
    else:
        why = "1 process, of 1 that is granted"  # it may start none, so it is alone
    return Failure("ProcessesExceeded", why)


def _files_exceeded(grant: Grant) -> Failure:
    """The kernel refuses one more only where as many are open as may be; how many still are is
    counted one by one, since to list them would take a descriptor."""
    most = min(grant.files, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    left = sum(map(_is_open, range(min(most, _MOST_DESCRIPTORS))))
    why = f"{most} open files, of {grant.files} that are granted"
    return Failure("FilesExceeded", why if left == most else f"{why}; {left} are still open")


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _sizes(folder: str) -> tuple[int, int]:
    """The bytes of a folder on its disk, and of its largest file. What cannot be looked at counts
    nothing, as does what is beyond a number that nobody minds waiting for."""
    together = largest = 0
    left, folders = _MOST_ENTRIES, [folder]
    while folders and left > 0:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    together += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        largest = max(largest, found.st_size)
                    left -= 1
                    if left <= 0:
                        break
        except OSError:  # the handler may have closed it to all
            left -= 1
    return together, largest
