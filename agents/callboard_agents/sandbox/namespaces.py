"""Namespaces and uids: no network but its own loopback, no shared memory, a user of nobody else's.

The zygote leaves the host's namespaces once, before any child, so that no child pays for it.
"""

from __future__ import annotations

import os

from callboard_agents.sandbox.syscalls import private_mounts, unshare

__all__ = ["first_uid", "leave", "mount_private"]

_NEW_MOUNTS, _NEW_UTS, _NEW_IPC, _NEW_NET = 0x20000, 0x4000000, 0x8000000, 0x40000000
_UIDS = 1024  # of one zygote, before they come again
_LOWEST, _RANGE = 1_000_000, 1_000_000_000


def leave(*, network: bool) -> None:
    """Leave the host's IPC and UTS namespaces, and unless `network` its network. Raises
    `OSError`."""
    unshare(_NEW_UTS | _NEW_IPC | (0 if network else _NEW_NET))


def mount_private() -> None:
    """Mount from here on for this process and its children only. Raises `OSError`."""
    unshare(_NEW_MOUNTS)
    private_mounts()


def first_uid() -> int:
    """Return the first of this process's uids for children: far from people's, and unlike those of
    any other process. Raises `OSError` where not every uid exists (a user namespace).
    """
    if os.geteuid() != 0:
        raise PermissionError(1, "only root can give children a uid of their own")
    uid = _LOWEST + os.getpid() * _UIDS % _RANGE
    with open("/proc/self/uid_map", encoding="ascii") as found:
        ranges = [[int(word) for word in line.split()] for line in found]
    if not any(start <= uid and uid + _UIDS <= start + count for start, _, count in ranges):
        raise OSError(f"the uid {uid} does not exist in this user namespace")
    return uid
