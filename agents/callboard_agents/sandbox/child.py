"""A child's whole life: it enters its layers, waits for its one task, runs it, and exits.

What it inherits is closed but for the socket to its host. A layer that the host promised and that
cannot be entered ends it before its task: it says so and never runs the handler.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import msgspec

from callboard_agents.context import Context
from callboard_agents.failures import failure_of
from callboard_agents.results import encode_result
from callboard_agents.sandbox.cells import Cell
from callboard_agents.sandbox.channel import CANCEL, FAILED, RESULT, frame, join
from callboard_agents.sandbox.grant import CellPlan, Grant, TaskHeader
from callboard_agents.sandbox.landlock import restrict_to
from callboard_agents.sandbox.remote import ChildContext, ChildLoop, Remote, capture
from callboard_agents.sandbox.rlimits import MIB, limit_this_process, user_tasks
from callboard_agents.sandbox.seccomp import Filter
from callboard_agents.sandbox.stage import run_command
from callboard_agents.sandbox.syscalls import die_with_parent, no_new_privileges
from callboard_broker.wire import Failure, encode

__all__ = ["Birth", "live"]

_SAMPLE = b'{"task":"1","attempt":1,"tenant":"a","capability":"a","seconds":1.0}'
_CHANNEL = 3
_NICER = 5
_MOST_FILES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """What the zygote gives its child. layers: those that it must enter. calls: the filter of
    system calls. mapped: address space at birth. nothing: a descriptor of /dev/null. loop: of an
    async agent. start: calls the agent's handler, through its middleware; None: it is a command."""

    start: Callable[[msgspec.Raw, Context], Any] | None
    plan: CellPlan
    cell: Cell
    layers: frozenset[str]
    calls: Filter | None
    mapped: int
    nothing: int
    zygote: int
    loop: ChildLoop | None


def live(birth: Birth, channel: socket.socket) -> NoReturn:
    """In the child: never returns."""
    code = 1
    try:
        code = _live(birth, channel)
    except SystemExit:
        code = 0  # the host is gone, or has no task for it any more
    except BaseException as error:  # noqa: BLE001  the last word of a child that is itself broken
        failure = failure_of(error)
        os.write(
            _CHANNEL,
            frame(FAILED, 0, encode(Failure("Crashed", failure.message, trace=failure.trace))),
        )
    finally:
        os._exit(code)


def _live(birth: Birth, inherited: socket.socket) -> int:
    loop = birth.loop
    try:
        channel = _keep_only(inherited, birth)
        if loop is not None:
            loop.begin()
        _enter(birth)
    except OSError as error:
        failure = Failure("IsolationMissing", f"a layer of isolation failed: {error}")
        os.write(_CHANNEL, frame(FAILED, 0, encode(failure)))
        return 1
    remote = Remote(channel, loop)
    capture(remote)
    _warm_up(loop)
    header, payload = remote.await_task()
    gc.enable()
    data, failure_found = _run(birth, header, payload, remote)
    if failure_found is not None:
        remote.say(FAILED, encode(failure_found))
    else:
        remote.say(RESULT, data or b"null")
    remote.await_end()
    return 0


def _keep_only(inherited: socket.socket, birth: Birth) -> socket.socket:
    """Close everything but the channel, which becomes descriptor 3; nothing on 0 to 2."""
    ruleset = birth.cell.ruleset
    channel = _out_of_the_way(inherited.fileno())
    if ruleset is not None:
        ruleset = _out_of_the_way(ruleset)
    for standard in range(3):
        os.dup2(birth.nothing, standard)
    os.dup2(channel, _CHANNEL)
    if ruleset is not None:
        os.dup2(ruleset, _CHANNEL + 1)
        birth.cell.ruleset = _CHANNEL + 1
    os.closerange(_CHANNEL + (1 if ruleset is None else 2), _MOST_FILES)
    inherited.detach()
    return socket.socket(fileno=_CHANNEL)


def _out_of_the_way(descriptor: int) -> int:
    """The same under a number that nothing has, above those that the child will keep: the zygote
    may have anything open, so that a fixed number would close something."""
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD, _CHANNEL + 2)


def _enter(birth: Birth) -> None:
    """Enter every layer, in an order in which none denies the next one its calls."""
    cell = birth.cell
    os.setpgid(0, 0)
    os.umask(0o077)
    os.chdir(cell.place)
    if cell.group is not None:
        cell.group.join()
    os.nice(_NICER)
    grant = birth.plan.grant
    tasks = None if cell.uid is None else user_tasks(grant)
    if birth.plan.command is not None and cell.group is not None:
        # The group's memory is limited; many programs reserve addresses that they never touch.
        grant = replace(grant, memory_mb=None)
    limit_this_process(grant, has_bytes=birth.mapped, tasks=tasks)
    if cell.uid is not None:
        os.setgroups([])
        os.setresgid(cell.uid, cell.uid, cell.uid)
        os.setresuid(cell.uid, cell.uid, cell.uid)
    die_with_parent(birth.zygote)
    os.environ["HOME"] = os.environ["TMPDIR"] = cell.place
    no_new_privileges()
    if cell.ruleset is not None:
        restrict_to(cell.ruleset)
        os.close(cell.ruleset)
    if birth.calls is not None:
        birth.calls.enter(os.getpid())


def _warm_up(loop: ChildLoop | None) -> None:
    """Touch what every task needs: memory that is shared with the zygote is copied at its first
    use, which may as well be before there is a task to be late for."""
    with socket.socket(fileno=os.dup(_CHANNEL)) as channel:
        nobody = Remote(channel, None)
        ChildContext(msgspec.json.decode(_SAMPLE, type=TaskHeader), nobody)
        list(nobody.frames.feed(frame(CANCEL, 0, join(_SAMPLE, b"null"))))
    encode_result({"warm": [1, 2.5, None]})
    encode(Failure("", ""))
    if loop is not None:
        loop.run_until_complete(_nothing())


async def _nothing() -> None:
    """Be run."""


def _run(
    birth: Birth, header: TaskHeader, payload: bytes, remote: Remote
) -> tuple[bytes | None, Failure | None]:
    start, grant, command = birth.start, birth.plan.grant, birth.plan.command
    try:
        if command is not None:
            data, failure = run_command(
                birth.plan,
                header,
                payload,
                remote,
                grouped=birth.cell.group is not None,
                filtered=birth.calls is not None,
            )
        elif start is not None:
            context = ChildContext(header, remote)
            result = start(msgspec.Raw(payload), context)
            if birth.loop is not None:
                result = remote.run(result)
            data, failure = encode_result(result)
        else:
            raise RuntimeError("a child without a handler")
    except BaseException as error:  # noqa: BLE001  whatever a handler raises is its outcome
        return None, _limit_of(error, grant) or failure_of(error)
    if data is not None and len(data) > grant.output_mb * MIB:
        megabytes = len(data) / MIB
        why = f"the result has {megabytes:.1f} MiB, of {grant.output_mb:g} that are granted"
        return None, Failure("OutputExceeded", why)
    return data, failure


def _limit_of(error: BaseException, grant: Grant) -> Failure | None:
    """The limit that an error of the handler comes from, if any."""
    if isinstance(error, MemoryError):
        why = f"more than the {grant.memory_mb:g} MiB that are granted"
        return Failure("MemoryExceeded", why)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return Failure("ProcessesExceeded", "no thread can be started")
    if not isinstance(error, OSError):
        return None
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Failure("DiskExceeded", f"more than the {grant.disk_mb:g} MiB that are granted")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Failure("FilesExceeded", f"more than the {grant.files} open files that are granted")
    if error.errno == errno.EAGAIN:
        return Failure(
            "ProcessesExceeded", f"more than the {grant.processes} processes that are granted"
        )
    if error.errno == errno.ENOMEM:
        return Failure("MemoryExceeded", f"more than the {grant.memory_mb:g} MiB that are granted")
    return None
