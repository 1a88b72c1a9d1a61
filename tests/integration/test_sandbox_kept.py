"""Child processes that run several tasks of one tenant, where their agent allows that."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from callboard_agents.sandbox import CellPlan, Ending, Grant, Nursery, TaskHeader, open_nursery
from callboard_agents.sandbox import nursery as nursery_module
from tests.heard import Heard

pytestmark = pytest.mark.timeout(60)

AGENTS = Path(__file__).parent.parent / "kept_agents.py"


@asynccontextmanager
async def opened(
    capability: str, tasks: int = 100, *, slots: int = 2, spares: int = 1, **grant: Any
) -> AsyncIterator[Nursery]:
    plan = CellPlan(
        capability=capability,
        grant=Grant(**grant),
        slots=slots,
        spares=spares,
        tasks_per_child=tasks,
    )
    async with open_nursery(places=[str(AGENTS)], plans=[plan]) as nursery:
        yield nursery


async def run(
    nursery: Nursery, capability: str, payload: Any = None, tenant: str | None = "acme"
) -> Ending:
    child = await nursery.wait(capability, tenant)
    heard = Heard()
    header = TaskHeader("1", 1, tenant or "acme", capability, 30.0)
    child.start(header, json.dumps(payload).encode(), heard)
    async with asyncio.timeout(20):
        return await heard.end


def result(ending: Ending) -> Any:
    assert ending.failure is None, ending.failure
    assert ending.result is not None
    return json.loads(ending.result)


async def test_tasks_of_one_tenant_share_a_process_and_those_of_another_never_see_it() -> None:
    async with opened("kept.remember") as nursery:
        first = await run(nursery, "kept.remember", "one")
        second = await run(nursery, "kept.remember", "two")
        other = await run(nursery, "kept.remember", "else", "emca")
        third = await run(nursery, "kept.remember", "three")
    words, pid = result(first)
    assert words == ["one"]
    assert result(second) == [["one", "two"], pid]
    assert result(third) == [["one", "two", "three"], pid]
    assert result(other)[0] == ["else"]
    assert result(other)[1] != pid
    assert "fresh" in first.layers
    assert {*first.layers} - {*second.layers} == {"fresh"}
    assert "fresh" in other.layers


async def test_a_child_runs_no_more_tasks_than_its_agent_allows() -> None:
    async with opened("kept.remember", tasks=3) as nursery:
        counts = [len(result(await run(nursery, "kept.remember", "a"))[0]) for _ in range(7)]
    assert counts == [1, 2, 3, 1, 2, 3, 1]


async def test_a_tenant_that_wants_each_task_alone_gets_that() -> None:
    async with opened("kept.remember") as nursery:
        for _ in range(3):
            ending = await run(nursery, "kept.remember", "alone", None)
            assert result(ending)[0] == ["alone"]
            assert "fresh" in ending.layers


async def test_folder_environment_and_output_are_as_new_for_each_task() -> None:
    async with opened("kept.leave") as nursery:
        found = [result(await run(nursery, "kept.leave")) for _ in range(4)]
        child = await nursery.wait("kept.leave", "acme")
        heard = Heard()
        child.start(TaskHeader("1", 1, "acme", "kept.leave", 30.0), b"null", heard)
        result(await heard.end)
    assert found == [found[0]] * 4, "in one process"
    assert found[0][:4] == [[], True, None, "0o77"]
    assert heard.lines == ["no end of the line"], "print reaches the host again"


@pytest.mark.parametrize(
    "how",
    [
        *("raise", "thread", "cpu", "cpu in a thread", "memory", "mapped"),
        *("descriptors", "files", "limit", "timer"),
    ],
)
async def test_a_process_that_is_not_as_before_runs_no_other_task(how: str) -> None:
    async with opened("kept.fail", memory_mb=256, cpu_seconds=1.0) as nursery:
        good = result(await run(nursery, "kept.fail", ""))
        assert result(await run(nursery, "kept.fail", "")) == good
        ending = await run(nursery, "kept.fail", how)
        if how == "raise":
            assert ending.failure is not None
            assert ending.failure.type == "ValueError"
        else:
            assert result(ending) == good
        assert result(await run(nursery, "kept.fail", "")) != good


@pytest.mark.parametrize("how", ["task", "timer", "callback", "reader"])
async def test_a_coroutine_that_leaves_something_to_its_loop_is_the_last_of_its_process(
    how: str,
) -> None:
    async with opened("kept.fail.async") as nursery:
        good = result(await run(nursery, "kept.fail.async", ""))
        assert result(await run(nursery, "kept.fail.async", "")) == good
        assert result(await run(nursery, "kept.fail.async", how)) == good
        assert result(await run(nursery, "kept.fail.async", "")) != good


async def test_each_task_is_told_its_own_use_of_memory_and_cpu() -> None:
    async with opened("kept.spend", memory_mb=512) as nursery:
        much = await run(nursery, "kept.spend", 60)
        little = await run(nursery, "kept.spend", 10)
        again = await run(nursery, "kept.spend", 30)
    assert result(much) == result(little) == result(again)
    for ending, megabytes in ((much, 60), (little, 10), (again, 30)):
        assert megabytes * 0.9 < ending.usage.memory_mb < megabytes + 8
        assert megabytes * 0.004 < ending.usage.cpu_s < megabytes * 0.005 + 0.2
        assert ending.usage.wall_s >= ending.usage.cpu_s * 0.9


async def test_a_task_that_is_cancelled_says_nothing_of_the_next() -> None:
    async with opened("kept.wait") as nursery:
        child = await nursery.wait("kept.wait", "acme")
        heard = Heard()
        child.start(TaskHeader("1", 1, "acme", "kept.wait", 30.0), b"0.0", heard)
        _, pid = result(await heard.end)
        child.cancel()  # too late: they reach nobody
        child.kill()
        child.answer(1, b"null")
        assert result(await run(nursery, "kept.wait", 0.0)) == [False, pid]


async def test_kept_processes_give_way_to_other_tenants() -> None:
    async with opened("kept.remember", slots=2, spares=0) as nursery:
        pids = {
            result(await run(nursery, "kept.remember", "x", tenant))[1]
            for tenant in ("a", "b", "c", "d")
        }
        assert len(pids) == 4, "with two cells"
        words, _ = result(await run(nursery, "kept.remember", "y", "d"))
        assert words == ["x", "y"], "the youngest is still there"


async def test_who_waits_longer_is_not_passed_over_for_the_tenant_that_has_a_process() -> None:
    ended = []

    async def one(nursery: Nursery, tenant: str) -> None:
        await run(nursery, "kept.wait", 0.3, tenant)
        ended.append(tenant)

    async with opened("kept.wait", slots=1, spares=0) as nursery, asyncio.TaskGroup() as group:
        for tenant in ("acme", "emca", "acme", "acme", "emca"):
            group.create_task(one(nursery, tenant))
    assert ended[:2] == ["acme", "emca"]


async def test_one_that_waits_gets_the_process_of_its_tenant_as_soon_as_it_is_free() -> None:
    async with opened("kept.wait", slots=1, spares=0) as nursery:
        first = asyncio.create_task(run(nursery, "kept.wait", 0.2))
        second = asyncio.create_task(run(nursery, "kept.wait", 0.0))
        assert result(await first)[1] == result(await second)[1]


async def test_a_process_waits_for_its_tenant_some_seconds_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nursery_module, "_IDLE_S", 0.0)
    async with opened("kept.remember") as nursery:
        pid = result(await run(nursery, "kept.remember", "one"))[1]
        async with asyncio.timeout(20):
            while psutil.pid_exists(pid):  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        assert result(await run(nursery, "kept.remember", "two"))[0] == ["two"]


async def test_a_process_that_has_died_unnoticed_is_given_no_task() -> None:
    async with opened("kept.remember") as nursery:
        pid = result(await run(nursery, "kept.remember", "one"))[1]
        keeper = psutil.Process(pid).parent()
        assert keeper is not None
        keeper.suspend()  # who would tell
        pidfd = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0]
        os.close(pidfd)
        assert result(await run(nursery, "kept.remember", "two"))[0] == ["two"]
        keeper.resume()


async def test_a_child_that_is_lost_before_it_is_used_is_given_to_nobody() -> None:
    async with opened("kept.remember", slots=1, spares=0) as nursery:
        child = await nursery.wait("kept.remember")
        keeper = psutil.Process(child.pid).parent()
        assert keeper is not None
        zygote = keeper.parent()
        assert zygote is not None
        child.kill()
        async with asyncio.timeout(20):
            while not nursery._empty[0]:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        waiting = asyncio.create_task(nursery.wait("kept.remember"))
        await asyncio.sleep(0)
        line = nursery._cells[0]._line
        assert select.select([line], [], [], 10)[0]  # a child is born, and not heard of yet
        zygote.kill()
        assert select.select([nursery._control], [], [], 10)[0]
        with pytest.raises(ConnectionResetError):
            await waiting


async def test_what_a_process_says_after_its_result_is_no_result_of_the_next_task() -> None:
    async with opened("kept.fail") as nursery:
        assert result(await run(nursery, "kept.fail", "forge")) == "forged"
        (kept,) = nursery._idle[0]
        assert select.select([kept._channel], [], [], 10)[0]
        assert result(await run(nursery, "kept.fail", "")) != kept.pid


async def test_a_process_that_waits_holds_no_result_any_more() -> None:
    async with opened("kept.say", memory_mb=4096) as nursery:
        assert len(result(await run(nursery, "kept.say", 50))) == 50 << 20
        (kept,) = nursery._idle[0]
        process = psutil.Process(kept.pid)
        async with asyncio.timeout(5):  # less than it is kept
            while process.memory_info().rss > 50 << 20:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)


async def test_a_kept_process_that_dies_is_forgotten() -> None:
    async with opened("kept.fail") as nursery:
        first = result(await run(nursery, "kept.fail", ""))
        await run(nursery, "kept.fail", "exit later")
        async with asyncio.timeout(20):
            while psutil.pid_exists(first):  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
        assert result(await run(nursery, "kept.fail", "")) != first
