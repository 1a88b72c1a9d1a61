"""The host's side of its child processes: prepared ahead of time, each for one task, or for tasks
of one tenant where its agent allows that.

The zygote forks a keeper for each cell, the keeper its children one after the other; with each of
them the host talks over a socket of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from callboard_agents.sandbox.ends import Report
from callboard_agents.sandbox.figures import Figures
from callboard_agents.sandbox.grant import CellPlan
from callboard_agents.sandbox.line import BORN, GONE, Order
from callboard_agents.sandbox.living import Living, LivingCell
from callboard_agents.sandbox.prepared import Child

__all__ = ["Nursery"]

_MESSAGE = 64 * 1024
_SHORT = 256
_OUTCOMES_WAY_S = 0.005
_PATIENCE_S = 0.1  # in which another tenant's process may go to one of its own who came later
_IDLE_S = 10.0  # that a process waits for another task of its tenant
_LOG = logging.getLogger("callboard.host")


class _Cell:
    """One cell's keeper, at the other end of `line`. pid: the keeper's. child: who lives there now.
    coming: another child is being made."""

    def __init__(self, nursery: Nursery, number: int, pid: int, line: socket.socket) -> None:
        self.layers = nursery.sorted_layers
        self.used_layers = tuple(layer for layer in self.layers if layer != "fresh")
        self.plan = nursery.plans[number]
        self.number = number
        self.pid = pid
        self.child: Child | None = None
        self._children = 0
        self.coming = True
        self._ending = False
        self._nursery = nursery
        self._line = line
        self._loop = asyncio.get_running_loop()
        line.setblocking(False)
        self._loop.add_reader(line, self._read)

    @property
    def newborn(self) -> Figures | None:
        """See `prepared.Cell`. Asked of the first child that is taken: all are alike."""
        if self._nursery.newborn is None and self.child is not None:
            self._nursery.newborn = self.child.figures()
        return self._nursery.newborn

    def living(self) -> LivingCell:
        """Return who is there at this moment; from any thread."""
        child = self.child
        past = None if child is None else child.past
        busy = child is not None and child.busy
        return LivingCell(
            keeper=self.pid,
            child=0 if child is None else child.pid,
            children=self._children,
            tasks=0 if past is None else past.tasks,
            busy=busy,
            starts=busy and self.plan.grant.processes > 1,
            command=self.plan.command is not None,
        )

    def make(self) -> None:
        """Have the next child made; there must be none."""
        self.coming = True
        self._tell(Order.MAKE)

    def end(self, child: Child) -> None:
        """End it and all that it has started; make another one at once if one is wanted."""
        if self.child is not child or self._ending:
            return
        self._ending = True
        if self._nursery.wants(self.number):
            self.coming = True
            self._tell(Order.KILL_AND_MAKE)
        else:
            self._tell(Order.KILL)

    def end_soon(self, child: Child) -> None:
        """See `end`; a moment later where children are ready, for what that costs would be in the
        way of the outcome, in every process that it comes through."""
        pause = _OUTCOMES_WAY_S if self._nursery.has_plenty(self.number) else 0
        self._loop.call_later(pause, self.end, child)

    def keep(self, child: Child) -> None:
        """See `prepared.Cell`."""
        self.child = child
        self._nursery.keep(child, self)

    def close(self) -> None:
        """Its keeper sees that, and ends with its child."""
        self._loop.remove_reader(self._line)
        self._line.close()
        if self.child is not None:
            self.child.lost()
            self.child = None

    def _tell(self, order: bytes) -> None:
        try:
            self._line.send(order)
        except OSError as error:  # the zygote ends with it, and that is read in a moment
            _LOG.debug("a keeper takes nothing more: %s", error)

    def _read(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._line, _SHORT, 1)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._loop.remove_reader(self._line)
        elif descriptors:
            channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fileno=descriptors[0])
            self.coming = False
            self._children += 1
            (pid,) = BORN.unpack(data)
            self.child = Child(self, pid, channel)
            self._nursery.born(self.child, self.number)
        else:
            child, self.child = self.child, None
            self._ending = False
            if child is not None:
                self._nursery.forget(child, self.number)
            self._nursery.gone(self)
            if child is not None:
                child.gone(Report(*GONE.unpack(data)))


class _Waiting:
    """Somebody who waits for a child. tenant: as of `Nursery.take`. since: by the loop's clock."""

    __slots__ = ("child", "since", "tenant")

    def __init__(self, tenant: str | None) -> None:
        loop = asyncio.get_running_loop()
        self.tenant = tenant
        self.since = loop.time()
        self.child: asyncio.Future[Child] = loop.create_future()


class Nursery:
    """Prepared children by capability. layers: those that its children really have.

    over: set when the zygote has ended by itself; every child has had its end before.
    newborn: what a child has before its first task, once known. base: the folder of its cells.
    zygote: its pid.
    """

    def __init__(
        self, control: socket.socket, plans: Sequence[CellPlan], told: dict[str, Any]
    ) -> None:
        self.layers = frozenset[str](told["ready"])
        self.sorted_layers = tuple(sorted(self.layers))
        self.newborn: Figures | None = None
        self.base = ""
        self.zygote = 0
        self.over = asyncio.Event()
        self.plans = list(plans)
        self._control = control
        self._index = {plan.capability: number for number, plan in enumerate(plans)}
        self._ready: list[deque[Child]] = [deque() for _ in plans]
        self._kept: list[dict[str, list[Child]]] = [{} for _ in plans]
        self._idle: list[dict[Child, asyncio.TimerHandle]] = [{} for _ in plans]  # oldest first
        self._waiting: list[deque[_Waiting]] = [deque() for _ in plans]
        self._coming = [0] * len(self.plans)
        self._at_once = len(os.sched_getaffinity(0))
        self._cells_left = [plan.slots + plan.spares for plan in plans]
        self._empty: list[list[_Cell]] = [[] for _ in plans]
        self._cells: list[_Cell] = []
        for number in range(len(self.plans)):
            self._fill(number)
        asyncio.get_running_loop().add_reader(control, self._read)

    def take(self, capability: str, tenant: str | None = None) -> Child | None:
        """Return a prepared child, which is then the caller's; None: none is ready.

        tenant: whose task it is, if that may run where another of the same tenant has run, and
        another may run after it. Raises `ConnectionResetError` once the zygote has died.
        """
        plan = self._index[capability]
        if self.over.is_set():
            raise ConnectionResetError("the process that starts children has died")
        while tenant is not None and tenant in self._kept[plan]:
            child = self._kept[plan][tenant][-1]  # whose memory is the warmest
            self._unkeep(child, plan)
            if child.is_silent():
                return child
            child.kill()
        if not self._ready[plan]:
            return None
        child = self._ready[plan].popleft()
        child.tenant = tenant
        self._fill(plan)
        return child

    async def wait(self, capability: str, tenant: str | None = None) -> Child:
        """Return a prepared child as soon as there is one. First come, first served.

        tenant: as of `take`. Raises `ConnectionResetError` once the zygote has died.
        """
        child = self.take(capability, tenant)
        if child is not None:
            return child
        plan = self._index[capability]
        waiting = _Waiting(tenant)
        self._waiting[plan].append(waiting)
        self._fill(plan)
        try:
            child = await waiting.child
        except asyncio.CancelledError:
            future = waiting.child
            if waiting in self._waiting[plan]:
                self._waiting[plan].remove(waiting)
            elif not future.cancelled() and future.exception() is None:
                self._give_back(plan, future.result())
            raise
        return await self.wait(capability, tenant) if child.over else child

    def living(self) -> Living:
        """Return the processes that there are at this moment; from any thread."""
        return Living(self.zygote, tuple(cell.living() for cell in list(self._cells)))

    def close(self) -> None:
        """Read nothing more from the zygote, and let go of every child; none of them lives on."""
        asyncio.get_running_loop().remove_reader(self._control)
        for idle in self._idle:
            for timer in idle.values():
                timer.cancel()
        cells, self._cells = self._cells, []
        for cell in cells:
            cell.close()

    # -- what the cells ask and tell

    def wants(self, plan: int) -> bool:
        """Whether another child of this plan shall be made; it is then counted as coming."""
        if self._lacking(plan) <= 0:
            return False
        self._coming[plan] += 1
        return True

    def has_plenty(self, plan: int) -> bool:
        """Whether half of the spares are ready."""
        return 2 * len(self._ready[plan]) >= max(1, self.plans[plan].spares)

    def born(self, child: Child, plan: int) -> None:
        """A child is ready."""
        self._coming[plan] -= 1
        self._offer(plan, child)
        self._fill(plan)

    def gone(self, cell: _Cell) -> None:
        """A cell has no child any more."""
        if not cell.coming:
            self._empty[cell.number].append(cell)
        self._fill(cell.number)

    def forget(self, child: Child, plan: int) -> None:
        """It is gone, perhaps before it had a task."""
        if child in self._idle[plan]:
            self._unkeep(child, plan)
        elif child in self._ready[plan]:
            self._ready[plan].remove(child)
            _LOG.warning("a child process of %s ended before its task", child.plan.capability)

    def keep(self, child: Child, cell: _Cell) -> None:
        """It has run a task, and may run another of its tenant."""
        plan = cell.number
        loop = asyncio.get_running_loop()
        for ahead, waiting in enumerate(self._waiting[plan]):
            if waiting.tenant == child.tenant and not waiting.child.done():
                self._waiting[plan].remove(waiting)
                waiting.child.set_result(child)
                return
            if ahead >= self._coming[plan] and loop.time() - waiting.since > _PATIENCE_S:
                break  # for whoever has waited so long a child is coming, or is made now
        self._kept[plan].setdefault(child.tenant or "", []).append(child)
        self._idle[plan][child] = loop.call_later(_IDLE_S, self._retire, child, plan)
        self._fill(plan)

    # --

    def _lacking(self, plan: int) -> int:
        """How many more shall be made now: for spares no more at once than there are cores, so
        that nobody who has work is pushed aside by work for later."""
        waiting, coming = len(self._waiting[plan]), self._coming[plan]
        wanted = max(self.plans[plan].spares, waiting) - len(self._ready[plan])
        return min(wanted, max(waiting, self._at_once)) - coming

    def _fill(self, plan: int) -> None:
        """Have as many children made as are wanted and there is room for."""
        for _ in range(self._lacking(plan)):
            if self._empty[plan]:
                self._empty[plan].pop().make()
            elif self._cells_left[plan]:
                self._cells_left[plan] -= 1
                self._tell({"keep": plan})
            elif self._idle[plan]:
                self._retire(next(iter(self._idle[plan])), plan)
                continue  # it counts as coming
            else:
                return
            self._coming[plan] += 1

    def _retire(self, child: Child, plan: int) -> None:
        """It is not kept any longer: it ends, and makes room for another."""
        self._unkeep(child, plan)
        child.kill()

    def _unkeep(self, child: Child, plan: int) -> None:
        self._idle[plan].pop(child).cancel()
        tenant = child.tenant or ""
        self._kept[plan][tenant].remove(child)
        if not self._kept[plan][tenant]:
            del self._kept[plan][tenant]

    def _tell(self, order: dict[str, int]) -> None:
        try:
            self._control.send(json.dumps(order).encode())
        except OSError as error:  # its end is read in a moment
            _LOG.debug("the zygote takes nothing more: %s", error)

    def _read(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._died()
                return
            line = socket.socket(fileno=descriptors[0])
            told = json.loads(data)
            self._cells.append(_Cell(self, told["kept"], told["pid"], line))

    def _offer(self, plan: int, child: Child) -> None:
        """Give it to who waits longest, else keep it ready."""
        waiting = self._waiting[plan]
        while waiting:
            first = waiting.popleft()
            if not first.child.done():
                child.tenant = first.tenant
                first.child.set_result(child)
                return
        self._ready[plan].append(child)

    def _give_back(self, plan: int, child: Child) -> None:
        """Who waited for it does not want it any more."""
        if child.past is None:
            self._offer(plan, child)
        else:
            child.kill()

    def _died(self) -> None:
        self.over.set()
        self.close()
        for waiting in self._waiting:
            while waiting:
                future = waiting.popleft().child
                if not future.done():
                    error = ConnectionResetError("the process that starts children has died")
                    future.set_exception(error)
