"""The host's side of its child processes: prepared ahead of time, each for exactly one task.

The zygote forks them and reaps them; the host talks with each over a socket of its own. What a
child says is bounded before it is looked at, and its end is what the kernel reports, not what it
says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from callboard_agents.lifespans import StartFailed
from callboard_agents.sandbox.channel import (
    ANSWER,
    ASKED,
    CANCEL,
    FAILED,
    REFUSE,
    RESULT,
    START,
    TOLD,
    Frames,
    TooLong,
    frame,
    join,
    split,
)
from callboard_agents.sandbox.grant import CellPlan, Ending, Grant, Heard, TaskHeader
from callboard_broker.errors import BadInput
from callboard_broker.wire import Failure, Usage, encode

__all__ = ["Child", "Nursery", "open_nursery"]

_READY_SECONDS = 60.0  # as long as the agents' modules may take
_END_SECONDS = 5.0
_MESSAGE = 64 * 1024
_READ = 256 * 1024
_SAID = 64 * 1024
_MIB = 1024 * 1024
_PREFIX = "callboard-cells-"
_LOG = logging.getLogger("callboard.host")


class Child:
    """One prepared process; good for one task."""

    def __init__(
        self, nursery: Nursery, born: dict[str, int], plan: CellPlan, channel: socket.socket
    ) -> None:
        self.layers: tuple[str, ...] = tuple(sorted(nursery.layers))
        self.plan = plan
        self.number = born["born"]
        self.pid = born["pid"]
        self._nursery = nursery
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        output = int(plan.grant.output_mb * _MIB) + _SAID
        self._frames = Frames({TOLD: _SAID + 64, ASKED: output, RESULT: output, FAILED: _SAID})
        self._unsent = bytearray()
        self._heard: Heard | None = None
        self._result: bytes | None = None
        self._failure: Failure | None = None
        self._begun = 0.0
        self._killed = False
        self._said = False
        self._over = False
        channel.setblocking(False)

    def start(self, task: TaskHeader, payload: bytes, heard: Heard) -> None:
        """Give it its task; `heard.ended` comes exactly once."""
        self._heard = heard
        self._begun = time.monotonic()
        self._loop.add_reader(self._channel, self._read)
        self._send(frame(START, 0, join(encode(task), payload)))

    def answer(self, number: int, answer: bytes | Failure) -> None:
        """Answer what it asked as `number`; without effect once it is gone."""
        if isinstance(answer, Failure):
            self._send(frame(REFUSE, number, encode(answer)))
        else:
            self._send(frame(ANSWER, number, answer))

    def cancel(self) -> None:
        """Ask it to stop."""
        self._send(frame(CANCEL, 0))

    def kill(self) -> None:
        """End it and all that it started, at once; `heard.ended` follows."""
        if not self._over:
            self._killed = True
            self._nursery.kill(self)

    def gone(self, report: dict[str, Any]) -> None:
        """The zygote has reaped it."""
        if self._heard is not None:
            while not self._over:  # what it had said before
                self._read()
        self._close()
        if self._heard is not None:
            usage = Usage(report["cpu_s"], report["peak_mb"], time.monotonic() - self._begun)
            self._heard.ended(self._ending(report, usage))

    def lost(self) -> None:
        """The zygote has died, and this child with it."""
        self._close()
        if self._heard is not None:
            why = "the process that starts children has died, and this one with it"
            self._heard.ended(Ending(failure=Failure("Crashed", why), layers=self.layers))

    def _ending(self, report: dict[str, Any], usage: Usage) -> Ending:
        if self._result is not None and not self._killed:
            return Ending(result=self._result, usage=usage, layers=self.layers)
        # A command whose process was killed for want of memory knows only that it was killed.
        starved = self.plan.command is not None and report["starved"]
        told = None if starved else self._failure
        failure = told or _why(report, usage, self.plan.grant, killed=self._killed)
        return Ending(failure=failure, usage=usage, layers=self.layers)

    def _send(self, data: bytes) -> None:
        if self._over:
            return
        if not self._unsent:
            try:
                sent = self._channel.send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                _LOG.debug("a child takes nothing more: %s", error)
                return
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._channel, self._write)
        self._unsent += data

    def _write(self) -> None:
        try:
            sent = self._channel.send(self._unsent)
        except BlockingIOError:
            return
        except OSError as error:
            _LOG.debug("a child takes nothing more: %s", error)
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._channel)

    def _read(self) -> None:
        try:
            data = self._channel.recv(_READ)
        except BlockingIOError:
            if self._nursery.is_gone(self):  # with all that it had started: nobody can say more
                self._close()
            return
        except OSError as error:
            _LOG.debug("a child's channel: %s", error)
            data = b""
        if not data:
            self._close()
            return
        try:
            for verb, number, body in self._frames.feed(data):
                self._hear(verb, number, body)
        except TooLong as error:
            self._too_long(*error.args)

    def _hear(self, verb: int, number: int, body: bytes) -> None:
        heard = self._heard
        if heard is None or self._said:
            return
        if verb == RESULT:
            self._result = body
            self._last_word()
        elif verb == FAILED:
            try:
                self._failure = msgspec.json.decode(body, type=Failure)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._failure = Failure("Crashed", f"its last words cannot be read: {error}")
            self._last_word()
        else:
            try:
                kind, data = split(body)
                said = kind.decode("ascii")
            except ValueError:
                self._failure = Failure("Crashed", "it said what no handler says")
                self.kill()
                return
            if verb == TOLD:
                heard.told(said, data)
            else:
                heard.asked(number, said, data)

    def _last_word(self) -> None:
        """It has said its end: nothing of it counts any more, and it is not waited for.

        But for a command: what its processes have used is known when they are reaped.
        """
        if self.plan.command is not None:
            self._said = True
            self._nursery.kill(self)
            return
        heard, self._heard = self._heard, None
        if heard is None:
            return
        wall = time.monotonic() - self._begun
        usage = measured(self.pid, self._nursery.resident_mb, wall)
        result = self._result if not self._killed else None
        failure = self._failure
        if result is None and failure is None:
            failure = Failure("Crashed", "it was killed by its host")
        self._nursery.kill(self)
        heard.ended(Ending(result=result, failure=failure, usage=usage, layers=self.layers))

    def _too_long(self, verb: int, size: int) -> None:
        granted = self.plan.grant.output_mb
        if verb in (RESULT, ASKED):
            why = f"it said {size / _MIB:.1f} MiB at once, of {granted:g} that are granted"
            self._failure = Failure("OutputExceeded", why)
        else:
            self._failure = Failure("Crashed", f"it said {size} bytes where no handler does")
        self.kill()
        self._close()

    def _close(self) -> None:
        if not self._over:
            self._over = True
            self._loop.remove_reader(self._channel)
            self._loop.remove_writer(self._channel)
            self._channel.close()


class Nursery:
    """Prepared children by capability. layers: those that its children really have.

    over: set when the zygote has ended by itself; every child has had its end before.
    resident_mb: what every child begins with. base: the folder of its cells.
    """

    def __init__(
        self, control: socket.socket, plans: Sequence[CellPlan], told: dict[str, Any]
    ) -> None:
        self.layers = frozenset[str](told["ready"])
        self.resident_mb: float = told["resident_mb"]
        self.base = ""
        self.over = asyncio.Event()
        self._control = control
        self._plans = list(plans)
        self._index = {plan.capability: number for number, plan in enumerate(plans)}
        self._ready: list[deque[Child]] = [deque() for _ in plans]
        self._waiting: list[deque[asyncio.Future[Child]]] = [deque() for _ in plans]
        self._coming = [0] * len(self._plans)
        self._running = [0] * len(self._plans)
        self._children: dict[int, Child] = {}
        self._reaped: set[Child] = set()
        for number in range(len(self._plans)):
            self._fill(number)
        asyncio.get_running_loop().add_reader(control, self._read)

    def take(self, capability: str) -> Child | None:
        """Return a prepared child, which is then the caller's; None: none is ready.

        Raises `ConnectionResetError` once the zygote has died.
        """
        plan = self._index[capability]
        if self.over.is_set():
            raise ConnectionResetError("the process that starts children has died")
        if not self._ready[plan]:
            return None
        self._running[plan] += 1
        child = self._ready[plan].popleft()
        self._fill(plan)
        return child

    async def wait(self, capability: str) -> Child:
        """Return a prepared child as soon as there is one. First come, first served.

        Raises `ConnectionResetError` once the zygote has died.
        """
        child = self.take(capability)
        if child is not None:
            return child
        plan = self._index[capability]
        future: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        self._waiting[plan].append(future)
        self._fill(plan)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._offer(plan, future.result())
            raise

    def kill(self, child: Child) -> None:
        """See `Child.kill`."""
        self._tell({"kill": child.number})

    def is_gone(self, child: Child) -> bool:
        """Whether it was reaped."""
        return child in self._reaped

    def close(self) -> None:
        """Read nothing more from the zygote, and let go of every child; none of them lives on."""
        asyncio.get_running_loop().remove_reader(self._control)
        children, self._children = list(self._children.values()), {}
        for child in children:
            child.lost()

    def _fill(self, plan: int) -> None:
        """Have as many children made as are wanted and there is room for."""
        said = self._plans[plan]
        there = len(self._ready[plan]) + self._coming[plan]
        wanted = max(said.spares, len(self._waiting[plan])) - there
        room = said.slots + said.spares - self._running[plan] - there
        for _ in range(min(wanted, room)):
            self._coming[plan] += 1
            self._tell({"make": plan})

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
            message = json.loads(data)
            if "born" in message:
                self._born(message, socket.socket(fileno=descriptors[0]))
            else:
                self._gone(message)

    def _born(self, message: dict[str, int], channel: socket.socket) -> None:
        plan = message["plan"]
        self._coming[plan] -= 1
        child = Child(self, message, self._plans[plan], channel)
        self._children[child.number] = child
        self._offer(plan, child, taken=False)

    def _offer(self, plan: int, child: Child, *, taken: bool = True) -> None:
        """Give it to who waits longest, else keep it ready. taken: it counts as running."""
        waiting = self._waiting[plan]
        while waiting:
            future = waiting.popleft()
            if not future.done():
                self._running[plan] += not taken
                future.set_result(child)
                return
        self._running[plan] -= taken
        self._ready[plan].append(child)

    def _gone(self, message: dict[str, Any]) -> None:
        child = self._children.pop(message["gone"])
        plan = self._index[child.plan.capability]
        if child in self._ready[plan]:
            self._ready[plan].remove(child)
            _LOG.warning("a child process of %s ended before its task", child.plan.capability)
        else:
            self._running[plan] -= 1
        self._reaped.add(child)
        child.gone(message)
        self._reaped.discard(child)
        self._fill(plan)

    def _died(self) -> None:
        self.over.set()
        self.close()
        for waiting in self._waiting:
            while waiting:
                future = waiting.popleft()
                if not future.done():
                    error = ConnectionResetError("the process that starts children has died")
                    future.set_exception(error)


@asynccontextmanager
async def open_nursery(
    *, places: Sequence[str], plans: Sequence[CellPlan], require: frozenset[str] = frozenset()
) -> AsyncIterator[Nursery]:
    """Start the zygote, which loads `places`; children of `plans` are made ready at once.

    require: layers without which no child may run a task. Raises `BadInput` as `load` does, and
    where one of `require` cannot be had; `StartFailed` if a lifespan of the agents fails.
    """
    _sweep()
    base = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
    os.chmod(base, 0o711)  # noqa: S103  children of other uids pass through to their own folder
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    zygote = _start(theirs)
    theirs.close()
    try:
        orders = {"places": list(places), "plans": list(plans), "base": base, "path": sys.path}
        told = await _introduce(ours, encode(orders))
        missing = sorted(require - set(told["ready"]))
        if missing:
            raise BadInput("isolation.require", f"children cannot have {', '.join(missing)}")
        nursery = Nursery(ours, plans, told)
        nursery.base = base
        try:
            yield nursery
        finally:
            nursery.close()
    finally:
        ours.close()
        await asyncio.to_thread(_end, zygote)
        shutil.rmtree(base, ignore_errors=True)


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """From the main thread, or the zygote ends with the thread that called."""
    return subprocess.Popen(
        [sys.executable, "-m", "callboard_agents.sandbox.zygote", str(theirs.fileno())],
        env=_environment(),
        pass_fds=(theirs.fileno(),),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


async def _introduce(control: socket.socket, orders: bytes) -> dict[str, Any]:
    """Tell the zygote what is wanted; return what it offers."""
    control.send(orders)
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def came() -> None:
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(control, came)
    try:
        async with asyncio.timeout(_READY_SECONDS):
            await readable
    except TimeoutError:
        raise BadInput("agents", f"not loaded within {_READY_SECONDS:g} s") from None
    finally:
        loop.remove_reader(control)
    said = control.recv(_MESSAGE)
    if not said:
        raise BadInput("agents", "the process that loads them for children died; see its output")
    answer: dict[str, Any] = json.loads(said)
    if "refused" in answer:
        raise BadInput(answer["field"], answer["refused"].removeprefix(f"{answer['field']}: "))
    if "failed" in answer:
        raise StartFailed(answer["span"], answer["failed"])
    return answer


def _environment() -> dict[str, str]:
    """What the zygote gets: how to find Python's modules, and nothing that could be a secret."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    return {"LANG": "C.UTF-8", **kept}


def _end(zygote: subprocess.Popen[bytes]) -> None:
    try:
        zygote.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        zygote.kill()
        zygote.wait()


def _sweep() -> None:
    """Remove what hosts that were killed have left."""
    folder = tempfile.gettempdir()
    for name in os.listdir(folder):
        if not name.startswith(_PREFIX):
            continue
        owner = name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
            with contextlib.suppress(OSError):
                shutil.rmtree(os.path.join(folder, name))


def measured(pid: int, resident_mb: float, wall: float) -> Usage:
    """What a child that still lives has used, on the kernel's word."""
    try:
        with open(f"/proc/{pid}/schedstat", encoding="ascii") as found:
            cpu = int(found.read().split()[0]) / 1e9
        with open(f"/proc/{pid}/status", encoding="ascii") as found:
            peak = next(line for line in found if line.startswith("VmHWM:"))
    except (OSError, StopIteration, IndexError) as error:  # killed in this very moment
        _LOG.debug("what process %d has used is not known: %s", pid, error)
        return Usage(wall_s=wall)
    return Usage(cpu, max(0.0, int(peak.split()[1]) / 1024 - resident_mb), wall)


def _why(report: dict[str, Any], usage: Usage, grant: Grant, *, killed: bool) -> Failure:
    """What the kernel's report of a child without a last word means."""
    status = report["status"]
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if report["starved"]:
        why = f"the kernel ended it at {usage.memory_mb:.0f} MiB, of {grant.memory_mb:g} granted"
        return Failure("MemoryExceeded", why)
    limit = grant.cpu_seconds
    if limit is not None and (number == signal.SIGXCPU or (number and usage.cpu_s >= limit)):
        return Failure("CpuExceeded", f"{usage.cpu_s:.2f} s of CPU, of {limit:g} that are granted")
    if killed:
        return Failure("Crashed", "it was killed by its host")
    if number:
        return Failure("Crashed", f"it died of {signal.Signals(number).name}")
    return Failure("Crashed", f"it exited with {os.WEXITSTATUS(status)} and without a result")
