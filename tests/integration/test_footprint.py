"""What a host costs: its beats count its children, with what those have started."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from callboard_agents import footprint
from callboard_agents.footprint import Cost, Footprint
from callboard_agents.loading import load
from callboard_agents.sandbox import CellPlan, Grant, Nursery, TaskHeader, open_nursery
from callboard_agents.sandbox.living import Living
from tests.heard import Heard
from tests.hosts import open_stage
from tests.one_command import begin, opened
from tests.open_folders import PYTHON, open_folder
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(60)

AGENTS = str(Path(__file__).parent.parent / "isolated_agents.py")
BURN = "import sys, time; kept = b'x' * (100 << 20); exec('while time.process_time() < 1: pass')"


@asynccontextmanager
async def children(capability: str, slots: int) -> AsyncIterator[Nursery]:
    plan = CellPlan(capability=capability, grant=Grant(), slots=slots, spares=slots)
    async with open_nursery(places=[AGENTS], plans=[plan]) as nursery:
        yield nursery


async def start(nursery: Nursery, capability: str, payload: Any = None) -> Heard:
    child = await nursery.wait(capability)
    heard = Heard()
    header = TaskHeader("1", 1, "acme", capability, 30.0)
    child.start(header, json.dumps(payload).encode(), heard)
    return heard


async def seen(look: Any) -> Any:
    """Look until it returns something."""
    async with asyncio.timeout(30):
        while not (found := look()):  # noqa: ASYNC110  the kernel tells nobody
            await asyncio.sleep(0.02)
    return found


def spent(cost: Cost, since: float, own_s: float) -> float:
    """Seconds of CPU of the children. own_s: what this process had used at `since`."""
    return cost.cores * (time.monotonic() - since) - (time.process_time() - own_s)


async def test_beats_count_what_a_child_uses_and_have_it_no_longer_when_it_has_ended(
    nats: NatsServer,
):
    work = [one for one in load([AGENTS]) if one.capability == "iso.work"]
    async with open_stage(nats, "iso.work") as stage, stage.host(work, places=[AGENTS]):
        await stage.seen(lambda: len(stage.beats) > 3 or None)
        idle = stage.beats[-1]
        dispatch = await stage.dispatch("iso.work", {"mb": 200, "cpu_s": 2.0})
        least_mb = idle.memory_mb + 150
        busy = await stage.beat(lambda beat: beat.memory_mb > least_mb and beat.cpu > 0.15)
        assert busy.memory_mb < idle.memory_mb + 350
        assert await stage.result(dispatch) == 200
        count = len(stage.beats)

        def has_fallen() -> bool | None:
            later = stage.beats[count:]
            return any(b.cpu < 0.15 and b.memory_mb < idle.memory_mb + 50 for b in later) or None

        await stage.seen(has_fallen)


async def test_what_lived_and_died_between_two_looks_counts():
    looks = Footprint()
    async with children("iso.work", 1) as nursery:
        heard = await start(nursery, "iso.work", {"mb": 1, "cpu_s": 0.0})
        assert (await heard.end).result == b"1"
        looks.look(nursery.living())
        since, own_s = time.monotonic(), time.process_time()
        heard = await start(nursery, "iso.work", {"mb": 1, "cpu_s": 0.6})
        pid = max(cell.child for cell in nursery.living().cells if cell.busy)
        assert (await heard.end).result == b"1"
        await seen(lambda: not psutil.pid_exists(pid))
        await asyncio.sleep(max(0.0, since + 0.3 - time.monotonic()))  # looks are that far apart
        assert 0.4 < spent(looks.look(nursery.living()), since, own_s) < 2.0


async def test_what_a_command_has_started_counts_while_it_runs():
    looks = Footprint()
    text = f"'{PYTHON}' -c \"{BURN}; print('burnt', file=sys.stderr, flush=True); time.sleep(60)\""
    with open_folder() as folder:
        async with opened("sh", "-c", f"{text} & wait", folder=folder) as nursery:
            idle = looks.look(nursery.living())
            since, own_s = time.monotonic(), time.process_time()
            heard = Heard(until=b"burnt")
            child = await begin(nursery, heard)
            async with asyncio.timeout(30):
                await heard.reached.wait()
            busy = looks.look(nursery.living())
            assert 0.8 < spent(busy, since, own_s) < 8  # with the start of its interpreter
            assert 90 < busy.memory_mb - idle.memory_mb < 200
            child.kill()
            await heard.end


async def test_memory_that_children_share_counts_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(footprint, "_APART", 0.0)
    async with children("iso.wait", 6) as nursery:
        await seen(lambda: len([cell for cell in nursery.living().cells if cell.child]) >= 6)
        looks = Footprint()
        alone, all_of_it = looks.look(None), looks.look(nursery.living())
        assert 0 < all_of_it.memory_mb - alone.memory_mb < 100


async def test_a_look_ends_in_time_and_begins_with_what_was_left_out(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(footprint, "_APART", 0.0)
    async with children("iso.work", 3) as nursery:
        for _ in range(3):
            await start(nursery, "iso.work", {"mb": 50, "cpu_s": 25.0})

        def has_all() -> bool:
            alone, zygote = Footprint().look(None), Living(nursery.living().zygote, ())
            least = Footprint().look(zygote).memory_mb
            return (
                least > alone.memory_mb
                and Footprint().look(nursery.living()).memory_mb > least + 150
            )

        await seen(has_all)
        monkeypatch.setattr(footprint, "_BOUND", 0.0)
        looks = Footprint()
        found = [looks.look(nursery.living()).memory_mb for _ in range(6)]  # there are 6 cells
        assert found[0] < found[-1] - 80, found
        monkeypatch.setattr(footprint, "_BOUND", 5.0)
        assert abs(looks.look(nursery.living()).memory_mb - found[-1]) < 10
