"""Which group of version 2 is this process's to divide, and room for groups in it.

A group hands its controllers on only while no process is in it, unless it is the root of all. So
what was started in the delegated group (a container's first process, a service, this process) moves
into a leaf of it, once; all limits stay. What systemd keeps for itself is left as it is.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["divide", "group_of", "members", "own_group"]

_LEAF = "callboard.leaf"
_LEAF_WEIGHT = 200  # eight times that of a child's group
_UNITS = (".service", ".scope", ".slice")
_MARKS = ("user.delegate", "trusted.delegate")  # systemd from 251, before
_ROUNDS = 20  # of moving: what is moved may be starting others


def own_group(root: Path, path: str, controllers: tuple[str, ...]) -> Path:
    """Return the folder whose groups are this process's to make.

    root: where version 2 is mounted. path: of this process's group, as the kernel tells it. Raises
    `OSError` that says why there is none.
    """
    base = _above_leaf(root, path)
    unit = _unit(root, base)
    if unit is not None:
        if not _is_delegated(unit):
            raise PermissionError(
                errno.EPERM,
                f"systemd keeps {unit} for itself: set Delegate=yes in its unit, or start this "
                "with `systemd-run --scope -p Delegate=yes`, as a user with --user",
            )
        if unit == base.parent and _lacking(base, controllers):
            base = unit  # DelegateSubgroup=
    if lacking := _lacking(base, controllers):
        raise OSError(f"{' and '.join(lacking)} is not delegated to {base}")
    return base


def divide(base: Path, controllers: tuple[str, ...]) -> None:
    """Let the groups below `base` have these controllers; moves the processes in it if it must.
    Raises `OSError`."""
    control = base / "cgroup.subtree_control"
    if set(controllers) <= set(control.read_text(encoding="ascii").split()):
        return
    wanted = " ".join(f"+{name}" for name in controllers)
    leaf = base / _LEAF
    for _ in range(_ROUNDS):
        try:
            control.write_text(wanted, encoding="ascii")
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            leaf.mkdir(exist_ok=True)
            for pid in members(base):
                _move(pid, leaf)
        else:
            if leaf.exists():
                (leaf / "cpu.weight").write_text(str(_LEAF_WEIGHT), encoding="ascii")
            return
    raise OSError(
        errno.EBUSY, f"{len(members(base))} processes stay in {base}, which so cannot be divided"
    )


def group_of(root: Path, path: str) -> Path:
    """Return the folder of a group that was made below this process's own. path: as the kernel
    tells it. In a container that has no namespace of groups, its own is what is mounted."""
    named = root / path.lstrip("/")
    return named if named.exists() else root / named.name


def members(folder: Path) -> list[int]:
    """The processes in it; none if it is gone. 0 is one of a namespace that this one cannot see."""
    try:
        return [int(pid) for pid in (folder / "cgroup.procs").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _above_leaf(root: Path, path: str) -> Path:
    named = root / path.lstrip("/")
    if ".." not in path.split("/"):
        for folder in (named.parent if named.name == _LEAF else named, root):
            if os.getpid() in (*members(folder), *members(folder / _LEAF)):
                return folder
    raise FileNotFoundError(errno.ENOENT, f"the group {path} of this process is not below {root}")


def _unit(root: Path, base: Path) -> Path | None:
    """The unit of systemd that it belongs to, if any: the innermost."""
    for folder in (base, *base.parents):
        if folder == root:
            return None
        if folder.name.endswith(_UNITS):
            return folder
    return None


def _is_delegated(unit: Path) -> bool:
    for mark in _MARKS:
        with suppress(OSError):  # there is none, or it is not for this user to see
            if os.getxattr(unit, mark) == b"1":
                return True
    # A user's own manager owns what it does not delegate, too; the system's gives away only that.
    by_user = any(folder.name.startswith("user@") for folder in unit.parents)
    return not by_user and unit.stat().st_uid == os.geteuid() != 0


def _lacking(base: Path, controllers: tuple[str, ...]) -> list[str]:
    offered = (base / "cgroup.controllers").read_text(encoding="ascii").split()
    return [name for name in controllers if name not in offered]


def _move(pid: int, leaf: Path) -> None:
    if pid == 0:
        raise PermissionError(
            errno.EPERM, f"a process that cannot be seen from here is in {leaf.parent}"
        )
    with suppress(ProcessLookupError):  # it has ended
        (leaf / "cgroup.procs").write_text(str(pid), encoding="ascii")
