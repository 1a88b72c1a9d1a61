"""The few system calls that Python does not offer, by ctypes; a failure is an `OSError`.

Numbers are those of x86_64 and aarch64; on any other machine a sandbox has no seccomp and no
Landlock, and says so.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct

__all__ = [
    "MACHINE",
    "Turns",
    "adopt_orphans",
    "call",
    "call_plainly",
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
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

_MS_NOSUID, _MS_NODEV = 2, 4
_MS_REC, _MS_SLAVE = 0x4000, 0x80000

libc = ctypes.CDLL(None, use_errno=True)


_plain = ctypes.CDLL(None, use_errno=True).syscall
_plain.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_long, ctypes.c_long)
_prctl = libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def call(what: str, number: int, *arguments: object) -> int:
    """Make system call `number`; what: its name, for the error. An int is passed as 64 bits."""
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return _check(libc.syscall(ctypes.c_long(number), *wide), what)


def call_plainly(what: str, number: int, argument: int) -> None:
    """Make system call `number` with a number and zeros, in as few steps as can be."""
    _check(_plain(number, argument, 0, 0), what)


def prctl(option: int, second: int = 0, third: int | None = None) -> None:
    """Call prctl(2). third: a number, or an address."""
    _check(_prctl(option, second, third, 0, 0), "prctl")


def die_with_parent(parent: int) -> None:
    """Be killed when the thread that made this process ends; at once if it has ended already."""
    prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents have ended."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


class Turns:
    """How long a process wants the CPU at a time: one that wants less than another is let in
    sooner, and has no more of it. A wish: Linux before 6.12 takes no notice, and whether it was
    heard is not looked at. nice: of the process."""

    def __init__(self, milliseconds: float, *, nice: int) -> None:
        wanted = struct.pack("=IIQiIQQQ", 48, 0, 0, nice, 0, int(milliseconds * 1e6), 0, 0)
        self._buffer = ctypes.create_string_buffer(wanted, len(wanted))
        self._address = ctypes.addressof(self._buffer)

    def ask(self) -> None:
        """Ask for them, for this process and what it starts."""
        if MACHINE in _SCHED_SETATTR:
            _plain(_SCHED_SETATTR[MACHINE], 0, self._address, 0)


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
