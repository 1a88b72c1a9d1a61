"""A supervisor of agent processes beside a real router: bursts, new versions, nothing to do."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from callboard import connect
from tests.board import started_processes
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(90)

MODULE = """
import asyncio
from callboard import agent

@agent("versions.tell", version="{version}", slots=2)
async def tell(_payload: object) -> str:
    await asyncio.sleep(0.05)
    return "{version}"
"""
HANGING = """
import os, pathlib, signal
from callboard import Context, agent

@agent("hangs")
async def hangs(_payload: object, ctx: Context) -> tuple[int, int]:
    if ctx.attempt == 1:
        pathlib.Path("{told}").write_text(str(os.getpid()), encoding="ascii")
        os.kill(os.getpid(), signal.SIGSTOP)
    return ctx.attempt, os.getpid()
"""
QUICK = {
    "SCALING__WAIT_SECONDS": 0.2,
    "SCALING__QUIET_SECONDS": 0.3,
    "SCALING__IDLE_SECONDS": 0.5,
    "SCALING__BUSY": 1.0,
    "SCALING__RESERVE_MB": 0,
}


async def test_processes_come_with_a_burst_are_replaced_under_load_and_go_when_nothing_is_left(
    nats: NatsServer, tmp_path: Path
) -> None:
    module = tmp_path / "versions.py"
    module.write_text(MODULE.format(version=1), encoding="utf-8")
    with started_processes(nats, tmp_path, **QUICK) as board:
        board.router("router")
        await board.says("now leader", "router")
        board.start("crew", *f"agents run {module} --min 0 --max 2".split())
        async with connect(nats.url, prefix=nats.prefix) as poster:
            handles = [await poster.submit("versions.tell") for _ in range(400)]
            await board.says("2 processes instead of 1", "crew")
            module.write_text(MODULE.format(version=2), encoding="utf-8")
            os.kill(board.pid("crew"), signal.SIGHUP)
            pinned = await poster.submit("versions.tell", needs={"version": ">=2"})
            assert await pinned.result(30) == "2"
            results = await asyncio.gather(*(handle.result(60) for handle in handles))
            assert set(results) == {"1", "2"}
            assert "does not come up" not in board.log("crew")
            await board.says("0 processes instead of 1", "crew")
            again = await poster.submit("versions.tell")
            assert await again.result(30) == "2"


async def test_the_task_of_a_process_that_hangs_runs_elsewhere_before_its_lease_ends(
    nats: NatsServer, tmp_path: Path
) -> None:
    module, told = tmp_path / "hanging.py", tmp_path / "pid"
    module.write_text(HANGING.format(told=str(told)), encoding="utf-8")
    quick = {"LEASE__BEAT_SECONDS": 0.2, "LEASE__LEASE_SECONDS": 60, "LEASE__HUNG_SECONDS": 1}
    with started_processes(nats, tmp_path, **quick) as board:
        board.router("router")
        await board.says("now leader", "router")
        board.start("crew", *f"agents run {module} --processes 2".split())
        async with connect(nats.url, prefix=nats.prefix) as poster:
            attempt, pid = await (await poster.submit("hangs")).result(40)
            assert attempt == 2
            assert pid != int(told.read_text(encoding="ascii"))
        await board.says("hangs: no sign of life", "crew")
        await board.says("it starts again", "crew")
