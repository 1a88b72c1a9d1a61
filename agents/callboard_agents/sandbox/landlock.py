"""Landlock: a process gives up all files but those that a ruleset names, and all TCP ports.

A ruleset is made once for a cell and entered by each of its children. From ABI 6 (Linux 6.12) on a
child can neither signal nor reach by abstract sockets what is outside of its own domain. UDP, raw
and named unix sockets are not Landlock's: seccomp denies those.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable

from callboard_agents.sandbox.syscalls import call, call_plainly

__all__ = ["abi", "make_ruleset", "restrict_to"]

_CREATE, _ADD, _RESTRICT = 444, 445, 446

_EXECUTE, _WRITE, _READ, _LIST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_TRUNCATE, _IOCTL = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE | _IOCTL
_RIGHTS = {1: 1 << 13, 2: 1 << 14, 3: 1 << 15, 4: 1 << 15}  # below this; from ABI 5 on all 16
_TCP = 3
_SCOPES = 3
_READING = _EXECUTE | _READ | _LIST
_DEVICES = {"/dev/null": _READ | _WRITE, "/dev/zero": _READ, "/dev/urandom": _READ}


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64),
        ("network", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def abi() -> int:
    """Return the version of Landlock that this kernel offers; raises `OSError` if none."""
    return call("landlock_create_ruleset", _CREATE, None, 0, 1)


def make_ruleset(read: Iterable[str], write: Iterable[str], *, network: bool) -> int:
    """Return the descriptor of a ruleset: `read` may be read and run, `write` changed as well.

    What does not exist is left out. network: leave TCP alone.
    """
    version = abi()
    handled = _RIGHTS.get(version, 1 << 16) - 1
    attributes = _Attributes(
        handled, _TCP if version >= 4 and not network else 0, _SCOPES if version >= 6 else 0
    )
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = call("landlock_create_ruleset", _CREATE, ctypes.byref(attributes), size, 0)
    rules = [(path, _READING) for path in read]
    rules += [(path, handled & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL)) for path in write]
    rules += _DEVICES.items()
    for path, allowed in rules:
        _allow(ruleset, path, allowed & handled)
    return ruleset


def restrict_to(ruleset: int) -> None:
    """Enter a domain of one's own that has only what `ruleset` allows; there is no way back."""
    call_plainly("landlock_restrict_self", _RESTRICT, ruleset)


def _allow(ruleset: int, path: str, allowed: int) -> None:
    try:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # what is not there, or not for us, is not for our children either
        return
    try:
        if not stat.S_ISDIR(os.fstat(beneath).st_mode):
            allowed &= _OF_FILES
        rule = _Beneath(allowed, beneath)
        call("landlock_add_rule", _ADD, ruleset, 1, ctypes.byref(rule), 0)
    finally:
        os.close(beneath)
