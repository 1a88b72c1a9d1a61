"""A board in memory runs agents and workflows as they are, and its days pass in milliseconds."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import tests.testing_agents
from callboard import (
    BadInput,
    Board,
    Context,
    Cron,
    Needs,
    Retry,
    TaskFailed,
    UnknownTask,
    Workflow,
    agent,
)
from callboard.testing import MemoryBoard, NothingHappens, memory_board, run, virtual_time
from callboard_broker.wire import Dispatch, Post
from tests.testing_agents import double, flaky, long, plain

ROOT = Path(__file__).parents[2]
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86_400


@agent("slow.thread")
def slow_thread(payload: float) -> str:
    """Take real time."""
    time.sleep(payload)
    return "worked"


@agent("waiting.thread")
def waiting_thread(payload: float, ctx: Context) -> list[float]:
    """Wait in a thread for a child that begins later; say what is left of the time."""
    child = ctx.wait(ctx.spawn("double", 4, delay=payload))
    return [ctx.wait(child.result()), ctx.remaining_seconds]


@virtual_time
async def test_the_board_is_the_one_that_connect_gives():
    async with memory_board(tests.testing_agents) as board:
        assert isinstance(board, Board)
        handle = await board.submit("parent.plain", [1, 2])
        assert await handle.result() == [2, 4]


@virtual_time
async def test_an_hour_of_a_handler_and_a_day_of_delay_pass_at_once():
    began = time.monotonic()
    async with memory_board([long, double]) as board:
        slept = await board.submit("long", 3500)
        assert await slept.result() == "slept"
        assert board.now() == NEW_YEAR + timedelta(seconds=3500)
        delayed = await board.submit("double", 4, delay=DAY)
        assert await delayed.result() == 8
        assert board.now() == NEW_YEAR + timedelta(seconds=3500 + DAY)
    assert time.monotonic() - began < 1


@virtual_time
async def test_a_week_of_cron_fires_seven_times():
    async with memory_board([double]) as board:
        await board.submit("double", 1, cron=Cron("0 6 * * *"))
        await board.advance(7 * DAY)
        ran = [each.at for each in board.events if each.kind == "dispatch"]
        assert ran == [NEW_YEAR + timedelta(days=day, hours=6) for day in range(7)]


@virtual_time
async def test_retries_wait_longer_and_longer():
    async with memory_board([flaky]) as board:
        again = Retry(attempts=4, delay=100, factor=10, max_delay=DAY)
        handle = await board.submit("flaky", {"failures": 3}, retry=again)
        assert await handle.result() == 4
        waits = [each.event for each in board.events if each.kind == "retrying"]
        assert len(waits) == 3
        assert board.now() - NEW_YEAR <= timedelta(seconds=100 + 1000 + 10_000)
        assert board.tasks[handle.id].errors == 3


@virtual_time
async def test_a_handler_is_stopped_at_its_timeout():
    async with memory_board([long]) as board:
        handle = await board.submit("long", 3000, timeout=2000)
        with pytest.raises(TaskFailed, match="TimedOut"):
            await handle.result()
        assert board.now() == NEW_YEAR + timedelta(seconds=2000)


@virtual_time
async def test_no_time_passes_while_a_plain_function_works():
    async with memory_board([slow_thread]) as board:
        handle = await board.submit("slow.thread", 0.05, timeout=0.01)
        assert await handle.result() == "worked"
        assert board.now() == NEW_YEAR


@virtual_time
async def test_time_passes_while_a_plain_function_waits_for_its_child():
    async with memory_board([waiting_thread, double]) as board:
        handle = await board.submit("waiting.thread", 250, timeout=300)
        assert await handle.result() == [8, pytest.approx(50, abs=0.01)]
        assert board.now() == NEW_YEAR + timedelta(seconds=250)


def test_the_same_seed_gives_the_same_journal():
    async def main(seed: int) -> list[bytes]:
        async with memory_board([flaky, double, plain], hosts=3, seed=seed) as board:
            again = Retry(attempts=3, delay=50)
            handles = [await board.submit("flaky", {"failures": 2}, retry=again) for _ in range(5)]
            for handle in handles:
                await handle.result()
            await board.advance(10)
            return [record.data for record in board._parts.ledger.journal.records]

    first = run(main(1))
    assert len(first) > 25
    assert first == run(main(1))
    assert first != run(main(2))


@virtual_time
async def test_a_workflow_waits_for_a_person_for_days():
    flow = Workflow("release")
    asked = flow.gate("ask", prompt="Release?")
    flow.step("go", "double", 4, when=asked["approved"])
    async with memory_board([double]) as board:
        handle = await board.run(flow)
        await board.advance(3 * DAY)
        assert handle.state != "succeeded"
        await board.approve(handle.id)
        assert await handle.result() == {"go": 8}
        kinds = [each.kind for each in board.events if each.kind in ("run", "approve", "dispatch")]
        assert kinds == ["run", "approve", "dispatch"]
        assert board.tasks[handle.id].state == "succeeded"


@virtual_time
async def test_payloads_and_results_are_json_as_in_production():
    async with memory_board([double, plain]) as board:
        with pytest.raises(BadInput, match="payload"):
            await board.submit("double", {"bad": object()})
        handle = await board.submit("plain", {"item": 7})
        with pytest.raises(TaskFailed) as raised:
            await handle.result()
        assert raised.value.error.field == "item"


@virtual_time
async def test_a_budget_bounds_what_runs_at_once():
    most, now = 0, 0

    @agent("work")
    async def work() -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(60)
        now -= 1

    async with memory_board([work], settings={"budgets.global_concurrency": 2}) as board:
        handles = [await board.submit("work") for _ in range(6)]
        for handle in handles:
            await handle.result()
        assert most == 2
        assert board.now() >= NEW_YEAR + timedelta(seconds=180)


@virtual_time
async def test_a_rate_is_kept_by_the_boards_clock():
    limits = {"budgets.capabilities": {"double": {"rate": 0.1, "burst": 1}}}
    async with memory_board([double], settings=limits) as board:
        handles = [await board.submit("double", number) for number in range(4)]
        for handle in handles:
            await handle.result()
        dispatched = [each.at for each in board.events if isinstance(each.event, Dispatch)]
        assert dispatched[-1] - dispatched[0] >= timedelta(seconds=30)


@virtual_time
async def test_a_budget_changes_while_the_board_runs():
    async with memory_board([double]) as board:
        asked = {"set": {"global": {"concurrency": 3}}}
        assert b'"concurrency":3' in await board.ask("budget", asked, tenant="all")


@virtual_time
async def test_a_host_is_chosen_by_what_a_task_needs():
    @agent("render", labels={"gpu": "a100"})
    async def render() -> str:
        return "rendered"

    async with memory_board([render]) as board:
        fits = await board.submit("render", needs=Needs(labels={"gpu": "a100"}))
        assert await fits.result() == "rendered"
        unfit = await board.submit("render", needs=Needs(labels={"gpu": "h100"}))
        await board.advance(60)
        assert (await board.explain(unfit.id))["state"] == "waiting"
        with pytest.raises(UnknownTask):
            await board.explain(fits.id)


@virtual_time
async def test_tenants_with_a_pool_of_their_own_are_served_there():
    async with memory_board([double], settings={"pools": {"private": ["acme"]}}) as board:
        handle = await board.submit("double", 2, tenant="acme")
        assert await handle.result() == 4


def test_what_waits_for_ever_is_told_with_the_reason():
    async def main() -> None:
        async with memory_board([double]) as board:
            handle = await board.submit("dubble", 4)
            await handle.result()

    with pytest.raises(NothingHappens, match="nobody serves dubble"):
        run(main())


def test_what_the_block_raises_arrives_as_it_is():
    async def main() -> None:
        async with memory_board([double]):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(main())


@virtual_time
async def test_the_journal_is_there_to_be_read():
    async with memory_board([double], tenant="acme", start=NEW_YEAR + timedelta(days=9)) as board:
        handle = await board.submit("double", 4)
        await handle.result()
        (posted,) = [each for each in board.events if each.kind == "post"]
        assert (posted.tenant, posted.capability, posted.task) == ("acme", "double", handle.id)
        assert posted.at == NEW_YEAR + timedelta(days=9)
        assert isinstance(posted.event, Post)
        assert [each.seq for each in board.events] == list(range(1, len(board.events) + 1))


@virtual_time
async def test_agents_come_from_places_and_no_two_serve_one_capability():
    async with memory_board(str(ROOT / "tests" / "testing_agents.py")) as board:
        assert await (await board.submit("counter", 1)).result() == 2

    @agent("double")
    async def another() -> None: ...

    with pytest.raises(BadInput, match="two agents"):
        async with memory_board([double, another]):
            pass


async def test_on_an_ordinary_loop_time_is_real():
    async with memory_board([double, plain]) as board:
        assert abs(board.now() - datetime.now(UTC)) < timedelta(seconds=5)
        began = time.monotonic()
        handle = await board.submit("double", 1, delay=0.1)
        await (await board.submit("plain", {"item": "tea"})).result()
        assert await handle.result() == 2
        assert time.monotonic() - began >= 0.09


def test_a_hundred_tasks_on_several_hosts_all_end():
    async def main() -> set[str | None]:
        async with memory_board([double], hosts=4) as board:
            handles = [await board.submit("double", number) for number in range(100)]
            assert [await handle.result() for handle in handles] == [2 * n for n in range(100)]
            return {getattr(row, "host", None) for row in board.tasks.values()}

    assert run(main()) == {"host-0", "host-1", "host-2", "host-3"}


def test_nothing_of_production_imports_the_harness():
    folders = ("agents", "broker", "config", "console", "integrations", "ledger", "router")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    importing = [
        file
        for file in files
        if "testing" not in file.parts
        and re.search(r"^\s*(from|import) callboard\.testing", file.read_text(), re.MULTILINE)
    ]
    assert len(files) > 200
    assert importing == []


def test_the_board_in_memory_is_public():
    assert issubclass(MemoryBoard, Board)


def test_an_agent_that_cannot_be_made_says_why():
    @agent("broken")
    class Broken:
        def __init__(self) -> None:
            raise OSError("no model file")

        async def __call__(self) -> None: ...

    async def main() -> None:
        async with memory_board([Broken]):
            pass

    with pytest.raises(OSError, match="no model file"):
        run(main())
