"""On a board in memory a handler has its whole context, and hosts have lifespans and middleware."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest

from callboard import (
    BadInput,
    Call,
    Context,
    GiveUp,
    Handle,
    Middleware,
    Next,
    Retry,
    StartFailed,
    Submission,
    SubmitMiddleware,
    SubmitNext,
    agent,
    command_agent,
    lifespan,
)
from callboard.testing import memory_board, run_agent, virtual_time


@agent("pages", timeout=4 * 3600)
async def pages(payload: int, ctx: Context) -> list[Any]:
    """Turn over one page an hour, and keep each in a blob."""
    done: list[Any] = ctx.restored or []
    while len(done) < payload:
        await asyncio.sleep(3600)
        ref = await ctx.blob.put(b"page %d" % len(done))
        done.append((await ctx.blob.get(ref)).decode())
        ctx.output(done[-1])
        ctx.settle(pages=1)
        await ctx.checkpoint(done)
    return [ctx.attempt, *done]


@agent("pages.thread")
def pages_in_a_thread(payload: int, ctx: Context) -> list[Any]:
    """The same in a thread; the first attempt ends in the middle."""
    done: list[Any] = ctx.restored or []
    while len(done) < payload:
        done.append(ctx.wait(ctx.blob.get(ctx.wait(ctx.blob.put(b"page")))).decode())
        ctx.output(done[-1])
        ctx.wait(ctx.checkpoint(done))
        if ctx.attempt == 1:
            raise TimeoutError("the light went out")
    return [ctx.attempt, *done]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An empty module, to which a test adds what a host finds there."""
    found = ModuleType("tests_hooks_in_memory")
    monkeypatch.setitem(sys.modules, found.__name__, found)
    return found


@virtual_time
async def test_the_next_attempt_goes_on_at_the_last_checkpoint():
    async with memory_board([pages]) as board:
        handle = await board.submit("pages", 4)
        await board.advance(2.5 * 3600)
        await board.lose_host()
        assert await handle.result() == [2, "page 0", "page 1", "page 2", "page 3"]
        assert board.output_of(handle.id) == ["page 0", "page 1", "page 2", "page 3"]
        stored = [event.event for event in board.events if event.kind == "checkpoint"]
        assert [each.number for each in stored] == [1, 2, 1, 2]  # type: ignore[union-attr]
        assert board.tasks[handle.id].used == {"pages": 2}  # type: ignore[union-attr]


@virtual_time
async def test_a_plain_function_waits_for_blobs_and_checkpoints():

    async with memory_board([pages_in_a_thread]) as board:
        handle = await board.submit("pages.thread", 2, retry=Retry(attempts=2, delay=3600))
        parts = [(chunk.attempt, chunk.number, chunk.value) async for chunk in handle.output()]
        assert await handle.result() == [2, "page", "page"]
        assert parts == [(1, 1, "page"), (2, 1, "page")]


@virtual_time
async def test_one_attempt_shows_what_it_gave_before_its_end():
    outcome = await run_agent(pages, 2, timeout=10_000)
    assert outcome.result == [1, "page 0", "page 1"]
    assert outcome.output == ["page 0", "page 1"]
    assert outcome.used == {"pages": 2}


def test_hosts_enter_lifespans_before_they_work_and_leave_them_in_reverse(module: ModuleType):
    said: list[str] = []

    @lifespan
    def model() -> Iterator[None]:
        said.append("model")
        yield
        said.append(f"no model: {threading.current_thread() is threading.main_thread()}")

    @lifespan
    async def link() -> AsyncIterator[None]:
        await asyncio.sleep(60)
        said.append("link")
        yield
        await asyncio.sleep(1)
        said.append("no link")

    @agent("work")
    async def work() -> None:
        said.append("work")

    module.model, module.link, module.work = model, link, work  # type: ignore[attr-defined]

    @virtual_time
    async def board() -> None:
        async with memory_board(module) as board:
            await (await board.submit("work")).result()

    board()
    assert said == ["model", "link", "work", "no link", "no model: False"]


def test_a_lifespan_that_fails_is_told_as_it_is(module: ModuleType):
    @lifespan
    def model() -> Iterator[None]:
        raise OSError("no such model")
        yield

    @agent("work")
    async def work() -> None: ...

    module.model, module.work = model, work  # type: ignore[attr-defined]

    @virtual_time
    async def board() -> None:
        async with memory_board(module):
            raise AssertionError

    with pytest.raises(StartFailed, match="model does not start: OSError: no such model"):
        board()


def test_middleware_is_around_attempts_and_posts(module: ModuleType):
    posted: list[str] = []

    class Named(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        async def attempt(self, call: Call, following: Next) -> Any:
            if call.payload["n"] == 13:
                raise GiveUp("not on this floor")
            call.context.settle(calls=1)
            return [self.name, await following(call)]

    class Traced(SubmitMiddleware):
        async def submit(self, submission: Submission, following: SubmitNext) -> Handle:
            posted.append(submission.capability)
            return await following(submission)

    @agent("quick")
    async def quick(payload: dict[str, int]) -> int:
        return payload["n"]

    @agent("plain", isolation="process")
    def plain(payload: dict[str, int]) -> int:
        return payload["n"]

    module.quick, module.plain = quick, plain  # type: ignore[attr-defined]
    module.middleware = [Named("inner")]  # type: ignore[attr-defined]

    @virtual_time
    async def board() -> None:
        async with memory_board(module, middleware=[Traced(), Named("outer")]) as board:
            for capability in ("quick", "plain"):
                handle = await board.submit(capability, {"n": 7})
                assert await handle.result() == ["outer", ["inner", 7]]
                assert board.tasks[handle.id].used == {"calls": 2}  # type: ignore[union-attr]
                handle = await board.submit(capability, {"n": 13})
                assert await handle.wait() == "failed"

    board()
    assert posted == ["quick", "quick", "plain", "plain"]


@virtual_time
async def test_a_command_and_what_no_child_could_have_are_refused():
    with pytest.raises(BadInput, match="sh: is a command, which needs a child process"):
        async with memory_board([command_agent("sh", ["sh", "-c", "true"])]):
            raise AssertionError
    with pytest.raises(BadInput, match="is no object of a middleware class"):
        async with memory_board([pages], middleware=[Middleware]):  # type: ignore[list-item]
            raise AssertionError


def test_an_async_lifespan_of_agents_in_children_is_refused_as_by_a_host(module: ModuleType):
    @lifespan
    async def link() -> AsyncIterator[None]:
        yield

    @agent("work", isolation="process")
    def work() -> None: ...

    module.link, module.work = link, work  # type: ignore[attr-defined]

    @virtual_time
    async def board() -> None:
        async with memory_board(module):
            raise AssertionError

    with pytest.raises(BadInput, match="no event loop before a fork"):
        board()
