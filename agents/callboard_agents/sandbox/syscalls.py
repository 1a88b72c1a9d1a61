"""The few system calls that Python does not offer, by ctypes; a failure is an `OSError`.

Numbers are those of x86_64 and aarch64; on any other machine a sandbox has no seccomp and no
Landlock, and says so.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal

__all__ = [
    "MACHINE",
    "call",
    "die_with_parent",
    "drop_capabilities",
    "mount_tmpfs",
    "no_new_privileges",
    "not_traceable",
    "prctl",
    "private_mounts",
    "unshare",
]

MACHINE = platform.machine()
_CAPSET = {"x86_64": 126, "aarch64": 91}

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_MS_NOSUID, _MS_NODEV = 2, 4
_MS_REC, _MS_SLAVE = 0x4000, 0x80000

libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def call(what: str, number: int, *arguments: object) -> int:
    """Make system call `number`; what: its name, for the error. An int is passed as 64 bits."""
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _check(libc.syscall(ctypes.c_long(number), *wide), what)


def prctl(option: int, *arguments: object) -> int:
    """Call prctl(2)."""
    wide = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    return _check(libc.prctl(option, *wide, *[ctypes.c_ulong(0)] * (4 - len(wide))), "prctl")


def die_with_parent(parent: int) -> None:
    """Be killed when the thread that made this process ends; at once if it has ended already."""
    prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def no_new_privileges() -> None:
    """Gain nothing by executing anything, and neither may what this process starts."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def not_traceable() -> None:
    """Let no process of the same user look into this one, by ptrace or /proc; ends with an exec."""
    prctl(_PR_SET_DUMPABLE, 0)


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` (CLONE_NEW...) name, for new ones."""
    _check(libc.unshare(flags), "unshare")


def drop_capabilities() -> None:
    """Give up every capability, for good where no new privileges can be gained."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    call("capset", _CAPSET[MACHINE], ctypes.byref(header), ctypes.byref(nothing))


def private_mounts() -> None:
    """In a mount namespace of one's own: let no mount made here be seen outside."""
    _check(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None), "mount")


def mount_tmpfs(folder: str, options: str) -> None:
    """Mount an empty file system in memory on `folder`."""
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
    _check(libc.mount(b"callboard", folder.encode(), b"tmpfs", flags, options.encode()), "mount")
