"""A pool keeps its hosts alive, and reports their death at once."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from callboard_agents import LocalPool
from callboard_broker.errors import BadInput
from tests.hosts import AGENTS, open_stage
from tests.servers import NatsServer


async def test_a_killed_host_is_reported_gone_at_once_and_started_again(nats: NatsServer):
    async with open_stage(nats, "forever", "echo") as stage, asyncio.TaskGroup() as group:
        pool = LocalPool([str(AGENTS)], stage.options(name="local", lease_seconds=30.0), hosts=2)
        group.create_task(pool.run())
        held = await stage.held(await stage.dispatch("forever"))
        assert held.host in ("local-0", "local-1")
        assert held.pid in pool.pids
        os.kill(held.pid, signal.SIGKILL)
        gone = await stage.beat(lambda beat: beat.gone)
        assert gone.host == held.host
        assert gone.ends(held.incarnation)
        again = await stage.beat(
            lambda beat: beat.host == held.host and beat.incarnation != held.incarnation
        )
        assert again.holds == []
        assert await stage.result(await stage.dispatch("echo", "still here")) == "still here"
        pool.stop()
    assert pool.pids == []


async def test_a_pool_whose_agents_cannot_be_loaded_says_so_and_ends(
    nats: NatsServer, tmp_path: Path
):
    async with open_stage(nats) as stage:
        pool = LocalPool([str(tmp_path / "absent.py")], stage.options())
        with pytest.raises(BadInput, match="refused"):
            await pool.run()
        assert pool.pids == []
