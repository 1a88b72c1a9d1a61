"""Lifespans and middleware on a host: in its loop, in its threads, and in its children."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from callboard import BadInput, Board, Handle, Submission, SubmitMiddleware, SubmitNext
from callboard_agents import Call, GiveUp, Middleware, Next, StartFailed, agent, lifespan, load
from callboard_broker import client
from callboard_broker.client import BoardOptions
from tests.hosts import open_stage
from tests.servers import NatsServer

HOOKED = str(Path(__file__).parent.parent / "hooked_agents.py")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What the agents of a test are defined in."""
    found = ModuleType("a_module_of_the_test")
    monkeypatch.setitem(sys.modules, found.__name__, found)
    return found


async def test_a_lifespan_lasts_from_before_the_first_attempt_until_after_the_last(
    nats: NatsServer, module: ModuleType
):
    told: list[str] = []
    released = asyncio.Event()

    @lifespan
    async def pool() -> AsyncIterator[None]:
        told.append("set up")
        yield
        told.append("taken down")

    async def work() -> list[str]:
        told.append("begun")
        await released.wait()
        told.append("done")
        return told

    work.__module__ = module.__name__
    module.pool = pool  # type: ignore[attr-defined]
    async with open_stage(nats, "work") as stage:
        async with stage.host([agent("work")(work)]):
            assert told == ["set up"]
            task = await stage.dispatch("work")
            await stage.held(task)
            asyncio.get_running_loop().call_later(0.1, released.set)  # while the host drains
        assert await stage.result(task) == ["set up", "begun", "done"]
        assert told == ["set up", "begun", "done", "taken down"]


async def test_a_start_that_fails_keeps_the_host_from_being_there(
    nats: NatsServer, module: ModuleType
):
    @lifespan
    def model() -> Iterator[None]:
        raise OSError("no such model")
        yield

    def work() -> None: ...

    work.__module__ = module.__name__
    module.model = model  # type: ignore[attr-defined]
    async with open_stage(nats, "work") as stage:
        with pytest.raises(ExceptionGroup) as found:
            async with stage.host([agent("work")(work)]):
                raise AssertionError
        assert found.group_contains(StartFailed, match="model does not start: OSError: no such")
        assert not stage.beats


async def test_middleware_is_around_coroutines_and_threads_with_their_context(
    nats: NatsServer, module: ModuleType
):
    @agent("quick")
    async def quick(n: int) -> int:
        return n

    @agent("slow")
    def slow(n: int) -> int:
        return n

    class Guard(Middleware):
        async def attempt(self, call: Call, following: Next) -> Any:
            if call.payload == 13:
                raise GiveUp("not on this floor")
            call.context.use(calls=1)
            return [await following(call), call.tenant, call.task, call.attempt]

    module.middleware = [Guard()]  # type: ignore[attr-defined]
    for each in (quick, slow):
        each.modules = (module.__name__,)
    async with open_stage(nats, "quick", "slow") as stage, stage.host([quick, slow]):
        for capability in ("quick", "slow"):
            task = await stage.dispatch(capability, 7)
            assert await stage.result(task) == [7, "acme", task.task, 1]
            assert (await stage.outcome(task)).used == {"calls": 1}
            refused = await stage.outcome(await stage.dispatch(capability, 13))
            assert refused.error is not None
            assert (refused.error.type, refused.error.final) == ("GiveUp", True)


async def test_lifespans_and_middleware_of_process_agents_run_where_children_are(
    nats: NatsServer,
):
    names = ["hooked.child", "hooked.async", "hooked.thread", "hooked.class"]
    async with open_stage(nats, *names) as stage:
        async with stage.host(load([HOOKED]), places=[HOOKED]):
            found = {}
            for name in names:
                task = await stage.dispatch(name, {"n": 1})
                found[name] = await stage.result(task)
                assert found[name]["n"] == 2
                assert (found[name]["attempt"], found[name]["task"]) == (1, task.task)
        for name in ("hooked.child", "hooked.async"):
            child = found[name]
            assert child["chain"] == child["pid"] != os.getpid(), "the chain is in the child"
            assert child["loaded"] == 1
            assert child["set_up_in"] not in (child["pid"], os.getpid()), "once for all children"
        assert found["hooked.async"]["tenant"] == "acme"
        assert found["hooked.thread"]["pid"] == os.getpid(), "once more, for the host itself"
        assert found["hooked.thread"]["loaded"] == 1
        assert found["hooked.class"]["entered"] == 1


async def test_a_lifespan_that_fails_before_the_fork_names_itself(nats: NatsServer, tmp_path: Path):
    path = tmp_path / "mine.py"
    shutil.copy(HOOKED, path)
    path.with_suffix(".broken").touch()
    agents = [one for one in load([str(path)]) if one.capability == "hooked.child"]
    async with open_stage(nats, "hooked.child") as stage:
        with pytest.raises(ExceptionGroup) as found:
            async with stage.host(agents, places=[str(path)]):
                raise AssertionError
        assert found.group_contains(StartFailed, match=r"mine\.model does not start: OSError: no")


async def test_the_middleware_of_a_host_comes_first_also_in_its_children(
    nats: NatsServer, tmp_path: Path
):
    chain = tmp_path / "chain.py"
    chain.write_text(
        "from callboard import Middleware\n"
        "class Outer(Middleware):\n"
        "    async def attempt(self, call, following):\n"
        "        assert call.payload == {'n': 1}, 'before the chain of the module'\n"
        "        return {'outer': await following(call)}\n"
        "outer = Outer()\n"
    )
    agents = [one for one in load([HOOKED]) if one.capability in ("hooked.child", "hooked.thread")]
    async with (
        open_stage(nats, "hooked.child", "hooked.thread") as stage,
        stage.host(agents, places=[HOOKED], middleware=(f"{chain}:outer",)),
    ):
        for capability in ("hooked.child", "hooked.thread"):
            result = await stage.result(await stage.dispatch(capability, {"n": 1}))
            assert result["outer"]["n"] == 2


async def test_middleware_around_submit_changes_refuses_and_sees_the_handle(nats: NatsServer):
    seen: list[str] = []

    class Traced(SubmitMiddleware):
        async def submit(self, submission: Submission, following: SubmitNext) -> Handle:
            assert submission.tenant == "default"
            traced = replace(
                submission, tenant="acme", payload={**submission.payload, "trace": "abc"}
            )
            handle = await following(traced)
            seen.append(handle.id)
            return handle

    class Careful(SubmitMiddleware):
        async def submit(self, submission: Submission, following: SubmitNext) -> Handle:
            assert submission.tenant == "acme", "it is the inner one"
            if submission.capability == "drop.table":
                raise BadInput("capability", "nobody drops tables here")
            return await following(submission)

    chain = (Traced(), Careful())
    options = BoardOptions(prefix=nats.prefix, middleware=chain)
    async with open_stage(nats) as stage, client.connect(nats.url, options) as board:
        handle = await board.submit("echo", {"n": 1}, key="k", priority=7, units={"tokens": 3})
        assert seen == [handle.id]
        assert handle.tenant == "acme"
        seq, post = await stage.posted(1)
        assert str(seq) == handle.id
        assert bytes(post.payload) == b'{"n":1,"trace":"abc"}'
        assert (post.key, post.priority, post.units) == ("k", 7, {"tokens": 3})
        with pytest.raises(BadInput, match="nobody drops tables"):
            await board.submit("drop.table", {})
    with pytest.raises(BadInput, match="is no SubmitMiddleware object"):
        async with client.connect(nats.url, BoardOptions(middleware=(Traced,))):  # type: ignore[arg-type]
            raise AssertionError
    assert Board is client.Board
