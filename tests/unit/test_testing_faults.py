"""Hosts are lost and attempts fail on order, so that a test sees whether effects happen twice."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

import pytest

from callboard import Context, Retry, TaskFailed, agent
from callboard.testing import memory_board, virtual_time

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


class Bank:
    """Whoever is called: each key moves money once. calls: how often it was asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.moved: dict[str, int] = {}

    def pay(self, key: str, amount: int) -> None:
        self.calls += 1
        self.moved.setdefault(key, amount)


def paying(bank: Bank):
    @agent("pay")
    async def pay(payload: int, ctx: Context) -> int:
        bank.pay(ctx.idempotency_key, payload)
        await asyncio.sleep(60)
        return ctx.attempt

    return pay


@virtual_time
async def test_a_lost_host_means_another_attempt_with_the_same_key():
    bank = Bank()
    async with memory_board([paying(bank)]) as board:
        handle = await board.submit("pay", 100)
        await board.advance(30)
        assert await board.lose_host() == "host-0"
        assert await handle.result() == 2
        assert (bank.calls, list(bank.moved.values())) == (2, [100])
        assert board.now() == NEW_YEAR + timedelta(seconds=90)
        assert [each.kind for each in board.events if each.task == handle.id] == [
            "post",
            "dispatch",
            "lost",
            "dispatch",
            "outcome",
        ]


@virtual_time
async def test_a_death_that_nobody_reports_is_noticed_when_the_lease_ends():
    async with memory_board([paying(Bank())]) as board:
        handle = await board.submit("pay", 100)
        await board.advance(30)
        await board.lose_host(silent=True)
        assert await handle.result() == 2
        late = board.now() - NEW_YEAR - timedelta(seconds=90)
        assert timedelta(seconds=19) <= late <= timedelta(seconds=22)


@virtual_time
async def test_three_lost_hosts_end_the_task():
    async with memory_board([paying(Bank())]) as board:
        handle = await board.submit("pay", 100)
        for _ in range(3):
            await board.advance(10)
            await board.lose_host()
        with pytest.raises(TaskFailed, match="lost"):
            await handle.result()


@virtual_time
async def test_only_the_attempts_of_the_lost_host_are_lost():
    async with memory_board([paying(Bank())], hosts=2) as board:
        handles = [await board.submit("pay", number) for number in range(8)]
        await board.advance(1)
        on_one = {task for task, row in board.tasks.items() if row.host == "host-1"}
        await board.lose_host("host-1")
        await board.advance(1)
        lost = {each.task for each in board.events if each.kind == "lost"}
        assert [await handle.result() for handle in handles]
        assert len(lost) in range(1, 8)
        assert on_one <= lost
        with pytest.raises(LookupError, match="host-7"):
            await board.lose_host("host-7")


@virtual_time
async def test_what_a_lost_hosts_thread_returns_does_not_count():
    begun, go_on = threading.Semaphore(0), threading.Event()

    @agent("thread")
    def thread(ctx: Context) -> int:
        begun.release()
        go_on.wait(10)
        return ctx.attempt

    async with memory_board([thread]) as board:
        handle = await board.submit("thread")
        await asyncio.to_thread(begun.acquire)
        await board.lose_host()
        await asyncio.to_thread(begun.acquire)
        go_on.set()
        assert await handle.result() == 2


@virtual_time
async def test_a_new_host_has_new_instances_of_its_agents():
    made = []

    @agent("counted")
    class Counted:
        def __init__(self) -> None:
            made.append(self)

        async def __call__(self) -> int:
            return made.index(self)

    async with memory_board([Counted]) as board:
        assert await (await board.submit("counted")).result() == 0
        await board.lose_host()
        assert await (await board.submit("counted")).result() == 1


@virtual_time
async def test_an_ordered_failure_strikes_instead_of_the_handler():
    bank = Bank()
    async with memory_board([paying(bank)]) as board:
        board.fail_next("pay", ConnectionError("no bank"), times=2)
        handle = await board.submit("pay", 5, retry=Retry(attempts=3, delay=1))
        assert await handle.result() == 3
        assert bank.calls == 1
        other = await board.submit("pay", 6)
        assert await other.result() == 1


@virtual_time
async def test_an_ordered_failure_after_the_handler_shows_what_happens_twice():
    bank = Bank()
    async with memory_board([paying(bank)]) as board:
        board.fail_next("pay", ConnectionError("the answer was lost"), after=True)
        handle = await board.submit("pay", 5, retry=Retry(attempts=2, delay=1))
        assert await handle.result() == 2
        assert (bank.calls, list(bank.moved.values())) == (2, [5])


@virtual_time
async def test_an_ordered_failure_is_final_if_its_error_says_so():
    class NoMore(Exception):
        retry = False

    async with memory_board([paying(Bank())]) as board:
        board.fail_next("pay", NoMore("stop"))
        handle = await board.submit("pay", 5, retry=Retry(attempts=9))
        with pytest.raises(TaskFailed, match="NoMore: stop"):
            await handle.result()


@virtual_time
async def test_plain_functions_fail_on_order_too():
    @agent("plain")
    def plain(ctx: Context) -> int:
        return ctx.attempt

    async with memory_board([plain]) as board:
        board.fail_next("plain", ValueError("first"))
        board.fail_next("plain", ValueError("second"), after=True)
        handle = await board.submit("plain", retry=Retry(attempts=3, delay=1))
        assert await handle.result() == 3
