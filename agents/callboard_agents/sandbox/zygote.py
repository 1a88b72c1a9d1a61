"""The process that keepers are forked from: it knows the agents and nothing else.

It was started with an environment of its own and one inherited socket; it has no connection to the
server and none of its host's memory. It imports the agents' modules (of commands, none), enters
their lifespans, leaves the host's namespaces, and forks a keeper for each cell that the host wants.
Where a keeper dies, it ends with all of them; it ends with its host, and everything with it. Then
it leaves the lifespans.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  asyncio imports it in a child, who may not find it
import gc
import itertools
import json
import os
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, cast

import msgspec

from callboard_agents.agent import Agent
from callboard_agents.lifespans import StartFailed, refuse_async, spans_of
from callboard_agents.loading import load
from callboard_agents.middleware import chained, load_middleware
from callboard_agents.sandbox.cells import Cells
from callboard_agents.sandbox.cgroups import Maker, group_maker
from callboard_agents.sandbox.child import CHANNEL, REHEARSED, warm_up
from callboard_agents.sandbox.grant import CellPlan
from callboard_agents.sandbox.keeper import Keeping, keep
from callboard_agents.sandbox.layers import probe
from callboard_agents.sandbox.namespaces import first_uid, leave, mount_private
from callboard_agents.sandbox.remote import ChildLoop, Remote, prepare_logging
from callboard_agents.sandbox.seccomp import filter_for_all, filter_for_child
from callboard_agents.sandbox.syscalls import die_with_parent, no_new_privileges
from callboard_broker.errors import BadInput

__all__ = ["Orders", "main"]

_MESSAGE = 1024 * 1024
_END_SECONDS = 3.0
_REHEARSALS = 20
_READABLE = (
    *("/usr", "/lib", "/lib64", "/bin", "/sbin"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/ssl"),
)
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


class Orders(msgspec.Struct):
    """What the host wants of its zygote. base: a folder for the cells. path: `sys.path`."""

    places: list[str]
    plans: list[CellPlan]
    base: str
    path: list[str]


class Zygote:
    """The running process. control: the socket to the host."""

    def __init__(self, control: socket.socket, orders: Orders, alone: Callable[[], None]) -> None:
        self._control = control
        self._alone = alone
        self._plans = orders.plans
        self.layers = frozenset(layer for layer, reason in probe().items() if not reason)
        if "uid" in self.layers:
            for plan in orders.plans:
                _check_reach(plan)
        agents = _load(orders)
        self._agents = [agents.get(plan.capability) for plan in orders.plans]
        chains = [
            agent and chained(agent, load_middleware(plan.middleware))
            for agent, plan in zip(self._agents, orders.plans, strict=True)
        ]
        self._starts = [
            agent and (chain or agent.start)
            for agent, chain in zip(self._agents, chains, strict=True)
        ]
        # Around a plain function whatever has a context may wait for something by it.
        self._awaits = [
            agent is not None and (agent.is_async or agent.takes_context or chain is not None)
            for agent, chain in zip(self._agents, chains, strict=True)
        ]
        self._lifespans = _enter(list(agents.values()))
        if "disk" in self.layers:
            mount_private()
        if "namespaces" in self.layers:
            leave(network=any(plan.network for plan in orders.plans))
        uids = itertools.count(first_uid()) if "uid" in self.layers else None
        groups: Maker | None = group_maker() if "cgroup" in self.layers else None
        readable = [*_READABLE, *_DEVICES, sys.prefix, sys.base_prefix]
        modules = _existing(orders.path)
        self._cells = []
        for plan in orders.plans:
            own = modules if plan.command is None else list(plan.command.read)
            self._cells.append(
                Cells(
                    plan,
                    orders.base,
                    self.layers,
                    readable=[*readable, *own],
                    groups=groups,
                    uids=uids,
                )
            )
        self._filters = [
            filter_for_child(
                alone=plan.grant.processes == 1,
                network=plan.network,
                own_user="uid" in self.layers,
            )
            if "seccomp" in self.layers
            else None
            for plan in orders.plans
        ]
        self._keepers: dict[int, int] = {}
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
        _rehearse(self._loop)
        gc.disable()  # until a child's task begins: a collection would touch what is shared
        gc.collect()
        gc.freeze()
        self._mapped = _mapped()
        self._poll.register(self._control, select.EPOLLIN)
        try:
            self._tell({"ready": sorted(self.layers)})
            while self._turn():
                pass
        finally:
            self._end()

    def _turn(self) -> bool:
        for found, _ in self._poll.poll():
            if found != self._control.fileno():
                self._poll.unregister(found)
                if os.waitpid(self._keepers.pop(found), 0)[1]:
                    print("a keeper of children has died", file=sys.stderr, flush=True)  # noqa: T201
                    return False
                continue  # it has seen before us that the host is gone
            data = self._control.recv(_MESSAGE)
            if not data:
                return False
            self._keep(json.loads(data)["keep"])
        return True

    def _keep(self, plan: int) -> None:
        """Start a keeper, and hand its line to the host."""
        cell = self._cells[plan].take()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._alone()
            agent = self._agents[plan]
            keep(
                Keeping(
                    start=self._starts[plan],
                    is_async=agent is not None and agent.is_async,
                    plan=self._plans[plan],
                    cell=cell,
                    calls=self._filters[plan],
                    loop=self._loop if self._awaits[plan] else None,
                    line=theirs,
                    mapped=self._mapped,
                    nothing=self._nothing,
                    zygote=zygote,
                )
            )
        theirs.close()
        pidfd = os.pidfd_open(pid)
        self._keepers[pidfd] = pid
        self._poll.register(pidfd, select.EPOLLIN)
        self._tell({"kept": plan, "pid": pid}, ours.fileno())
        ours.close()

    def _tell(self, message: dict[str, Any], *descriptors: int) -> None:
        data = json.dumps(message).encode()
        try:
            socket.send_fds(self._control, [data], descriptors)
        except (BrokenPipeError, ConnectionResetError):
            sys.exit(0)  # the host is gone

    def _end(self) -> None:
        """The keepers see that their host is gone, or are killed with this process."""
        self._control.close()
        deadline = time.monotonic() + _END_SECONDS
        for pidfd in self._keepers:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([pidfd], [], [], left)[0]:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pid in self._keepers.values():
            os.waitpid(pid, 0)
        for cells in self._cells:
            cells.remove()
        self._lifespans.close()


def _load(orders: Orders) -> dict[str, Agent[..., Any]]:
    """The agents whose handlers run in children, by capability, with the instances of classes."""
    wanted = {plan.capability for plan in orders.plans if plan.command is None}
    if not wanted:
        return {}
    agents = {one.capability: one for one in load(orders.places) if one.capability in wanted}
    for agent in agents.values():
        _ = agent.handler  # instances are made here, once for all children
    return agents


def _enter(agents: list[Agent[..., Any]]) -> ExitStack:
    """Enter what these agents need, once for all children. Raises `StartFailed`, `BadInput`."""
    spans = spans_of(agents)
    refuse_async(spans)
    with ExitStack() as stack:
        for span in spans:
            try:
                stack.enter_context(cast("AbstractContextManager[Any]", span.enter()))
            except Exception as error:
                raise StartFailed.of(span, error) from error
        return stack.pop_all()


def _check_reach(plan: CellPlan) -> None:
    """Children get a user of their own, to whom folders may be closed that are open to this one."""
    paths = () if plan.command is None else plan.command.read
    for path in dict.fromkeys([*paths, *map(os.path.realpath, paths)]):
        place = path
        needed = stat.S_IROTH
        while True:
            if not os.stat(place).st_mode & needed:
                raise BadInput(
                    f"{plan.capability}.command",
                    f"{path} cannot be reached by the user that a child gets: {place} is closed to "
                    "others; chmod o+rx it, or keep the command in a folder that is open",
                )
            if place == "/":
                break
            place, needed = os.path.dirname(place), stat.S_IXOTH


def _rehearse(loop: ChildLoop) -> None:
    """Do some times over what every child does, so that no child is the first: the interpreter
    writes into code that it runs for the first time."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        bell = loop.begin()
        for _ in range(_REHEARSALS):
            ours.send(REHEARSED)
            warm_up(Remote(theirs, loop))
        os.close(bell)
    loop.expect(CHANNEL + 1)  # the first number that is free in a child


def _existing(path: list[str]) -> list[str]:
    return [place for place in path if place and os.path.exists(place)]


def _mapped() -> int:
    """The bytes of address space of this process, with which its children begin."""
    with open("/proc/self/statm", encoding="ascii") as found:
        return int(found.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def main(descriptor: int, alone: Callable[[], None]) -> int:
    """Serve the host at the other end of this socket until it is gone. alone: to be called by a
    process that has one thread, and whose children have."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = socket.socket(fileno=descriptor)
    die_with_parent(os.getppid())
    orders = msgspec.json.decode(control.recv(_MESSAGE), type=Orders)
    sys.path[:] = orders.path
    try:
        zygote = Zygote(control, orders, alone)
    except BadInput as error:
        control.send(json.dumps({"refused": str(error), "field": error.field}).encode())
        return 2
    except StartFailed as error:
        control.send(json.dumps({"failed": error.reason, "span": error.span}).encode())
        return 1
    zygote.run()
    return 0
