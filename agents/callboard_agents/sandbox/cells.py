"""Where children live: a folder, a uid, a control group and a ruleset, made once and used again.

All of it is prepared before there is a child, so that a child enters it with a few system calls. A
cell is emptied by its keeper when its child is gone, with everything that was left in it.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from callboard_agents.sandbox.cgroups import Group, Maker, group_name
from callboard_agents.sandbox.grant import CellPlan
from callboard_agents.sandbox.landlock import make_ruleset
from callboard_agents.sandbox.syscalls import mount_tmpfs

__all__ = ["Cell", "Cells"]

_MIB = 1024 * 1024


@dataclass(slots=True)
class Cell:
    """One place for one child at a time. ruleset: a descriptor; uid, group: if there is the layer.

    disk: bytes of its file system, None if it lies in the host's own.
    """

    place: str
    uid: int | None
    group: Group | None
    ruleset: int | None
    disk: int | None

    def empty(self, most: float = math.inf) -> None:
        """Remove what a child has left. Nothing of it runs, so nothing changes meanwhile.

        most: names in a folder, less one for each folder before. Raises `OSError` if there are more
        or one cannot be removed; some are then gone.
        """
        os.chmod(self.place, 0o700)  # it may have closed even that
        _empty(self.place, most)

    def prepare(self) -> None:
        """Make its folder the child's own."""
        if self.disk is not None:
            owner = "" if self.uid is None else f",uid={self.uid},gid={self.uid}"
            mount_tmpfs(self.place, f"size={self.disk},mode=700{owner}")
        elif self.uid is not None:
            os.chown(self.place, self.uid, self.uid)

    def remove(self) -> None:
        """Take it away; its child must be gone. What is mounted goes with the zygote."""
        if self.group is not None:
            self.group.remove()


class Cells:
    """The cells of one agent's children. layers: those that this host has.

    readable: what every child may read, beside the plan's own. uids: one for each cell.
    """

    def __init__(
        self,
        plan: CellPlan,
        base: str,
        layers: frozenset[str],
        *,
        readable: list[str],
        groups: Maker | None,
        uids: Iterator[int] | None,
    ) -> None:
        self._plan = plan
        self._base = base
        self._layers = layers
        self._readable = [*readable, *plan.read]
        self._groups = groups
        self._uids = uids
        self._all = [self._make(number) for number in range(plan.slots + plan.spares)]
        self._free = list(self._all)

    def take(self) -> Cell:
        """Return a cell, which has no keeper yet. The host wants no more than there are."""
        return self._free.pop()

    def remove(self) -> None:
        """Take all of them away."""
        for cell in self._all:
            cell.remove()

    def _make(self, number: int) -> Cell:
        name = f"{self._plan.capability}-{number}"
        place = os.path.join(self._base, name)
        os.mkdir(place, 0o700)
        grant, layers = self._plan.grant, self._layers
        cell = Cell(
            place=place,
            uid=None if self._uids is None else next(self._uids),
            group=self._groups(group_name(name), grant) if self._groups else None,
            ruleset=None,
            disk=int(grant.disk_mb * _MIB) if "disk" in layers else None,
        )
        cell.prepare()
        if "landlock" in layers:
            cell.ruleset = make_ruleset(self._readable, [place], network=self._plan.network)
        return cell


def _empty(root: str, most: float) -> None:
    """Remove all that is in `root`, step by step and however deep: there may be no name for it that
    is short enough. Links are removed and never followed. This process is in `root` afterwards."""
    os.chdir(root)
    names: list[str] = []
    left = [_remove_files(most)]
    while True:
        if left[-1]:
            names.append(left[-1].pop())
            os.chdir(names[-1])
            most -= 1
            left.append(_remove_files(most))
        elif names:
            os.chdir("..")
            os.rmdir(names.pop())
            left.pop()
        else:
            return


def _remove_files(most: float) -> list[str]:
    """Remove what is no folder here; return the folders, which a child may have closed to all."""
    folders = []
    found = os.listdir()
    if len(found) > most:
        raise OSError(errno.ENOTEMPTY, "there is more than can be removed soon")
    for name in found:
        if stat.S_ISDIR(os.lstat(name).st_mode):
            os.chmod(name, 0o700)
            folders.append(name)
        else:
            os.unlink(name)
    return folders
