"""Handlers that try what they must not."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from callboard_agents import agent

_LIBC = ctypes.CDLL(None, use_errno=True)
_counted = 0


def _call(*arguments: Any) -> None:
    """A bare call of the C library; a refusal is told by its name."""
    name, *rest = arguments
    if getattr(_LIBC, name)(*rest) < 0:
        raise _Refused(errno.errorcode[ctypes.get_errno()])


class _Refused(Exception):
    pass


def _descriptors() -> list[int]:
    found = []
    for number in range(64):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return found


TRIES: dict[str, Callable[[], object]] = {
    "read /etc/passwd": lambda: Path("/etc/passwd").read_text(encoding="utf-8"),
    "read another process's environment": lambda: Path("/proc/1/environ").read_bytes(),
    "list /tmp": lambda: os.listdir("/tmp"),  # noqa: S108, PTH208  a try
    "write outside": lambda: Path("/tmp/hostile").write_text("x", encoding="utf-8"),  # noqa: S108
    "list the cells of others": lambda: os.listdir(".."),  # noqa: PTH208  a try
    "connect out": lambda: socket.socket(socket.AF_INET),
    "connect to a unix socket": lambda: socket.socket(socket.AF_UNIX),
    "fork": os.fork,
    "run a program": lambda: subprocess.run(["/bin/true"], check=True),
    "make a memory file": lambda: os.memfd_create("hostile"),
    "leave its process group": os.setsid,
    "signal its parent": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "signal everybody": lambda: os.kill(-1, signal.SIGTERM),
    "trace its parent": lambda: _call("ptrace", 16, os.getppid(), 0, 0),
    "mount": lambda: _call("mount", b"none", b".", b"tmpfs", 0, None),
    "unshare": lambda: _call("unshare", 0x10000000),
    "become root": lambda: os.setuid(0),
    "tell environment and descriptors": lambda: json.dumps([dict(os.environ), _descriptors()]),
}


@agent("hostile.try", isolation="process")
def attempt(payload: dict[str, Any]) -> str:
    """Try it, and say what came of it."""
    try:
        return str(TRIES[payload["what"]]())
    except _Refused as refused:
        return str(refused)
    except OSError as error:
        return type(error).__name__


@agent("hostile.remember", isolation="process")
def remember() -> int:
    global _counted  # noqa: PLW0603  that is what it tries
    _counted += 1
    return _counted


@agent("hostile.bomb", isolation="process")
def bomb() -> None:
    while True:
        if os.fork() == 0:
            time.sleep(60)


@agent("hostile.nonsense", isolation="process")
def nonsense() -> None:
    os.write(3, b"\xff" * 1000)
    time.sleep(60)


@agent("hostile.files", isolation="process")
def files() -> None:
    for number in range(100):
        Path(str(number)).write_bytes(bytes(1 << 20))


@agent("hostile.sleep", isolation="process")
def sleep() -> None:
    time.sleep(60)
