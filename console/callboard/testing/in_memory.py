"""A whole board in memory, for the unit tests of agents and workflows: `async with
memory_board(...)`.

It is the board of production without its server and its processes: the same client, router, ledger
and handlers, joined by a server that is a few dictionaries in the same event loop. No decision is
taken by code of the harness. On a loop whose time jumps (`callboard.testing.run`), days pass in
milliseconds, and the same seed gives the same journal.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from callboard.policy import policy_of
from callboard.testing.board_clock import BoardClock
from callboard.testing.faults import Faults
from callboard.testing.gathering import Agents, AnyMiddleware, gathered, sorted_middleware
from callboard.testing.journal import JournalEvent, read_event
from callboard.testing.memory_crew import MemoryCrew
from callboard.testing.memory_host import Surroundings
from callboard.testing.memory_ledger import MemoryLedger, open_memory_ledger
from callboard.testing.memory_link import open_memory_link
from callboard.testing.memory_queue import MemoryQueues
from callboard.testing.memory_router import MemoryRouter, open_memory_router
from callboard.testing.memory_server import MemoryServer
from callboard.testing.seeded_board import SeededBoard
from callboard.testing.settings import settings_of
from callboard_broker.client import BoardOptions
from callboard_broker.connection import Connection
from callboard_broker.errors import UnknownTask
from callboard_broker.rule import TERMINAL
from callboard_broker.streams import Topology
from callboard_broker.subjects import SHARED_POOL, check_tenant
from callboard_config import Settings
from callboard_ledger.views import FlowView, ScheduleView, TaskView

__all__ = ["MemoryBoard", "memory_board"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a board in memory consists of."""

    clock: BoardClock
    faults: Faults
    crew: MemoryCrew
    ledger: MemoryLedger
    topology: Topology


class MemoryBoard(SeededBoard):
    """What `connect` gives, and more: the clock, the journal, and faults on order."""

    def __init__(
        self,
        connection: Connection,
        options: BoardOptions,
        group: asyncio.TaskGroup,
        rng: random.Random,
        parts: _Parts,
    ) -> None:
        super().__init__(connection, options, group, rng)
        self._parts = parts
        self._progress: dict[str, list[Any]] = {}
        self._output: dict[str, list[Any]] = {}
        connection.add_sink(f"{options.prefix}.news.*.*", self._hear_news)

    # -- time

    def now(self) -> datetime:
        """The board's time, UTC."""
        return datetime.fromtimestamp(self._parts.clock.unix(), UTC)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and all that is due by then happen.

        On a loop with real time, that takes so long.
        """
        await asyncio.sleep(seconds)
        if self._parts.clock.virtual is not None:
            await self._parts.clock.virtual.quiet()

    # -- what has happened

    @property
    def events(self) -> list[JournalEvent]:
        """All that stands in the journal, decoded, the oldest first."""
        subjects = self._parts.topology.subjects
        return [read_event(subjects, record) for record in self._parts.ledger.journal.records]

    @property
    def tasks(self) -> dict[str, TaskView | FlowView | ScheduleView]:
        """All tasks, workflows and schedules by id, as `callboard list` shows them."""
        return self._parts.ledger.rows()

    def progress_of(self, task: str) -> list[Any]:
        """What the attempts of a task have told, decoded, in order."""
        return list(self._progress.get(task, ()))

    def output_of(self, task: str) -> list[Any]:
        """The parts of their result that the attempts of a task have given, decoded, in order."""
        return list(self._output.get(task, ()))

    async def explain(self, task: str, *, tenant: str | None = None) -> dict[str, Any]:
        """Why a task that has not ended is where it is, as `callboard explain --json` has it.

        Raises `UnknownTask` for one that has ended, or that there never was.
        """
        found: dict[str, Any] = msgspec.json.decode(
            await self.ask("explain", {"id": task}, tenant=tenant)
        )
        if "error" in found and "id" not in found:
            raise UnknownTask(task, tenant or self.options.tenant)
        return found

    # -- what goes wrong

    async def lose_host(self, name: str | None = None, *, silent: bool = False) -> str:
        """Kill a host, as a machine that dies would; another begins under the same name.

        name: which one (`host-0`, ...); by default the one that holds the most attempts. These are
        lost, and dispatched again. silent: nobody reports the death, so that they are lost when the
        host's lease ends; the new host then has a name of its own. Handlers are cancelled, a plain
        function runs on in its thread; nothing that they still say counts. Returns the host's name.
        Raises `LookupError`.
        """
        return await self._parts.crew.lose(name, silent=silent)

    def fail_next(
        self, capability: str, error: BaseException, *, times: int = 1, after: bool = False
    ) -> None:
        """Let the next attempts of `capability` fail with `error`, as if the handler had raised it.

        after: the handler runs first, and its result is lost: what it did, it did. The capability
        is that of the agent which does the work.
        """
        self._parts.faults.order(capability, error, times=times, after=after)

    # -- inside

    def _hear_news(self, _subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        news = msgspec.json.decode(data)
        if "progress" in news:
            self._progress.setdefault(news["task"], []).append(news["progress"])
        if "output" in news:
            self._output.setdefault(news["task"], []).append(news["output"])


@asynccontextmanager
async def memory_board(
    agents: Agents | Sequence[Agents] = (),
    *,
    tenant: str = "default",
    start: datetime | None = None,
    settings: Settings | Mapping[str, object] | None = None,
    hosts: int = 1,
    seed: int = 0,
    middleware: Sequence[AnyMiddleware] = (),
) -> AsyncIterator[MemoryBoard]:
    """A board in memory, with `agents` on each of its hosts; it ends with the block.

    agents: agents, modules that hold some, or places as `callboard up --agents` takes them. start:
    what the board's clock shows first; by default 2026-01-01 00:00 UTC where time jumps, else the
    real time. settings: those of the board, or dotted keys over the packaged defaults, such as
    `{"budgets.global_concurrency": 2}`; that one is 100 by default, for it would depend on the
    machine, and neither the environment nor `./config/` is read. seed: of all that is chosen at
    random. middleware: around each attempt (`Middleware`, or places of it as `--middleware` takes
    them) and around each post (`SubmitMiddleware`), the first outermost. Each host enters the
    lifespans of its agents. Agents that run in child processes run on the loop or in a thread,
    without limits; commands are refused. Raises `BadInput`, `SettingsError`, `StartFailed`.
    """
    check_tenant(tenant)
    found, read = gathered(agents), settings_of(settings)
    attempts, posts = sorted_middleware(middleware)
    try:
        async with AsyncExitStack() as stack:
            clock, rng, topology = BoardClock(start), random.Random(seed), Topology()  # noqa: S311  a seed, not a secret
            server = MemoryServer(clock, rng)
            queues = MemoryQueues(topology.subjects, rng)
            around = Surroundings(
                server=server,
                queues=queues,
                faults=Faults(),
                rng=rng,
                topology=topology,
                middleware=attempts,
            )
            crew = MemoryCrew(found, read, around)
            router = await stack.enter_async_context(
                open_memory_router(
                    server, policy_of(read), lambda: f"{rng.getrandbits(64):016x}", crew.beats
                )
            )
            server.streams[topology.journal].heard.append(queues.heard)
            ledger = await stack.enter_async_context(open_memory_ledger(server, topology))
            connection = await stack.enter_async_context(open_memory_link(server, "client"))
            await stack.enter_async_context(crew.working(router, [SHARED_POOL, *read.pools], hosts))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            parts = _Parts(
                clock=clock, faults=around.faults, crew=crew, ledger=ledger, topology=topology
            )
            options = BoardOptions(
                tenant=tenant,
                name="callboard test",
                post_bytes=read.payload.post_bytes,
                middleware=posts,
            )
            board = await stack.enter_async_context(
                MemoryBoard(connection, options, group, rng, parts)
            )

            def unfinished() -> list[str]:
                return _unfinished(ledger, router)

            if clock.virtual is not None:
                tells = clock.virtual.tells
                tells.append(unfinished)
                stack.callback(tells.remove, unfinished)
            yield board
    except BaseExceptionGroup as errors:
        # The parts live in task groups: what the block, or one of them, raises is told as it is.
        error = _only(errors)
        if error is errors:
            raise
        raise error from error.__cause__


def _unfinished(ledger: MemoryLedger, router: MemoryRouter) -> list[str]:
    """A line for each task and workflow that has not ended: why it is where it is."""
    lines = []
    for row in ledger.rows().values():
        if row.state not in TERMINAL:
            found = router.engine.explain(row.tenant, row.id, router.clock.now_ms()) or {}
            lines.append(f"{row.id}: {found.get('message', row.state)}")
    return lines


def _only(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
