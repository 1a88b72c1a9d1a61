"""System calls that a child may not make, denied by filters that it cannot take off again.

Two filters: the zygote enters the first, with all that neither it nor its children need, so that
no child pays for that; each child adds what its maker still needed: new processes, sessions,
sockets, and signals to anything but itself. A call of another architecture kills the process.
"""

from __future__ import annotations

import ctypes
import errno
import signal
import struct

from callboard_agents.sandbox.syscall_table import NEVER, NUMBERS
from callboard_agents.sandbox.syscalls import MACHINE, call, prctl

__all__ = ["Filter", "filter_for_all", "filter_for_child", "missing"]

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_NR, _ARCH, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in seccomp_data; low halves of arguments

_THREAD = 0x10000
_NAMESPACES = 0x7E020080
_UNIX, _INET, _INET6 = 1, 2, 10
_DGRAM, _RAW, _TYPES = 2, 3, 0xF
_TIOCSTI = 0x5412
_PDEATHSIG, _SUBREAPER = 1, 36
_EVERYBODY = 0xFFFFFFFF
_SET_SECCOMP, _FILTER = 22, 2
_GET_ACTION_AVAIL, _SECCOMP = 2, {"x86_64": 317, "aarch64": 277}
_PID_MARK = 0x7E1D0001
_MODES = ("chmod", "fchmod", "fchmodat", "fchmodat2")
_OWNERS = (
    "chown",
    "fchown",
    "fchownat",
    "fremovexattr",
    "fsetxattr",
    "lchown",
    "lremovexattr",
    "lsetxattr",
    "removexattr",
    "setxattr",
)
_AS_IF_DONE = 0


def _code(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _deny(code: int = errno.EPERM) -> bytes:
    return _code(_RETURN, _DENY | code)


class _Program:
    """A list of rules, each of which decides about one call or leaves it to the next."""

    def __init__(self) -> None:
        self._column = 0 if MACHINE == "x86_64" else 1
        self._parts = [
            _code(_LOAD, _ARCH),
            _code(_EQUAL, _ARCHITECTURES[MACHINE], yes=1),
            _code(_RETURN, _KILL),
            _code(_LOAD, _NR),
        ]
        if MACHINE == "x86_64":
            self._parts += [_code(_AT_LEAST, _X32, no=1), _code(_RETURN, _KILL)]

    def decide(self, name: str, *steps: bytes) -> None:
        """The steps must end in a decision, because they load an argument over the number."""
        number = (NUMBERS.get(name) or NEVER[name])[self._column]
        if number is not None:
            self._parts += [_code(_EQUAL, number, no=len(steps)), *steps]

    def deny(self, *names: str) -> None:
        for name in names:
            self.decide(name, _deny())

    def end(self) -> Filter:
        return Filter(b"".join([*self._parts, _code(_RETURN, _ALLOW)]))


class _Header(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


class Filter:
    """A filter, ready to be entered."""

    def __init__(self, code: bytes) -> None:
        self._buffer = ctypes.create_string_buffer(code, len(code))
        self._header = _Header(len(code) // 8, ctypes.cast(self._buffer, ctypes.c_void_p))
        self._address = ctypes.addressof(self._header)
        mark = struct.pack("=I", _PID_MARK)
        self._pids = [at for at in range(4, len(code), 8) if code[at : at + 4] == mark]

    def enter(self, pid: int) -> None:
        """Hold this process to the filter, for good. Needs no_new_privs. pid: its own."""
        for at in self._pids:
            struct.pack_into("=I", self._buffer, at, pid)
        prctl(_SET_SECCOMP, _FILTER, self._address)


def missing() -> str:
    """Return why there can be no filters here, or nothing."""
    if MACHINE not in _ARCHITECTURES:
        return f"no table of system calls for {MACHINE}"
    try:
        action = ctypes.c_uint32(_KILL)
        call("seccomp", _SECCOMP[MACHINE], _GET_ACTION_AVAIL, 0, ctypes.byref(action))
    except OSError as error:
        return f"the kernel offers none: {error}"
    return ""


def filter_for_all() -> Filter:
    """What neither the zygote nor any child needs once the cells are made."""
    program = _Program()
    program.deny(*NEVER)
    program.decide("clone3", _deny(errno.ENOSYS))  # its flags cannot be seen; libc then uses clone
    program.decide(
        "clone",
        _code(_LOAD, _FIRST),
        _code(_ANY_BIT, _NAMESPACES, no=1),
        _deny(),
        _code(_RETURN, _ALLOW),
    )
    program.decide(
        "ioctl",  # pushing input into a terminal
        _code(_LOAD, _SECOND),
        _code(_EQUAL, _TIOCSTI, no=1),
        _deny(),
        _code(_RETURN, _ALLOW),
    )
    return program.end()


def filter_for_child(
    *, alone: bool, network: bool, own_user: bool, counted: bool = False
) -> Filter:
    """What a child may not do. alone: it may start no process and signal nobody but itself.
    counted: it is its control group that refuses it the process, and counts that.

    own_user: it has a uid of its own. One that has not owns files of its host, whose modes and
    owners Landlock does not protect: nothing comes of changing those, and whoever copies a file
    with its mode is not told so.
    """
    program = _Program()
    if not own_user:
        for name in _MODES:
            program.decide(name, _deny(_AS_IF_DONE))
        program.deny(*_OWNERS)
    program.deny("setsid", "setpgid", "setns")
    program.decide(
        "prctl",
        _code(_LOAD, _FIRST),
        _code(_EQUAL, _SUBREAPER, yes=3),
        _code(_EQUAL, _PDEATHSIG, no=3),
        _code(_LOAD, _SECOND),
        _code(_EQUAL, signal.SIGKILL, yes=1),  # to die with its parent, as a command does
        _deny(),
        _code(_RETURN, _ALLOW),
    )
    if alone:
        if not counted:
            _no_process(program)
        program.deny("tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
        for name in ("kill", "tgkill"):
            program.decide(
                name,
                _code(_LOAD, _FIRST),
                _code(_EQUAL, _PID_MARK, yes=1),
                _deny(),
                _code(_RETURN, _ALLOW),
            )
    else:
        program.decide(
            "kill",
            _code(_LOAD, _FIRST),
            _code(_EQUAL, _EVERYBODY, no=1),
            _deny(),
            _code(_RETURN, _ALLOW),
        )
    _sockets(program, network=network)
    return program.end()


def _no_process(program: _Program) -> None:
    """Refused as where there are too many processes."""
    for name in ("fork", "vfork"):
        program.decide(name, _deny(errno.EAGAIN))
    program.decide(
        "clone",
        _code(_LOAD, _FIRST),
        _code(_ANY_BIT, _THREAD, yes=1),
        _deny(errno.EAGAIN),
        _code(_RETURN, _ALLOW),
    )


def _sockets(program: _Program, *, network: bool) -> None:
    """A pair of datagram sockets could be connected to any named socket: streams only."""
    program.decide(
        "socketpair",
        _code(_LOAD, _FIRST),
        _code(_EQUAL, _UNIX, no=4),
        _code(_LOAD, _SECOND),
        _code(_AND, _TYPES),
        _code(_EQUAL, _DGRAM, yes=1),
        _code(_RETURN, _ALLOW),
        _deny(),
    )
    if not network:
        program.deny("socket", "connect", "bind", "listen", "accept", "accept4")
        return
    program.decide(
        "socket",
        _code(_LOAD, _FIRST),
        _code(_EQUAL, _INET, yes=1),
        _code(_EQUAL, _INET6, no=4),
        _code(_LOAD, _SECOND),
        _code(_AND, _TYPES),
        _code(_EQUAL, _RAW, yes=1),
        _code(_RETURN, _ALLOW),
        _deny(),
    )
