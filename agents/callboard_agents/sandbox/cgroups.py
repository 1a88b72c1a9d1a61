"""Control groups: memory, CPU and processes of a child and of all that it starts, as a whole.

Version 2 where it is mounted and delegated to this process, else version 1 where its folders are
writable, else none. The groups lie below this process's own, one for each cell; they are made once
and removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from callboard_agents.sandbox.delegation import divide, group_of, members, own_group
from callboard_agents.sandbox.grant import Grant

__all__ = ["Counts", "Group", "group_maker", "group_name", "tasks_of"]

_ROOT = Path("/sys/fs/cgroup")
_NEEDED = ("memory", "cpu", "pids")
_PERIOD_US, _LEAST_US = 100_000, 1000  # the kernel gives no less of a period
_MIB = 1024 * 1024
_SLACK_MB = 16.0  # pages that the zygote shares are charged to whoever touches them first
_THREADS = 64  # of a child that may start no process
_KEEPER = 1  # process in each group
_WEIGHT, _SHARES = 25, 128  # of all CPU that is wanted; what is not in a group has 100, or 1024
_COUNTS = 1024  # bytes of a file that counts

_NAME = "callboard"

Maker = Callable[[str, Grant], "Group"]


@dataclass(frozen=True, slots=True)
class Counts:
    """What the kernel has done to the members of a group so far. killed: for want of memory.
    refused: processes and threads more, which were then not made."""

    killed: int = 0
    refused: int = 0


class Group:
    """The group of one cell. folders: one, or in version 1 one of each controller. events: the file
    that counts who was killed for want of memory. tasks: the folder that counts processes."""

    def __init__(self, folders: list[Path], events: Path, tasks: Path) -> None:
        self._folders = folders
        self._members = [str(folder / "cgroup.procs") for folder in folders]
        self._events = events
        self._tasks = tasks
        self._killed: int | None = None
        self._refused: int | None = None

    def join(self) -> None:
        """Make the calling process a member, which may then ask for `counts`. Raises `OSError`."""
        for file in self._members:
            found = os.open(file, os.O_WRONLY)
            try:
                os.write(found, b"0")
            finally:
                os.close(found)
        self._killed = os.open(self._events, os.O_RDONLY)
        with contextlib.suppress(FileNotFoundError):  # what only looks like Linux may not count it
            self._refused = os.open(self._tasks / "pids.events", os.O_RDONLY)

    def counts(self) -> Counts:
        """Return them; a few microseconds, for the files are open."""
        return Counts(_count(self._killed, b"oom_kill"), _count(self._refused, b"max"))

    def most_tasks(self) -> int:
        """Return how many processes and threads there were beside the keeper when one more was
        refused. 0: fewer than there may be, so that the limit of an outer group was met."""
        most = int((self._tasks / "pids.max").read_text(encoding="ascii"))
        try:
            had = int((self._tasks / "pids.peak").read_text(encoding="ascii"))
        except FileNotFoundError:  # before Linux 6.1
            had = most
        return most - _KEEPER if had >= most else 0

    def remove(self) -> None:
        """Remove it; its members must have ended. Where the kernel has not yet noticed that, it is
        left for the next sweep."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _count(file: int | None, name: bytes) -> int:
    if file is None:
        return 0
    for line in os.pread(file, _COUNTS, 0).splitlines():
        found, _, value = line.partition(b" ")
        if found == name:
            return int(value)
    return 0


def group_name(name: str) -> str:
    """Return the name of a group that says whose it is: a pid means a process only where the
    namespace of pids is the same."""
    return f"{_NAME}-{os.getpid()}-{_pids()}-{name}"


def _pids() -> str:
    return str(os.stat("/proc/self/ns/pid").st_ino)


def group_maker() -> Maker:
    """Return what makes groups here. Raises `OSError` that says why there can be none."""
    paths = _paths("self")
    if "" in paths and (_ROOT / "cgroup.controllers").exists():
        return _second(own_group(_ROOT, paths[""], _NEEDED))
    missing = [name for name in _NEEDED if name not in paths]
    if missing:
        version_2 = f"; version 2 is not mounted at {_ROOT}" if "" in paths else ""
        raise OSError(f"version 1 has no controller for {' and '.join(missing)}{version_2}")
    return _first({name: _ROOT / name / paths[name].lstrip("/") for name in _NEEDED})


def tasks_of(pid: int) -> int | None:
    """How many processes and threads a child and all that it has started are now, by its group;
    None: it has none."""
    try:
        paths = _paths(str(pid))
        root, path = (_ROOT / "pids", paths["pids"]) if "pids" in paths else (_ROOT, paths[""])
        folder = group_of(root, path)
        if not folder.name.startswith(f"{_NAME}-"):
            return None
        return int((folder / "pids.current").read_text(encoding="ascii")) - _KEEPER
    except (OSError, KeyError, ValueError):  # it is gone in this moment
        return None


def _paths(process: str) -> dict[str, str]:
    """The groups of a process by controller; `""` is version 2."""
    found: dict[str, str] = {}
    for line in Path(f"/proc/{process}/cgroup").read_text(encoding="ascii").splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def _second(base: Path) -> Maker:
    divide(base, _NEEDED)
    _sweep(base)

    def make(name: str, grant: Grant) -> Group:
        folder = base / name
        folder.mkdir()
        if grant.memory_mb is not None:
            _write(folder / "memory.max", _memory(grant.memory_mb))
            _write(folder / "memory.swap.max", 0, needed=False)
        _write(folder / "cpu.weight", _WEIGHT)
        if grant.cpu is not None:
            _write(folder / "cpu.max", f"{_quota_us(grant.cpu)} {_PERIOD_US}")
        _write(folder / "pids.max", _processes(grant))
        return Group([folder], folder / "memory.events", folder)

    return make


def _first(bases: dict[str, Path]) -> Maker:
    for base in bases.values():
        if not os.access(base, os.W_OK):
            raise PermissionError(13, f"{base} is not writable")
        _sweep(base)

    def make(name: str, grant: Grant) -> Group:
        folders = {controller: base / name for controller, base in bases.items()}
        for folder in folders.values():
            folder.mkdir()
        if grant.memory_mb is not None:
            _write(folders["memory"] / "memory.limit_in_bytes", _memory(grant.memory_mb))
        _write(folders["cpu"] / "cpu.shares", _SHARES)
        if grant.cpu is not None:
            _write(folders["cpu"] / "cpu.cfs_period_us", _PERIOD_US)
            _write(folders["cpu"] / "cpu.cfs_quota_us", _quota_us(grant.cpu))
        _write(folders["pids"] / "pids.max", _processes(grant))
        events = folders["memory"] / "memory.oom_control"
        return Group(list(folders.values()), events, folders["pids"])

    return make


def _sweep(base: Path) -> None:
    """Remove the groups of those that were killed, and what has outlived them there."""
    for folder in base.glob(f"{_NAME}-*-{_pids()}-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            _kill(folder)
            with contextlib.suppress(OSError):  # its last member may be dying at this moment
                folder.rmdir()


def _kill(folder: Path) -> None:
    """End its members. Version 2 from Linux 5.14 misses none that is born meanwhile."""
    all_at_once = folder / "cgroup.kill"
    if all_at_once.exists():
        with contextlib.suppress(OSError):  # another host has removed it in this moment
            all_at_once.write_text("1", encoding="ascii")
        return
    for pid in members(folder):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _memory(megabytes: float) -> int:
    return int((megabytes + _SLACK_MB) * _MIB)


def _quota_us(cores: float) -> int:
    return max(int(cores * _PERIOD_US), _LEAST_US)


def _processes(grant: Grant) -> int:
    return _KEEPER + (_THREADS if grant.processes == 1 else grant.processes)


def _write(file: Path, value: object, *, needed: bool = True) -> None:
    try:
        file.write_text(str(value), encoding="ascii")
    except FileNotFoundError:
        if needed:
            raise
