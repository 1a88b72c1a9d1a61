"""Agent processes grow with a burst, shrink when it is quiet, and are replaced without a loss."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from callboard_agents import LocalPool
from callboard_agents.demand import Backlog, QueueBacklog
from callboard_agents.scaling import ScalingPolicy
from tests.hosts import Stage, open_stage
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(90)

QUICK = ScalingPolicy(
    least=0,
    most=3,
    wait_seconds=0.5,
    quiet_seconds=0.3,
    idle_seconds=0.5,
    look_seconds=0.1,
    busy=1.0,
    reserve_mb=0,
)


MODULE = """
import asyncio
from pathlib import Path
from callboard_agents import agent

def read(pipe):
    with Path(pipe).open(encoding="utf-8") as lines:
        return lines.readline()

@agent("echo", version="{version}")
async def echo(_payload: object) -> str:
    return "{version}"

@agent("wait", version="{version}")
async def wait(pipe: str) -> str:
    await asyncio.to_thread(read, pipe)
    return "{version}"
"""


def written(module: Path, version: str) -> Path:
    module.write_text(MODULE.format(version=version), encoding="utf-8")
    return module


class Board:
    """A stage that also answers what waits; `alive` are the hosts whose last beat says so."""

    def __init__(self, stage: Stage, pool: LocalPool) -> None:
        self.stage = stage
        self.pool = pool
        self.backlog: Backlog | None = Backlog()

    async def listen(self) -> None:
        subject = self.stage.subjects.ask("all", "backlog")
        await self.stage.connection.sink(subject, self._answer)

    def _answer(self, _subject: str, reply: str, _headers: bytes, _data: bytes) -> None:
        if self.backlog is not None:
            self.stage.connection.send(reply, msgspec.json.encode(self.backlog))

    def waits(self, capability: str = "echo", **queue: int) -> None:
        """From now on this is what the router says."""
        self.backlog = Backlog([QueueBacklog("shared", capability, **queue)])

    @property
    def alive(self) -> set[str]:
        last = {beat.host: beat for beat in self.stage.beats}
        return {host for host, beat in last.items() if not beat.gone}

    async def have(self, number: int) -> set[str]:
        """Wait until so many hosts live."""
        return await self.stage.seen(lambda: self.alive if len(self.alive) == number else None)


@asynccontextmanager
async def running(nats: NatsServer, module: Path, policy: ScalingPolicy) -> AsyncIterator[Board]:
    async with open_stage(nats, "echo", "wait") as stage, asyncio.TaskGroup() as group:
        pool = LocalPool([str(module)], stage.options(name="local"), scaling=policy)
        board = Board(stage, pool)
        await board.listen()
        task = group.create_task(pool.run())
        try:
            yield board
        finally:
            pool.stop()
            await task
        assert pool.pids == []


async def test_processes_follow_the_backlog_from_none_to_the_most_and_back(
    nats: NatsServer, tmp_path: Path
):
    async with running(nats, written(tmp_path / "one.py", "1"), QUICK) as board:
        board.waits(waiting=1, oldest_ms=0)
        await board.have(1)
        board.waits(waiting=500, oldest_ms=2000, running=100, slots=100, hosts=1)
        await board.have(3)
        board.waits(waiting=0, running=10, slots=300, hosts=3)
        await board.have(1)
        board.waits(waiting=0, slots=100, hosts=1)
        await board.have(0)
        board.waits("echo.loudly", waiting=1)
        await board.have(1)
        assert await board.stage.result(await board.stage.dispatch("echo")) == "1"


async def test_a_silent_router_changes_nothing(nats: NatsServer, tmp_path: Path):
    async with running(nats, written(tmp_path / "one.py", "1"), QUICK) as board:
        board.waits(waiting=1)
        hosts = await board.have(1)
        board.backlog = None
        first = len(board.stage.beats)
        await board.stage.seen(lambda: len(board.stage.beats) > first + 10 or None)
        assert board.alive == hosts


async def test_a_rolling_restart_brings_the_new_version_beside_the_old_and_loses_nothing(
    nats: NatsServer, tmp_path: Path
):
    module, pipe = written(tmp_path / "versions.py", "1"), tmp_path / "pipe"
    os.mkfifo(pipe)
    fixed = ScalingPolicy(least=2, most=2)
    async with running(nats, module, fixed) as board:
        old = await board.have(2)
        stage = board.stage
        slow = await stage.dispatch("wait", str(pipe))
        holder = (await stage.held(slow)).host
        assert await stage.result(await stage.dispatch("echo")) == "1"
        written(module, "2")
        board.pool.restart()
        await stage.seen(lambda: len(board.alive - old) == 2 or None)
        await stage.seen(lambda: board.alive & old == {holder} or None)
        dispatches = [await stage.dispatch("echo") for _ in range(20)]
        assert {await stage.result(dispatch) for dispatch in dispatches} <= {"1", "2"}
        assert holder in board.alive
        pipe.write_text("go\n", encoding="utf-8")
        assert await stage.result(slow) == "1"
        await board.have(2)
        assert not board.alive & old
        assert await stage.result(await stage.dispatch("echo")) == "2"


async def test_a_version_that_does_not_load_leaves_the_old_one_at_work(
    nats: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    module = written(tmp_path / "versions.py", "1")
    async with running(nats, module, ScalingPolicy()) as board:
        await board.have(1)
        for broken in ("this is no Python", "import os; os._exit(0)"):
            module.write_text(broken, encoding="utf-8")
            caplog.clear()
            board.pool.restart()
            async with asyncio.timeout(20):
                while "no restart" not in caplog.text:  # noqa: ASYNC110  a log tells nobody
                    await asyncio.sleep(0.05)
            assert await board.stage.result(await board.stage.dispatch("echo")) == "1"
        assert len(board.alive) == 1
