"""What a handler may know, say and ask for while it runs.

Everything here works from a coroutine, from a plain function in a thread and from a child process
alike; a plain function awaits by `ctx.wait`. What is told (progress, output) is not stored: nobody
who does not listen hears it. Blobs and checkpoints are stored when the call returns. What is logged
is kept by the board, within bounds.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import re
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from msgspec import Raw, json

from callboard_agents.blobs import Asker, ContextBlobs
from callboard_agents.facts import Attempt
from callboard_agents.spawn import Spawn, Spawner
from callboard_agents.task_log import TaskLog
from callboard_broker.bounds import check_size
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput
from callboard_broker.posts import Parent
from callboard_broker.trace import Origin

if TYPE_CHECKING:
    from callboard_agents.log_book import LogBook, Page
    from callboard_agents.spawning import Child
    from callboard_broker.options import TaskOptions

__all__ = ["Context", "HostSide", "Told"]

_MAX_TOLD = 64 * 1024
_MAX_CHECKPOINT = 16 * 1024 * 1024
_MAX_UNITS = 16  # of an outcome, as are the bounds of a unit's name and amount
_MAX_AMOUNT = 1e15
_UNIT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LOG = logging.getLogger("callboard.agent")

_NOTHING: dict[str, float] = {}
_changing = threading.Lock()  # one for all: a handler may count and log in threads of its own

T = TypeVar("T")

Submit = Callable[
    [Coroutine[Any, Any, Any], asyncio.AbstractEventLoop], concurrent.futures.Future[Any]
]


def _nobody(_kind: str, _value: bytes) -> None:
    """The listener of a context that was made by hand, for a test."""


async def _nobody_does(kind: str, _data: bytes) -> bytes:
    if kind == "checkpoint":  # there is no second attempt
        return b"null"
    raise RuntimeError(f"no host runs this attempt, so that nobody does a {kind} for it")


async def _nobody_spawns(spawn: Spawn) -> Child:
    raise RuntimeError(f"no host runs this attempt, so that nobody posts for {spawn.capability}")


@dataclass(frozen=True, slots=True)
class Told(Awaitable[None]):
    """What was told is on its way; awaiting it waits while the connection is congested."""

    room: Callable[[], Awaitable[None]] | None = None

    def __await__(self) -> Generator[Any, None, None]:
        if self.room is not None:
            yield from self.room().__await__()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSide:
    """What contexts need of their host; one for all attempts of an agent.

    room: waits while the connection is congested. spawn: posts a child. loop: the host's, of a
    handler that runs in a thread. now: its clock, in seconds. cpu: the seconds of CPU that the
    calling thread has used. submit: runs a coroutine on `loop`. logs: where lines are taken.
    """

    room: Callable[[], Awaitable[None]] | None = None
    spawn: Spawner = _nobody_spawns
    loop: asyncio.AbstractEventLoop | None = None
    now: Callable[[], float] = time.monotonic
    cpu: Callable[[], float] = time.thread_time
    submit: Submit = asyncio.run_coroutine_threadsafe
    logs: LogBook | None = None


_BY_HAND = HostSide()
_ALONE = Origin()


class Context:
    """The attempt that runs.

    task, attempt, tenant, capability: which one. deadline: when it is stopped, in seconds of
    `time.monotonic()`. A handler's test makes one by hand: `Context(task="1")`.
    """

    __slots__ = (
        "_ask",
        "_cancelled",
        "_host",
        "_log",
        "_origin",
        "_restored",
        "_secret",
        "_spawned",
        "_tell",
        "_used",
        "_waits",
        "attempt",
        "capability",
        "deadline",
        "heard_at",
        "page",
        "task",
        "tenant",
    )

    def __init__(  # noqa: PLR0913  one record for all; a test by hand names what it needs
        self,
        *,
        task: str,
        attempt: int = 1,
        tenant: str = "test",
        capability: str = "test",
        deadline: float = float("inf"),
        secret: str = "",
        tell: Callable[[str, bytes], None] = _nobody,
        ask: Asker = _nobody_does,
        restored: bytes | Raw | None = None,
        host: HostSide = _BY_HAND,
        origin: Origin = _ALONE,
    ) -> None:
        self.task = task
        self.attempt = attempt
        self.tenant = tenant
        self.capability = capability
        self.deadline = deadline
        self.heard_at = 0.0
        self._secret = secret
        self._tell = tell
        self._ask = ask
        self._restored = restored
        self._host = host
        self._cancelled = False
        self._spawned = 0
        self._used: dict[str, float] | None = None
        self._waits: set[concurrent.futures.Future[Any]] | None = None
        self._log: TaskLog | None = None
        self._origin = origin
        self.page: Page | None = None

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this task: give it to whatever must happen only once."""
        return f"{self.tenant}/{self.task}"

    @property
    def remaining_seconds(self) -> float:
        """Seconds until the attempt is stopped; negative when it is late."""
        return self.deadline - self._host.now()

    @property
    def cancelled(self) -> bool:
        """Whether the attempt shall stop, and nothing that it returns counts any more.

        It was cancelled, has timed out or missed a heartbeat, the host drains, or its lease has
        ended. A coroutine is cancelled as well; a plain function has only this to look at.
        """
        return self._cancelled

    @property
    def workflow(self) -> str:
        """The outermost task or workflow that this task is a part of; its own id if it is none."""
        return self._origin.root_of(self.task)

    @property
    def trace(self) -> str:
        """The trace that this task belongs to: 32 hexadecimal digits (W3C Trace Context)."""
        return self._origin.trace_of(self.task)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger for the host's own log and for `callboard logs`, within bounds.

        Records carry task, attempt, tenant, capability, workflow and trace; `extra` adds fields.
        """
        if self._log is None:
            with _changing:
                if self._log is None:
                    self._log = self._open_log()
        return self._log

    def _open_log(self) -> TaskLog:
        attempt = Attempt(self.task, self.attempt, self.tenant, self.capability, self._origin)
        if self._host.logs is not None:
            self.page = self._host.logs.open(attempt)
        return TaskLog(_LOG, attempt.facts(), self.page)

    @property
    def used(self) -> dict[str, float]:
        """What `settle` was told so far, by unit; not to be changed."""
        return self._used or _NOTHING

    def progress(self, value: object) -> Told:
        """Tell whoever follows the task how far it is. Any value that JSON can hold.

        Sent at once, from a coroutine or from a thread; `await ctx.progress(...)` waits besides
        while the connection is congested, which a plain function cannot. Raises `BadInput` if the
        value cannot be encoded or takes more than 64 KiB.
        """
        return self._say("progress", value)

    def output(self, chunk: object) -> Told:
        """Give whoever follows the task a part of the result before its end. Any value of JSON.

        As `progress`, it is sent at once and not stored: what nobody hears is gone, and the result
        must be complete without it. Chunks are numbered from 1 in each attempt, so that a reader
        (`Handle.output`) notices a gap, and that a second attempt begins anew. A host whose
        connection is congested leaves chunks out; `await ctx.output(...)` waits instead.
        Raises `BadInput` if the chunk cannot be encoded or takes more than 64 KiB.
        """
        return self._say("output", chunk)

    def _say(self, kind: str, value: object) -> Told:
        data = encode_payload(value, field=kind)
        check_size(data, _MAX_TOLD, kind)
        self.heard_at = self._host.now()
        if not self._cancelled:
            self._tell(kind, data)
        return Told(self._host.room)

    @property
    def blob(self) -> ContextBlobs:
        """The board's blob store: `ref = await ctx.blob.put(data)`, `await ctx.blob.get(ref)`."""
        return ContextBlobs(self._ask)

    @property
    def restored(self) -> Any:
        """The state of the last checkpoint that earlier attempts of this task have stored.

        None if there is none; a redriven or resumed task begins without. A fresh copy each time.
        """
        return None if self._restored is None else json.decode(self._restored)

    def checkpoint(self, state: object) -> Coroutine[Any, Any, None]:
        """Store what the next attempt shall begin with, should this one not come to its end.

        Await it: it returns when the state is stored. `ctx.restored` of the next attempt, after a
        loss as after an error, is the last one that was stored while the attempt was valid. It is
        a sign of life. state: what JSON can hold, up to 16 MiB; 10,000 in an attempt. Raises
        `BadInput` (`TooLarge`), and `LeaseEnded` where the attempt is void already.
        """
        data = encode_payload(state, field="checkpoint")
        check_size(data, _MAX_CHECKPOINT, "checkpoint")
        return self._checkpoint(data)

    async def _checkpoint(self, data: bytes) -> None:
        self.heard_at = self._host.now()
        await self._ask("checkpoint", data)
        self.heard_at = self._host.now()

    def heartbeat(self) -> None:
        """Say that the handler is alive.

        Needed where the task has a heartbeat timeout, also while it waits for a child.
        """
        self.heard_at = self._host.now()

    def settle(self, **units: float) -> None:
        """Count what this attempt has used of budgets' units: `ctx.settle(tokens=1500, cost=0.02)`.

        Calls add up, and count also if the attempt fails. Of a unit that is never named here,
        what the task had reserved stays charged. Raises `BadInput` that names the unit.
        """
        for unit, amount in units.items():
            _check_amount(unit, amount)
        with _changing:
            used = dict(self._used or ())
            for unit, amount in units.items():
                used[unit] = min(used.get(unit, 0.0) + amount, _MAX_AMOUNT)
            if len(used) > _MAX_UNITS:
                raise BadInput("settle", f"{len(used)} units; at most {_MAX_UNITS}")
            self._used = used

    def spawn(
        self,
        capability: str,
        payload: Any = None,
        *,
        key: str | None = None,
        priority: int = 5,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Coroutine[Any, Any, Child]:
        """Post a task of this tenant as a child of this one; await the `Child`, then its result.

        A child ends with its parent's cancellation, and its failure is the parent's to handle. A
        second attempt finds the children of the first, by their order or by `key`: a name, unlike
        that of any other child of this task, for where the order may differ. timeout: seconds that
        its handler may run; options: as for `Board.submit`. Raises as that does.
        """
        label = str(self._spawned)
        if key is None:
            self._spawned += 1
        else:
            label = f"key/{key}"
        return self._host.spawn(
            Spawn(
                parent=Parent(self.task, self.attempt, self._secret),
                tenant=self.tenant,
                label=label,
                capability=capability,
                payload=payload,
                priority=priority,
                timeout=timeout,
                options=options,
            )
        )

    def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """In a plain function: run `coroutine` on the host's loop and return what it returns.

        `child = ctx.wait(ctx.spawn("review", source)); review = ctx.wait(child.result())`.
        Raises what it raises, `asyncio.CancelledError` once the attempt is cancelled, and
        `RuntimeError` where there is a loop to await on, or no host.
        """
        loop = self._host.loop
        if loop is None or loop.is_closed():
            coroutine.close()
            raise RuntimeError("ctx.wait is for plain functions in a host's thread: use await")
        future: concurrent.futures.Future[T] = self._host.submit(coroutine, loop)
        if self._waits is None:
            self._waits = set()
        self._waits.add(future)
        try:
            if self._cancelled:  # perhaps before the future was there to be found
                future.cancel()
            return future.result()
        except concurrent.futures.CancelledError as error:
            raise asyncio.CancelledError from error
        finally:
            self._waits.discard(future)

    def cancel(self) -> None:
        """Ask the handler to stop; called by the host."""
        self._cancelled = True
        for future in list(self._waits or ()):
            future.cancel()


def _check_amount(unit: str, amount: object) -> None:
    if not _UNIT.fullmatch(unit):
        raise BadInput("settle", f"{unit[:80]!r} is not a unit: use 1-63 of a-z 0-9 _ -")
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise BadInput(f"settle.{unit}", f"{amount!r:.80} is not a number")
    if not (math.isfinite(amount) and 0 <= amount <= _MAX_AMOUNT):
        raise BadInput(f"settle.{unit}", f"{amount!r:.80} is not between 0 and {_MAX_AMOUNT:g}")
