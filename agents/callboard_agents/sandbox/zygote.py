"""The process that children are forked from: it knows the agents and nothing else.

It was started with an environment of its own and one inherited socket; it has no connection to the
server and none of its host's memory. It imports the agents' modules, leaves the host's namespaces,
and forks a child whenever the host wants one: into a cell, for one task. It reaps every child, with
all that the child has started, and tells what it used. It ends with its host, and its children with
it.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import select
import signal
import socket
import sys
from typing import Any

import msgspec

from callboard_agents.agent import Agent
from callboard_agents.loading import load
from callboard_agents.sandbox.cells import Cell, Cells
from callboard_agents.sandbox.cgroups import Maker, group_maker
from callboard_agents.sandbox.child import Birth, live
from callboard_agents.sandbox.grant import CellPlan
from callboard_agents.sandbox.layers import probe
from callboard_agents.sandbox.namespaces import first_uid, leave, mount_private
from callboard_agents.sandbox.remote import ChildLoop, prepare_logging
from callboard_agents.sandbox.seccomp import filter_for_all, filter_for_child
from callboard_agents.sandbox.syscalls import die_with_parent, no_new_privileges
from callboard_broker.errors import BadInput

__all__ = ["Orders", "main"]

_MESSAGE = 1024 * 1024
_READABLE = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl")
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


class Orders(msgspec.Struct):
    """What the host wants of its zygote. base: a folder for the cells. path: `sys.path`."""

    places: list[str]
    plans: list[CellPlan]
    base: str
    path: list[str]


class _Child(msgspec.Struct):
    """One that lives. plan: which one's."""

    pid: int
    plan: int
    cell: Cell
    pidfd: int


class Zygote:
    """The running process. control: the socket to the host."""

    def __init__(self, control: socket.socket, orders: Orders) -> None:
        self._control = control
        self._plans = orders.plans
        loaded = {agent.capability: agent for agent in load(orders.places)}
        self._agents: list[Agent[..., Any]] = [loaded[one.capability] for one in orders.plans]
        for agent in self._agents:
            _ = agent.handler  # instances are made here, once for all children
        self.layers = frozenset(layer for layer, reason in probe().items() if not reason)
        if "disk" in self.layers:
            mount_private()
        if "namespaces" in self.layers:
            leave(network=any(plan.network for plan in orders.plans))
        uids = itertools.count(first_uid()) if "uid" in self.layers else None
        groups: Maker | None = group_maker() if "cgroup" in self.layers else None
        readable = [*_READABLE, *_DEVICES, sys.prefix, sys.base_prefix, *_existing(orders.path)]
        self._cells = [
            Cells(plan, orders.base, self.layers, readable=readable, groups=groups, uids=uids)
            for plan in orders.plans
        ]
        self._filters = [
            filter_for_child(alone=plan.grant.processes == 1, network=plan.network)
            if "seccomp" in self.layers
            else None
            for plan in orders.plans
        ]
        self._children: dict[int, _Child] = {}
        self._by_pidfd: dict[int, int] = {}
        self._numbers = 0
        self._poll = select.epoll()
        self._nothing = os.open(os.devnull, os.O_RDWR)
        if "seccomp" in self.layers:
            no_new_privileges()
            filter_for_all().enter(os.getpid())

    def run(self) -> None:
        """Do what the host wants until it is gone."""
        os.environ.clear()
        os.environ.update(_ENVIRONMENT)
        prepare_logging()
        self._loop = ChildLoop()
        gc.disable()  # until a child's task begins: a collection would touch what is shared
        gc.collect()
        gc.freeze()
        self._mapped, self._resident_kb = _memory()
        self._tell({"ready": sorted(self.layers), "resident_mb": self._resident_kb / 1024})
        self._poll.register(self._control, select.EPOLLIN)
        try:
            while self._turn():
                pass
        finally:
            self._end()

    def _turn(self) -> bool:
        for found, _ in self._poll.poll():
            if found == self._control.fileno():
                data = self._control.recv(_MESSAGE)
                if not data:
                    return False
                self._obey(json.loads(data))
            else:
                self._reap(self._by_pidfd[found])
        return True

    def _obey(self, order: dict[str, Any]) -> None:
        if "make" in order:
            self._make(order["make"])
        elif "kill" in order:
            child = self._children.get(order["kill"])
            if child is not None:
                _kill(child.pid)

    def _make(self, plan: int) -> None:
        number = self._numbers
        self._numbers += 1
        cell = self._cells[plan].take()
        ours, theirs = socket.socketpair()
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            live(
                Birth(
                    agent=self._agents[plan],
                    plan=self._plans[plan],
                    cell=cell,
                    layers=self.layers,
                    calls=self._filters[plan],
                    mapped=self._mapped,
                    nothing=self._nothing,
                    zygote=zygote,
                    loop=self._loop if self._agents[plan].is_async else None,
                ),
                theirs,
            )
        theirs.close()
        pidfd = os.pidfd_open(pid)
        self._children[number] = _Child(pid, plan, cell, pidfd)
        self._by_pidfd[pidfd] = number
        self._poll.register(pidfd, select.EPOLLIN)
        self._tell({"born": number, "plan": plan, "pid": pid}, ours.fileno())
        ours.close()

    def _reap(self, number: int) -> None:
        child = self._children.pop(number)
        _kill(child.pid)  # what it has started; its own pid is not given away before the wait
        _, status, used = os.wait4(child.pid, 0)
        self._poll.unregister(child.pidfd)
        os.close(child.pidfd)
        del self._by_pidfd[child.pidfd]
        cell = child.cell
        killed = os.WIFSIGNALED(status)
        starved = killed and cell.group is not None and cell.group.ran_out()
        self._tell(
            {
                "gone": number,
                "status": status,
                "cpu_s": used.ru_utime + used.ru_stime,
                "peak_mb": max(0, used.ru_maxrss - self._resident_kb) / 1024,
                "starved": starved,
            }
        )
        self._cells[child.plan].give_back(cell)

    def _tell(self, message: dict[str, Any], *descriptors: int) -> None:
        data = json.dumps(message).encode()
        try:
            socket.send_fds(self._control, [data], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            sys.exit(0)  # the host is gone

    def _end(self) -> None:
        for child in self._children.values():
            _kill(child.pid)
        for child in self._children.values():
            os.waitpid(child.pid, 0)
        for cells in self._cells:
            cells.remove()


def _kill(pid: int) -> None:
    """End the child and everything in its group."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _existing(path: list[str]) -> list[str]:
    return [place for place in path if place and os.path.exists(place)]


def _memory() -> tuple[int, int]:
    """(bytes of address space, KiB resident) of this process, with which its children begin."""
    page = os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/statm", encoding="ascii") as found:
        mapped, resident = (int(word) * page for word in found.read().split()[:2])
    return mapped, resident // 1024


def main(descriptor: int) -> int:
    """Serve the host at the other end of this socket until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    die_with_parent(os.getppid())
    orders = msgspec.json.decode(control.recv(_MESSAGE), type=Orders)
    sys.path[:] = orders.path
    try:
        zygote = Zygote(control, orders)
    except BadInput as error:
        control.send(json.dumps({"refused": str(error), "field": error.field}).encode())
        return 2
    zygote.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
