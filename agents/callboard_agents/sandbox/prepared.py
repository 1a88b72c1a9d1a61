"""One prepared child process, as its host sees it: good for one task.

What it says is bounded before it is looked at, and its end is what the kernel reports, not what it
says. Where its agent lets a process run several tasks, each of them has a `Child` of its own: what
is said to one whose task is over reaches nobody.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from dataclasses import dataclass
from typing import Protocol

import msgspec

from callboard_agents.sandbox.breaches import HELD
from callboard_agents.sandbox.cgroups import tasks_of
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
from callboard_agents.sandbox.ends import Report, limit_met, why_ended
from callboard_agents.sandbox.figures import Figures, figures_of, keeps_much, reset_peak
from callboard_agents.sandbox.grant import TIRED_CPU_S, CellPlan, Ending, Heard, TaskHeader
from callboard_broker.wire import Failure, Usage, encode

__all__ = ["Child", "Past"]

_READ = 256 * 1024
_SAID = 64 * 1024
_MIB = 1024 * 1024
_LOG = logging.getLogger("callboard.host")


@dataclass(frozen=True, slots=True)
class Past:
    """What a process has behind it before a task. tasks: those that it has run. cpu_s: what they
    have used. memory_mb: what it has now."""

    tasks: int
    cpu_s: float
    memory_mb: float


class Cell(Protocol):
    """Where a child lives. layers, used_layers: of its first task, of further ones. newborn:
    what a child has before its first task; None: that is not known."""

    plan: CellPlan
    layers: tuple[str, ...]
    used_layers: tuple[str, ...]

    @property
    def newborn(self) -> Figures | None: ...

    def end(self, child: Child) -> None:
        """End it and all that it has started."""

    def end_soon(self, child: Child) -> None:
        """End it when that is in nobody's way."""

    def keep(self, child: Child) -> None:
        """Keep its process, which this child is now, for another task of its tenant."""


class Child:
    """One prepared process; good for one task. past: if it has run others. tenant: for whose tasks
    alone its process is from now on; None: it runs no other."""

    def __init__(
        self, cell: Cell, pid: int, channel: socket.socket, past: Past | None = None
    ) -> None:
        self.layers = cell.layers if past is None else cell.used_layers
        self.plan = cell.plan
        self.pid = pid
        self.past = past
        self.tenant: str | None = None
        self._cell = cell
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        output = int(self.plan.grant.output_mb * _MIB) + _SAID
        self._frames = Frames({TOLD: _SAID + 64, ASKED: output, RESULT: output, FAILED: _SAID})
        self._unsent = bytearray()
        self._sent = asyncio.Event()
        self._sent.set()
        self._heard: Heard | None = None
        self._result: bytes | None = None
        self._failure: Failure | None = None
        self._begun = self._had_mb = 0.0
        self._killed = False
        self._said = False
        self._over = False
        self._gone = False
        channel.setblocking(False)

    def start(self, task: TaskHeader, payload: bytes, heard: Heard) -> None:
        """Give it its task; `heard.ended` comes exactly once."""
        self._heard = heard
        self._begun = time.monotonic()
        if self.past is not None:
            self._had_mb = self.past.memory_mb
        elif self.plan.command is None:  # a program that is executed shares nothing with its parent
            newborn = self._cell.newborn
            self._had_mb = 0.0 if newborn is None else newborn.peak_mb
        self._loop.add_reader(self._channel, self._read)
        self._send(frame(START, 0, join(encode(task), payload)))

    def answer(self, number: int, answer: bytes | Failure) -> None:
        """Answer what it asked as `number`; without effect once it is gone."""
        if isinstance(answer, Failure):
            self._send(frame(REFUSE, number, encode(answer)))
        else:
            self._send(frame(ANSWER, number, answer))

    async def taken(self) -> None:
        """Return when it has taken all that it was told, or is gone."""
        await self._sent.wait()

    def cancel(self) -> None:
        """Ask it to stop."""
        self._send(frame(CANCEL, 0))

    def kill(self) -> None:
        """End it and all that it started, at once; `heard.ended` follows."""
        if not self._over:
            self._killed = True
            self._cell.end(self)

    @property
    def over(self) -> bool:
        """Whether it has ended, also between being given to somebody and being used."""
        return self._over

    @property
    def busy(self) -> bool:
        """Whether it has a task."""
        return self._heard is not None

    def is_silent(self) -> bool:
        """Whether it lives and has said nothing since the task before."""
        try:
            self._channel.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError as error:
            _LOG.debug("a child's channel: %s", error)
        return False

    def figures(self) -> Figures | None:
        """What it has used and has now; None: it has been killed in this very moment."""
        return figures_of(self.pid)

    def gone(self, report: Report) -> None:
        """Its keeper has reaped it."""
        self._gone = True
        if self._heard is not None:
            while not self._over:  # what it had said before
                self._read()
        self._close()
        if self._heard is not None:
            usage = self._usage(report.cpu_s, report.peak_mb)
            self._heard.ended(self._ending(report, usage))

    def lost(self) -> None:
        """Its keeper has died, or its host ends, and this child with it."""
        self._close()
        if self._heard is not None:
            why = "the process that starts children has died, and this one with it"
            self._heard.ended(Ending(failure=Failure("Crashed", why), layers=self.layers))

    def _usage(self, cpu_s: float, peak_mb: float) -> Usage:
        """Of this task, from what the kernel says of the whole process."""
        used = cpu_s if self.past is None else max(0.0, cpu_s - self.past.cpu_s)
        return Usage(used, max(0.0, peak_mb - self._had_mb), time.monotonic() - self._begun)

    def _ending(self, report: Report, usage: Usage) -> Ending:
        if self._result is not None and not self._killed:
            return Ending(result=self._result, usage=usage, layers=self.layers)
        failure = self._failure
        if failure is None:
            failure = why_ended(report, usage, self.plan.grant, killed=self._killed)
        elif self.plan.command is not None:
            failure = limit_met(failure, report, usage, self.plan.grant)
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
            self._sent.clear()
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
            self._sent.set()

    def _read(self) -> None:
        try:
            data = self._channel.recv(_READ)
        except BlockingIOError:
            if self._gone:  # with all that it had started: nobody can say more
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
            self._last_word(goes_on=number == 1)
        elif verb == FAILED:
            try:
                self._failure = self._counted(msgspec.json.decode(body, type=Failure))
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

    def _counted(self, failure: Failure) -> Failure:
        """With the count of its processes, which live as long as it waits for its end."""
        if failure.type != "ProcessesExceeded" or not failure.message.startswith(HELD):
            return failure
        count = tasks_of(self.pid)
        if count is None:
            return failure
        why = f"it had {count}, of the {failure.message.removeprefix(HELD)}"
        return Failure(failure.type, why)

    def _last_word(self, *, goes_on: bool = False) -> None:
        """It has said its end: nothing of it counts any more, and it is not waited for.

        But for a command: what its processes have used is known when they are reaped. goes_on: it
        says that it can take another task.
        """
        if self.plan.command is not None:
            self._said = True
            self._cell.end(self)
            return
        heard, self._heard = self._heard, None
        if heard is None:
            return
        found = figures_of(self.pid)
        if found is None:
            usage = Usage(wall_s=time.monotonic() - self._begun)
        else:
            usage = self._usage(found.cpu_s, found.peak_mb)
        result = self._result if not self._killed else None
        failure = self._failure
        if result is None and failure is None:
            failure = Failure("Crashed", "it was killed by its host")
        try:
            heard.ended(Ending(result=result, failure=failure, usage=usage, layers=self.layers))
        finally:
            again = self._again(found) if goes_on and found is not None else None
            if again is None:
                self._cell.end_soon(self)
            else:
                self._cell.keep(again)

    def _again(self, found: Figures) -> Child | None:
        """The same process for another task; None: this was its last, whatever it says."""
        tasks = 1 if self.past is None else self.past.tasks + 1
        newborn = self._cell.newborn
        if (
            self.tenant is None
            or newborn is None
            or tasks >= self.plan.tasks_per_child
            or self._killed
            or self._over
            or self._unsent
            or found.threads > 1
            or found.cpu_s >= TIRED_CPU_S
            or keeps_much(newborn, found, self.plan.grant)
            or not reset_peak(self.pid)
        ):
            return None
        self._over = True
        self._loop.remove_reader(self._channel)
        past = Past(tasks, found.cpu_s, found.memory_mb)
        again = Child(self._cell, self.pid, self._channel, past)
        again.tenant = self.tenant
        return again

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
            self._sent.set()
