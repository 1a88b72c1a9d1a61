"""A nursery whose children do as a test says, for what real ones do once in a year."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from callboard_agents.sandbox import CellPlan, Child, Ending, Heard, Nursery, TaskHeader
from callboard_broker.wire import Failure

__all__ = ["ScriptedChild", "ScriptedNursery", "Zygotes"]


class ScriptedChild(Child):
    """It notes what it is given."""

    def __init__(self) -> None:
        self.header: TaskHeader | None = None
        self.payload = b""
        self.heard: Heard | None = None
        self.answers: dict[int, bytes | Failure] = {}
        self.cancelled = False
        self.killed = False
        self.answered = asyncio.Event()
        self.started = asyncio.Event()

    def start(self, task: TaskHeader, payload: bytes, heard: Heard) -> None:
        """Begin, and do nothing."""
        self.header, self.payload, self.heard = task, payload, heard
        self.started.set()

    def answer(self, number: int, answer: bytes | Failure) -> None:
        """Keep the answer."""
        self.answers[number] = answer
        self.answered.set()

    async def taken(self) -> None:
        """Take everything at once."""

    def cancel(self) -> None:
        """Take no notice but a note."""
        self.cancelled = True

    def kill(self) -> None:
        """End, as if by SIGKILL."""
        if not self.killed:
            self.killed = True
            if self.heard is not None:
                self.end(Ending(failure=Failure("Crashed", "killed by SIGKILL")))

    def end(self, ending: Ending) -> None:
        """Say that it has ended."""
        assert self.heard is not None
        heard, self.heard = self.heard, None
        heard.ended(ending)


class ScriptedNursery(Nursery):
    """It has the children that a test has put there."""

    def __init__(self, layers: Sequence[str] = ("fresh", "rlimits", "seccomp")) -> None:
        self.layers = frozenset(layers)
        self.over = asyncio.Event()
        self.asked = asyncio.Event()
        self.ready: deque[ScriptedChild] = deque()
        self.waiting: deque[asyncio.Future[Child]] = deque()
        self.tenants: list[str | None] = []

    def take(self, capability: str, tenant: str | None = None) -> Child | None:
        """The oldest, if there is one."""
        self.tenants.append(tenant)
        if self.over.is_set():
            raise ConnectionResetError(capability)
        return self.ready.popleft() if self.ready else None

    async def wait(self, capability: str, tenant: str | None = None) -> Child:
        """The next that is put there."""
        self.tenants.append(tenant)
        if self.over.is_set():
            raise ConnectionResetError(capability)
        if self.ready:
            return self.ready.popleft()
        self.asked.set()
        future: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        return await future

    def put(self, child: ScriptedChild) -> ScriptedChild:
        """Make one more ready."""
        while self.waiting:
            future = self.waiting.popleft()
            if not future.done():
                future.set_result(child)
                return child
        self.ready.append(child)
        return child

    def die(self) -> None:
        """The zygote is dead, and so is whoever waited for a child of it."""
        self.over.set()
        for future in self.waiting:
            if not future.done():
                future.set_exception(ConnectionResetError("the zygote has ended"))


class Zygotes:
    """Opens nurseries, as `open_nursery` does; the test finds them in `opened`."""

    def __init__(self, *, broken: int = 0) -> None:
        self.opened: list[ScriptedNursery] = []
        self.required: frozenset[str] = frozenset()
        self.broken = broken
        self.changed = asyncio.Event()

    @asynccontextmanager
    async def __call__(
        self, *, places: Sequence[str], plans: Sequence[CellPlan], require: frozenset[str]
    ) -> AsyncIterator[Nursery]:
        """Open one more; the first `broken` do not open."""
        assert places
        assert plans
        self.required = require
        if self.broken:
            self.broken -= 1
            raise BlockingIOError("no more processes")
        nursery = ScriptedNursery()
        self.opened.append(nursery)
        self.changed.set()
        yield nursery
