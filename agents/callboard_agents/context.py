"""What a handler may know, say and ask for while it runs.

Everything here works from a coroutine of the host's loop as well as from a plain function in one
of its threads; a plain function awaits by `ctx.wait`. A progress is not stored: one that nobody
hears is gone. What is logged is kept by the board, within bounds.
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

_MAX_PROGRESS = 64 * 1024
_MAX_UNITS = 16  # of an outcome, as are the bounds of a unit's name and amount
_MAX_AMOUNT = 1e15
_UNIT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LOG = logging.getLogger("callboard.agent")

_NOTHING: dict[str, float] = {}
_using = threading.Lock()  # one for all: a handler may count in threads of its own

T = TypeVar("T")

Submit = Callable[
    [Coroutine[Any, Any, Any], asyncio.AbstractEventLoop], concurrent.futures.Future[Any]
]


def _nobody(_progress: bytes) -> None:
    """The listener of a context that was made by hand, for a test."""


async def _nobody_spawns(spawn: Spawn) -> Child:
    raise RuntimeError(f"no host runs this attempt, so that nobody posts for {spawn.capability}")


@dataclass(frozen=True, slots=True)
class Told(Awaitable[None]):
    """A progress that is on its way; awaiting it waits while the connection is congested."""

    room: Callable[[], Awaitable[None]] | None = None

    def __await__(self) -> Generator[Any, None, None]:
        if self.room is not None:
            yield from self.room().__await__()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSide:
    """What contexts need of their host; one for all attempts of an agent.

    room: waits while the connection is congested. spawn: posts a child. loop: the host's, of a
    handler that runs in a thread. now: its clock, in seconds. submit: runs a coroutine on `loop`.
    logs: where lines are taken.
    """

    room: Callable[[], Awaitable[None]] | None = None
    spawn: Spawner = _nobody_spawns
    loop: asyncio.AbstractEventLoop | None = None
    now: Callable[[], float] = time.monotonic
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
        "_cancelled",
        "_host",
        "_log",
        "_origin",
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
        tell: Callable[[bytes], None] = _nobody,
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
            with _using:
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
        """What `use` was told so far, by unit; not to be changed."""
        return self._used or _NOTHING

    def progress(self, value: object) -> Told:
        """Tell whoever follows the task how far it is. Any value that JSON can hold.

        Sent at once, from a coroutine or from a thread; `await ctx.progress(...)` waits besides
        while the connection is congested, which a plain function cannot. Raises `BadInput` if the
        value cannot be encoded or takes more than 64 KiB.
        """
        data = encode_payload(value, field="progress")
        check_size(data, _MAX_PROGRESS, "progress")
        self.heard_at = self._host.now()
        if not self._cancelled:
            self._tell(data)
        return Told(self._host.room)

    def heartbeat(self) -> None:
        """Say that the handler is alive.

        Needed where the task has a heartbeat timeout, also while it waits for a child.
        """
        self.heard_at = self._host.now()

    def use(self, **units: float) -> None:
        """Count what this attempt has used of budgets' units: `ctx.use(tokens=1500)`.

        Calls add up, and count also if the attempt fails. Of a unit that is never named here,
        what the task had reserved stays charged. Raises `BadInput` that names the unit.
        """
        for unit, amount in units.items():
            _check_use(unit, amount)
        with _using:
            used = dict(self._used or ())
            for unit, amount in units.items():
                used[unit] = min(used.get(unit, 0.0) + amount, _MAX_AMOUNT)
            if len(used) > _MAX_UNITS:
                raise BadInput("use", f"{len(used)} units; at most {_MAX_UNITS}")
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


def _check_use(unit: str, amount: object) -> None:
    if not _UNIT.fullmatch(unit):
        raise BadInput("use", f"{unit[:80]!r} is not a unit: use 1-63 of a-z 0-9 _ -")
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise BadInput(f"use.{unit}", f"{amount!r:.80} is not a number")
    if not (math.isfinite(amount) and 0 <= amount <= _MAX_AMOUNT):
        raise BadInput(f"use.{unit}", f"{amount!r:.80} is not between 0 and {_MAX_AMOUNT:g}")
