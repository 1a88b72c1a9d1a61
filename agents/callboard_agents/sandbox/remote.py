"""The host as a child sees it: one socket, by which it tells, asks, and hears.

A coroutine awaits its answers on the child's loop; a plain function looks for a cancellation when
it asks `ctx.cancelled`, and awaits by `ctx.wait`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, TypeVarTuple, cast

import msgspec
from msgspec import UNSET

from callboard_agents.context import Context, HostSide
from callboard_agents.sandbox.channel import (
    ANSWER,
    ASKED,
    CANCEL,
    REFUSE,
    START,
    TOLD,
    Frames,
    frame,
    join,
    split,
)
from callboard_agents.sandbox.grant import TaskHeader
from callboard_agents.spawn import Spawn
from callboard_broker import errors
from callboard_broker.bounds import check_size
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput, TaskError
from callboard_broker.log_lines import ERROR_BYTES, MESSAGE_BYTES, bounded_fields, cut
from callboard_broker.rule import TaskState
from callboard_broker.trace import Origin
from callboard_broker.wire import Failure, encode

__all__ = ["LOGGED", "ChildContext", "ChildLoop", "Remote", "capture", "prepare_logging"]

LOGGED = logging.INFO
"""The level that a child begins with."""

_READ = 32 * 1024  # for more, each child would have memory mapped and unmapped
_NO_BOUND = 1 << 31
_LINES = 20_000  # that a child says at the most; it counts the rest
_LINE = 8192  # characters without an end of the line that are one all the same
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_SOON = 0.1  # seconds within which one sign of life is enough

if TYPE_CHECKING:
    from callboard_agents.spawning import Child

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ChildLoop(asyncio.SelectorEventLoop):
    """An event loop that is made before the fork, so it has no descriptor until `begin`.

    Threads wake it by a bell, an eventfd: a pair of sockets would cost every child 100 pages.
    """

    _ready: deque[asyncio.Handle]  # its base's, as are the next two
    _scheduled: list[asyncio.TimerHandle]
    _selector: selectors.BaseSelector

    def __init__(self) -> None:
        self._bell = -1
        super().__init__(selectors.PollSelector())

    def _make_self_pipe(self) -> None:
        """Not yet, and in most children never."""
        self._csock: socket.socket | None = None

    def expect(self, bell: int) -> None:
        """Listen to the bell that will have this number."""
        if self._bell >= 0:
            self.remove_reader(self._bell)
        self._bell = bell
        self.add_reader(bell, self._rung)

    def begin(self) -> int:
        """In the child: have a bell; return its number."""
        bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        if bell != self._bell:
            self.expect(bell)
        return bell

    def is_idle(self) -> bool:
        """Whether nothing is left to be done: no task, callback, timer, or reader but the bell."""
        handles = (*self._ready, *self._scheduled)
        return (
            all(each.cancelled() for each in handles)
            and len(self._selector.get_map()) == 1
            and not asyncio.all_tasks(self)
        )

    def _rung(self) -> None:
        os.eventfd_read(self._bell)

    def _write_to_self(self) -> None:
        os.eventfd_write(self._bell, 1)

    def add_signal_handler(self, sig: int, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """As its base's, which needs the pair of sockets."""
        if self._csock is None:
            asyncio.SelectorEventLoop._make_self_pipe(self)  # type: ignore[attr-defined]  # noqa: SLF001  its base's
        super().add_signal_handler(sig, callback, *args)

    def __del__(self) -> None:
        """It ends with its process."""


class Remote:
    """The host's side of one attempt, in its child. loop: of a handler that may await anything.

    most_bytes: of a request; the host would end this process for more.
    """

    def __init__(
        self, channel: socket.socket, loop: ChildLoop | None, *, most_bytes: int = _NO_BOUND
    ) -> None:
        self._most_bytes = most_bytes
        self._channel = channel
        self.loop = loop
        self.frames = Frames(dict.fromkeys((START, ANSWER, REFUSE, CANCEL), _NO_BOUND))
        self._starts: list[bytes] = []
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._task: asyncio.Task[Any] | None = None
        self._beaten_at = 0.0
        self.cancelled = False

    def fileno(self) -> int:
        """The channel's descriptor, to be polled."""
        return self._channel.fileno()

    def await_task(self) -> tuple[TaskHeader, bytes]:
        """Wait for a task, or for the rehearsal before it. An end of the channel ends the child."""
        while not self._starts:
            data = self._channel.recv(_READ)
            if not data:
                raise SystemExit
            for verb, _, body in self.frames.feed(data):
                if verb == START:
                    self._starts.append(body)
                    self.cancelled = False  # which the task before may have been, when it was over
                elif verb == CANCEL:  # right behind it
                    self.cancelled = True
        header, payload = split(self._starts.pop(0))
        return msgspec.json.decode(header, type=TaskHeader), payload

    def is_idle(self) -> bool:
        """Whether nothing goes on that a handler has begun and left behind."""
        if self._asked or any(signal.getitimer(each)[0] for each in _TIMERS):
            return False
        return self.loop is None or self.loop.is_idle()

    def say(self, verb: int, data: bytes, *, goes_on: bool = False) -> None:
        """Send the last word. goes_on: another task may come."""
        self._say(frame(verb, int(goes_on), data))

    def say_nothing(self) -> None:
        """Rehearse the last word."""
        self._say(b"")

    def _say(self, data: bytes) -> None:
        finish_lines()
        self._channel.setblocking(True)
        self._channel.sendall(data)

    def await_end(self) -> None:
        """Wait until the host has looked at what this process has used, and kills it."""
        while self._channel.recv(1):
            pass

    def tell(self, kind: str, data: bytes) -> None:
        """Tell the host; nothing comes back."""
        self._send(frame(TOLD, 0, join(kind.encode(), data)))

    def beat(self) -> None:
        """Give a sign of life, unless one was given just now."""
        now = time.monotonic()
        if now - self._beaten_at > _SOON:
            self._beaten_at = now
            self.tell("heartbeat", b"")

    async def ask(self, kind: str, data: bytes) -> bytes:
        """Ask the host. Raises the error that it gives, and `TooLarge` for what is not granted."""
        check_size(data, self._most_bytes, kind)
        number = next(self._numbers)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        self._send(frame(ASKED, number, join(kind.encode(), data)))
        try:
            return await answer
        finally:
            del self._asked[number]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run it on the child's loop, on which the channel is read meanwhile."""
        loop = self.loop
        if loop is None or loop.is_running():
            coroutine.close()
            raise RuntimeError("ctx.wait is for plain functions that take a context: use await")
        self._task = task = loop.create_task(coroutine)
        if self.cancelled:
            task.cancel()
        channel = self.fileno()  # a selector looks for the socket by its long `repr` first
        loop.add_reader(channel, self._read)
        try:
            return loop.run_until_complete(task)
        finally:
            loop.remove_reader(channel)
            self._task = None

    def poll(self) -> None:
        """Hear what has come, without waiting."""
        if self._task is None and select.select([self._channel], [], [], 0)[0]:
            self._read()

    def _send(self, data: bytes) -> None:
        self._channel.setblocking(True)
        self._channel.sendall(data)

    def _read(self) -> None:
        data = self._channel.recv(_READ)
        if not data:
            raise SystemExit  # the host is gone
        for verb, number, body in self.frames.feed(data):
            if verb == CANCEL:
                self.cancelled = True
                if self._task is not None:
                    self._task.cancel()
                continue
            answer = self._asked.get(number)
            if answer is None or answer.done():
                continue
            if verb == ANSWER:
                answer.set_result(body)
            else:
                answer.set_exception(_error(msgspec.json.decode(body, type=Failure)))


class ChildContext(Context):
    """The context of a handler that runs in a child process."""

    def __init__(self, header: TaskHeader, remote: Remote) -> None:
        super().__init__(
            task=header.task,
            attempt=header.attempt,
            tenant=header.tenant,
            capability=header.capability,
            deadline=time.monotonic() + header.seconds,
            tell=remote.tell,
            ask=remote.ask,
            restored=None if header.restored is msgspec.UNSET else header.restored,
            host=HostSide(spawn=self._spawn_remotely),
            origin=Origin(root=header.root, trace=header.trace),
        )
        self._remote = remote

    @property
    def cancelled(self) -> bool:
        """Whether the attempt shall stop, and nothing that it returns counts any more."""
        self._remote.poll()
        return self._remote.cancelled

    def heartbeat(self) -> None:
        """Say that the handler is alive."""
        self._remote.beat()

    def settle(self, **units: float) -> None:
        """Count what this attempt has used of budgets' units."""
        super().settle(**units)
        self._remote.tell("used", encode(self.used))

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """In a plain function: run `coroutine` and return what it returns."""
        return self._remote.run(coroutine)

    async def _spawn_remotely(self, spawn: Spawn) -> Child:
        wanted = {
            "label": spawn.label,
            "capability": spawn.capability,
            "payload": msgspec.Raw(encode_payload(spawn.payload)),
            "priority": spawn.priority,
            "timeout": spawn.timeout,
            "options": spawn.options,
        }
        found = json.loads(await self._remote.ask("spawn", encode(wanted)))
        return cast("Child", _RemoteChild(self._remote, found["id"]))


class _RemoteChild:
    """A spawned task, as its parent in a child process sees it."""

    def __init__(self, remote: Remote, task: str) -> None:
        self._remote = remote
        self.id = task
        self.state: TaskState = "waiting"

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109  as Child's
        """Return the decoded result."""
        async with asyncio.timeout(timeout):
            data = await self._remote.ask("child_result", encode({"id": self.id}))
        self.state = "succeeded"
        return msgspec.json.decode(data)

    async def cancel(self, reason: str = "") -> None:
        """End it as soon as possible."""
        await self._remote.ask("child_cancel", encode({"id": self.id, "reason": reason}))


class _Channel:
    """Where lines are told, a bounded number of them."""

    def __init__(self) -> None:
        self.remote: Remote | None = None
        self._left = _LINES
        self._dropped = 0

    def begin(self, remote: Remote) -> None:
        """Tell this host, as many lines as a task has."""
        self.remote = remote
        self._left = _LINES

    def tell(self, text: str, **more: Any) -> None:
        """Tell a line, whatever stands in it."""
        if self.remote is None:
            return
        if not self._left:
            self._dropped += 1
            return
        self._left -= 1
        line = {name: value for name, value in more.items() if value is not UNSET}
        self.remote.tell("log", encode({"text": cut(text, MESSAGE_BYTES), **line}))

    def finish(self) -> None:
        """Say how many lines there was no room for."""
        if self._dropped and self.remote is not None:
            self.remote.tell("log", encode({"dropped": self._dropped}))
            self._dropped = 0


class _Lines:
    """Standard output or error: whole lines."""

    def __init__(self, channel: _Channel, name: str) -> None:
        self._channel = channel
        self._name = name
        self._text = ""

    def write(self, text: str) -> int:
        """Take text; each line that is complete is told."""
        self._text += text
        while "\n" in self._text:
            line, self._text = self._text.split("\n", 1)
            self._tell(line)
        if len(self._text) > _LINE:
            self._tell(self._text)
            self._text = ""
        return len(text)

    def flush(self) -> None:
        """Lines are told as they come."""

    def isatty(self) -> bool:
        """Nobody types here."""
        return False

    def finish(self) -> None:
        """There is no more: what has no end of a line is a line too."""
        if self._text:
            self._tell(self._text)
            self._text = ""

    def _tell(self, line: str) -> None:
        self._channel.tell(line, logger=self._name)


class _Records(logging.Handler):
    """Records of any logger: level, name, fields and an exception's trace go along."""

    def __init__(self, channel: _Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it; what cannot be written is told as that."""
        try:
            error = record.exc_info and logging.Formatter().formatException(record.exc_info)
            self._channel.tell(
                record.getMessage(),
                level=min(max(record.levelno, 0), 1000),
                logger=cut(record.name, 200),
                fields=bounded_fields(getattr(record, "fields", None)),
                error=cut(error, ERROR_BYTES, keep="end") if error else "",
            )
        except Exception as error:  # noqa: BLE001  a handler's own text and objects
            self._channel.tell(f"a line that cannot be written: {type(error).__name__}")


_channel = _Channel()
_printed = (_Lines(_channel, "stdout"), _Lines(_channel, "stderr"))


def prepare_logging() -> None:
    """In the zygote: what children will log and print is told by their channel."""
    logging.basicConfig(level=LOGGED, handlers=[_Records(_channel)], force=True)


def capture(remote: Remote) -> None:
    """In a keeper for its children, and in a child for its next task: what is printed and logged is
    told to the host by lines."""
    _channel.begin(remote)
    sys.stdout, sys.stderr = (cast("TextIO", lines) for lines in _printed)


def finish_lines() -> None:
    """In a child, before its last word: what was printed without an end of the line counts too."""
    for lines in _printed:
        lines.finish()
    _channel.finish()


def _error(failure: Failure) -> Exception:
    """The exception that the host's word stands for."""
    kind = getattr(errors, failure.type, None)
    if failure.type == "TimeoutError":
        return TimeoutError(failure.message)
    if isinstance(kind, type) and issubclass(kind, TaskError):
        return kind("", failure.message, failure)
    if kind is BadInput:
        return BadInput(failure.field or "", failure.message)
    if failure.type == "LookupError":
        return LookupError(failure.message)
    return RuntimeError(f"{failure.type}: {failure.message}")
