"""The layers between a child process and its host: their names, and which this host offers.

What a kernel says of itself is not believed: `python -m callboard_agents.sandbox.layers` enters
each layer in a child of its own and reports what came of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from callboard_agents.sandbox.cgroups import group_maker, group_name
from callboard_agents.sandbox.grant import Grant
from callboard_agents.sandbox.landlock import make_ruleset, restrict_to
from callboard_agents.sandbox.namespaces import first_uid, leave, mount_private
from callboard_agents.sandbox.seccomp import filter_for_all, filter_for_child, missing
from callboard_agents.sandbox.syscalls import mount_tmpfs, no_new_privileges

__all__ = ["LAYERS", "available"]

LAYERS = (
    "rlimits",
    "no_new_privs",
    "landlock",
    "seccomp",
    "cgroup",
    "uid",
    "namespaces",
    "disk",
    "fresh",
)
"""disk: a file system of bounded size for the child's files. fresh: the child has run nothing
before."""

_SECONDS = 20.0


def available() -> dict[str, str]:
    """Return for each layer "" if this process can have it for its children, else the reason."""
    try:
        told = subprocess.run(
            [sys.executable, "-m", "callboard_agents.sandbox.layers"],
            capture_output=True,
            check=True,
            timeout=_SECONDS,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return dict.fromkeys(LAYERS, f"it could not be tried: {error}")
    found: dict[str, str] = json.loads(told)
    return found


def probe() -> dict[str, str]:
    """Enter each layer in a child of its own."""
    tried: dict[str, Callable[[], None]] = {
        "rlimits": _nothing,
        "no_new_privs": no_new_privileges,
        "landlock": _landlock,
        "seccomp": _seccomp,
        "cgroup": _cgroup,
        "uid": _uid,
        "namespaces": lambda: leave(network=False),
        "disk": _disk,
        "fresh": _nothing,
    }
    return {layer: _reason(tried[layer]) for layer in LAYERS}


def _reason(enter: Callable[[], None]) -> str:
    """What came of it in a child: nothing, or why not."""
    told, tells = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            enter()
        except Exception as error:  # noqa: BLE001  it is the answer
            os.write(tells, f"{type(error).__name__}: {error}".encode()[:500])
        finally:
            os._exit(0)
    os.close(tells)
    with os.fdopen(told, "rb") as said:
        reason = said.read().decode()
    os.waitpid(pid, 0)
    return reason


def _nothing() -> None:
    """Every Unix has it."""


def _landlock() -> None:
    no_new_privileges()
    restrict_to(make_ruleset(["/usr"], [], network=False))


def _seccomp() -> None:
    if why := missing():
        raise OSError(why)
    no_new_privileges()
    filter_for_all().enter(os.getpid())
    filter_for_child(alone=True, network=False, own_user=False).enter(os.getpid())


def _cgroup() -> None:
    group = group_maker()(group_name("probe"), Grant())
    try:
        pid = os.fork()
        if pid == 0:
            try:
                group.join()
            except OSError:
                os._exit(1)
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            raise PermissionError(1, "no process can be moved into a group")
    finally:
        group.remove()


def _uid() -> None:
    uid = first_uid()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _disk() -> None:
    mount_private()
    mount_tmpfs("/tmp", "size=1m")  # noqa: S108  seen by this process only


if __name__ == "__main__":
    print(json.dumps(probe()))  # noqa: T201  read by `available`
