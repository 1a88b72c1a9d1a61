"""The process that keeps one cell: it lives in the cell's control group, and forks its children.

A child inherits what its keeper has entered, and enters only what a keeper cannot do its work in.
One child lives at a time. When it is gone, the keeper has waited for it and for whatever it had
started, whether or not that had left its process group, and has emptied the cell: nothing of one
task is there for the next. A keeper ends with its host and with the zygote.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import msgspec

from callboard_agents.context import Context
from callboard_agents.sandbox.cells import Cell
from callboard_agents.sandbox.cgroups import Counts
from callboard_agents.sandbox.child import CHANNEL, MOST_FILES, NICER, REHEARSED, Birth, live
from callboard_agents.sandbox.grant import CellPlan
from callboard_agents.sandbox.line import BORN, GONE, Order
from callboard_agents.sandbox.remote import ChildLoop, Remote, capture
from callboard_agents.sandbox.rlimits import MIB, limit_this_process, user_tasks
from callboard_agents.sandbox.seccomp import Filter
from callboard_agents.sandbox.syscalls import (
    Turns,
    adopt_orphans,
    die_with_parent,
    no_new_privileges,
)

__all__ = ["Keeping", "keep"]

_LINE, _COMPLAINTS, _SCORE, _RULESET = range(CHANNEL + 1, CHANNEL + 5)
_ORDERS = 16
_FIRST = b"1000"  # of what the kernel ends where memory runs out on the whole machine
_TURN_MS = 1.0  # of the CPU: a task is let in sooner than most, and has no more of it
_DESCRIPTOR = struct.Struct("=i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What the zygote gives a keeper. start, is_async: as in `Birth`. calls: the filter of its
    children. loop: if they need one. line: the socket to the host. mapped: the address space with
    which a child begins. nothing: a descriptor of /dev/null. zygote: its pid."""

    start: Callable[[msgspec.Raw, Context], Any] | None
    is_async: bool
    plan: CellPlan
    cell: Cell
    calls: Filter | None
    loop: ChildLoop | None
    line: socket.socket
    mapped: int
    nothing: int
    zygote: int


def keep(keeping: Keeping) -> NoReturn:
    """In the keeper: never returns."""
    code, complaints = 1, 2
    try:
        _keep_only(keeping)
        complaints = _COMPLAINTS
        _Keeper(keeping).run()
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # the host is gone
    except BaseException:  # noqa: BLE001  it must not go on as a second zygote
        os.write(complaints, traceback.format_exc().encode())
    finally:
        os._exit(code)


class _Keeper:
    def __init__(self, keeping: Keeping) -> None:
        adopt_orphans()
        self._cell = cell = keeping.cell
        self._line = socket.socket(fileno=_LINE)
        self._poll = select.poll()
        self._poll.register(self._line, select.POLLIN)
        self._pid = self._pidfd = 0
        self._before = Counts()
        os.umask(0o077)
        os.chdir(cell.place)
        os.environ["HOME"] = os.environ["TMPDIR"] = cell.place
        if cell.group is not None:
            cell.group.join()
        self._is_command = keeping.plan.command is not None
        grant = keeping.plan.grant
        if self._is_command and cell.group is not None:
            # The group's memory is limited; many programs reserve addresses that they never touch.
            grant = replace(grant, memory_mb=None)
        tasks = None
        if cell.uid is not None:
            tasks = user_tasks(grant, counted=cell.group is not None)
            os.setgroups([])
            os.setresgid(cell.uid, cell.uid, cell.uid)
        die_with_parent(keeping.zygote)  # which a change of groups takes back
        no_new_privileges()
        self._score = os.read(_SCORE, _ORDERS)
        limit_this_process(grant, has_bytes=keeping.mapped, tasks=tasks)
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, CHANNEL)
        most_bytes = int(grant.output_mb * MIB)
        remote = Remote(channel, keeping.loop, most_bytes=most_bytes)
        capture(remote)
        self._birth = Birth(
            start=keeping.start,
            is_async=keeping.is_async,
            plan=keeping.plan,
            cell=cell,
            calls=keeping.calls,
            remote=remote,
            turns=Turns(
                _TURN_MS, nice=os.nice(0) if cell.group is not None else os.nice(0) + NICER
            ),
            environment=dict(os.environ),
            keeper=os.getpid(),
        )

    def run(self) -> None:
        """Do what the host wants until it is gone."""
        self._make()
        while True:
            ready = dict(self._poll.poll())
            if self._pidfd in ready:  # first: what is wanted at the same moment finds it gone
                self._end(told=False)
            if _LINE in ready and not self._obey(self._line.recv(_ORDERS)):
                if self._pid:
                    self._kill()
                return

    def _obey(self, order: bytes) -> bool:
        if self._pid and order != Order.MAKE:
            self._end(told=True)
        if order != Order.KILL and order:
            self._make()
        return bool(order)

    def _make(self) -> None:
        if self._cell.group is not None:
            self._before = self._cell.group.counts()
        ours, theirs = socket.socketpair()
        ours.send(REHEARSED)
        os.write(_SCORE, _FIRST)  # to be ended is inherited, and costs a child nothing
        self._pid = pid = os.fork()
        if pid == 0:
            live(self._birth, theirs.fileno())
        os.write(_SCORE, self._score)
        theirs.close()
        self._pidfd = pidfd = os.pidfd_open(pid)
        self._poll.register(pidfd, select.POLLIN)
        channel = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(ours.fileno()))
        self._line.sendmsg((BORN.pack(pid),), (channel,))
        ours.close()

    def _end(self, *, told: bool) -> None:
        """The child shall end, or has ended: tell what it used, and empty its cell."""
        status, used = self._kill()
        told = told and not self._is_command  # whose programs may have met a limit before
        starved, tasks = self._met() if not told and os.WIFSIGNALED(status) else (False, 0)
        peak = used.ru_maxrss / 1024
        self._poll.unregister(self._pidfd)
        os.close(self._pidfd)
        self._pid = 0
        self._cell.empty()
        self._line.send(GONE.pack(status, used.ru_utime + used.ru_stime, peak, starved, tasks))

    def _met(self) -> tuple[bool, int]:
        """What the group's limits have done to the child: whether memory ran out, and how many
        processes and threads there were when another was refused (0: none was)."""
        group = self._cell.group
        if group is None:
            return False, 0
        counts, before = group.counts(), self._before
        refused = counts.refused > before.refused
        return counts.killed > before.killed, group.most_tasks() if refused else 0

    def _kill(self) -> tuple[int, resource.struct_rusage]:
        """End the child and all that it has started; its pid is its own until it is waited for."""
        pid = self._pid
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not got so far as to have a group
            os.kill(pid, signal.SIGKILL)
        _, status, used = os.wait4(pid, 0)
        try:
            while True:  # orphans become children of this process
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    _kill_children()
                    os.waitpid(-1, 0)
        except ChildProcessError:
            return status, used


def _kill_children() -> None:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as found:
        for pid in found.read().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _keep_only(keeping: Keeping) -> None:
    """Close everything else; nothing on 0 to 2, and a socket on 3, where its channel will be in a
    child."""
    channel, other = socket.socketpair()
    score = os.open("/proc/self/oom_score_adj", os.O_RDWR)
    kept = [channel.detach(), keeping.line.detach(), 2, score]
    if keeping.cell.ruleset is not None:
        kept.append(keeping.cell.ruleset)
        keeping.cell.ruleset = _RULESET
    high = [fcntl.fcntl(each, fcntl.F_DUPFD, CHANNEL + len(kept)) for each in kept]
    for standard in range(CHANNEL):
        os.dup2(keeping.nothing, standard)
    for number, each in enumerate(high, CHANNEL):
        os.dup2(each, number)
    other.detach()
    os.closerange(CHANNEL + len(kept), MOST_FILES)
