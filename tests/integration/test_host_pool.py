"""A pool keeps its hosts alive, and reports their death at once."""

from __future__ import annotations

import asyncio
import os
import select
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


async def test_a_host_that_hangs_is_killed_reported_gone_and_started_again(nats: NatsServer):
    async with open_stage(nats, "forever", "echo") as stage, asyncio.TaskGroup() as group:
        options = stage.options(name="local", lease_seconds=30.0, hung_seconds=1.0)
        pool = LocalPool([str(AGENTS)], options, hosts=2)
        group.create_task(pool.run())
        held = await stage.held(await stage.dispatch("forever"))
        ended = os.pidfd_open(held.pid)
        os.kill(held.pid, signal.SIGSTOP)
        gone = await stage.beat(lambda beat: beat.gone)
        assert (gone.host, gone.ends(held.incarnation)) == (held.host, True)
        assert select.select([ended], [], [], 0)[0], "its death is certain before it is reported"
        os.close(ended)
        again = await stage.beat(
            lambda beat: beat.host == held.host and beat.incarnation != held.incarnation
        )
        assert again.pid != held.pid
        assert await stage.result(await stage.dispatch("echo", "still here")) == "still here"
        pool.stop()
    assert pool.pids == []


async def test_a_blocked_loop_is_no_hung_process(nats: NatsServer, tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with open_stage(nats, "block") as stage, asyncio.TaskGroup() as group:
        pool = LocalPool([str(AGENTS)], stage.options(hung_seconds=0.5), hosts=1)
        group.create_task(pool.run())
        blocked = await stage.dispatch("block", str(pipe))
        held = await stage.held(blocked)
        await stage.beat(lambda beat: beat.blocked > 1.0)
        await asyncio.to_thread(pipe.write_text, "go on\n")
        assert await stage.result(blocked) == "go on"
        assert pool.pids == [held.pid]
        pool.stop()


async def test_a_pool_whose_agents_cannot_be_loaded_says_so_and_ends(
    nats: NatsServer, tmp_path: Path
):
    async with open_stage(nats) as stage:
        pool = LocalPool([str(tmp_path / "absent.py")], stage.options())
        with pytest.raises(BadInput, match="refused"):
            await pool.run()
        assert pool.pids == []
