"""Attempts in child processes, where the child or its zygote does what they rarely do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from callboard_agents import HostOptions, agent
from callboard_agents.attempts import Life
from callboard_agents.cell_plans import cell_plans
from callboard_agents.child_limits import ChildLimits
from callboard_agents.child_side import ChildSide
from callboard_agents.facts import Attempt
from callboard_agents.kept_nursery import KeptNursery, keep_nursery
from callboard_agents.lane import Lane
from callboard_agents.policy import Demand, Policy
from callboard_agents.processes import Processes
from callboard_agents.resources import Resources
from callboard_agents.run import Run
from callboard_agents.sandbox import CellPlan, Ending, Usage
from callboard_agents.spawn import Spawn
from callboard_agents.spawning import Child
from callboard_broker.errors import BadInput
from callboard_broker.posts import Parent
from callboard_broker.wire import Dispatch, Failure
from tests.nurseries import ScriptedChild, ScriptedNursery, Zygotes

URL = "nats://nowhere"
PLANS = [CellPlan(capability="echo")]


@agent("echo", isolation="process", slots=2, memory_mb=50)
def echo(value: Any) -> Any:
    return value


@agent("plain")
async def plain(value: Any) -> Any:
    return value


class Desk:
    """What the executor tells, and the runs that it is given."""

    def __init__(self) -> None:
        self.begun_runs: list[bool] = []
        self.ends: asyncio.Queue[tuple[Run, bytes | None, Failure | None]] = asyncio.Queue()
        self.told: list[tuple[str, bytes]] = []
        self.asked: list[tuple[str, bytes]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.processes: Processes
        options = HostOptions(url=URL)
        claim = Resources(changed=lambda: None).claim(echo)
        self.lane = Lane(echo, options, claim, lambda: True)

    def begun(self, run: Run, *, waited: bool = False) -> None:
        assert run.side is not None
        self.begun_runs.append(waited)

    def ended(self, run: Run, data: bytes | None, failure: Failure | None) -> None:
        self.ends.put_nowait((run, data, failure))

    def start(self, payload: bytes = b"1", *, tenant: str = "acme") -> Run:
        dispatch = Dispatch("1", 1, "s" * 16, 1, 3, 10**15, 20.0)
        run = Run(self.lane, dispatch, tenant, Life("one"))
        self.processes.start(run, payload)
        return run

    def side_of(self, run: Run) -> ChildSide:
        parent = Parent(run.dispatch.task, run.dispatch.attempt, run.dispatch.secret)
        attempt = Attempt.of(run.dispatch, run.tenant, "cb")
        return ChildSide(
            parent,
            attempt,
            tell=lambda kind, value: self.told.append((kind, value)),
            ask=self.ask,
            spawn=self.spawn,
            most_bytes=1000,
        )

    async def ask(self, kind: str, data: bytes) -> bytes:
        self.asked.append((kind, data))
        await self.may_answer.wait()
        return b'"done"'

    async def spawn(self, spawn: Spawn) -> Child:
        raise BadInput("capability", f"nobody posts {spawn.capability} for {spawn.parent.task}")

    def stop(self, run: Run, why: Any) -> None:
        run.stop = why
        self.processes.stop(run)
        if run.task is not None:
            run.task.cancel()

    async def end(self) -> tuple[bytes | None, Failure | None]:
        async with asyncio.timeout(5):
            _, data, failure = await self.ends.get()
        return data, failure


@asynccontextmanager
async def desk(
    policy: Policy | None = None,
) -> AsyncIterator[tuple[Desk, ScriptedNursery, KeptNursery]]:
    made = Desk()
    async with asyncio.TaskGroup() as group:
        nursery = ScriptedNursery()
        kept = KeptNursery({"landlock": "this kernel has none"})
        kept.opened(nursery)
        made.processes = Processes(made, group, kept, policy or Policy(), made.side_of)
        yield made, nursery, kept


def run_test(test: Callable[[], Any]) -> None:
    asyncio.run(test())


async def failed(made: Desk) -> Failure:
    _, failure = await made.end()
    assert failure is not None
    return failure


def test_a_result_comes_with_what_its_child_used():
    async def test() -> None:
        async with desk() as (made, nursery, _):
            child = nursery.put(ScriptedChild())
            run = made.start(b'{"n":1}')
            assert child.header is not None
            assert (child.header.capability, child.payload) == ("echo", b'{"n":1}')
            child.end(Ending(result=b"[1]", usage=Usage(cpu_s=0.5), layers=("seccomp",)))
            assert await made.end() == (b"[1]", None)
            assert run.layers == ("seccomp",)
            assert run.usage is not None
            assert run.usage.cpu_s == 0.5
            assert made.begun_runs == [False]

    run_test(test)


@pytest.mark.parametrize("result", [b"", b"{", b"nul", b'"\xff"', b"[" * 100 + b"]" * 100, b"1 2"])
def test_a_result_that_is_no_json_is_the_childs_failure(result: bytes):
    async def test() -> None:
        async with desk() as (made, nursery, _):
            child = nursery.put(ScriptedChild())
            made.start()
            child.end(Ending(result=result))
            assert (await failed(made)).type == "BadResult"

    run_test(test)


def test_a_long_result_is_checked_as_well():
    async def test() -> None:
        async with desk() as (made, nursery, _):
            good = b'"' + b"x" * 2_000_000 + b'"'
            for result in (good, good[1:]):
                child = nursery.put(ScriptedChild())
                made.start()
                child.end(Ending(result=result))
            ends = [await made.end(), await made.end()]
            assert (good, None) in ends
            assert sum(failure is not None for _, failure in ends) == 1

    run_test(test)


def test_a_failure_is_bounded_whatever_the_child_says():
    async def test() -> None:
        async with desk() as (made, nursery, _):
            child = nursery.put(ScriptedChild())
            made.start()
            said = Failure("T" * 999, "m" * 99_999, trace="t" * 99_999, retry_after=float("inf"))
            child.end(Ending(failure=said))
            failure = await failed(made)
            assert len(failure.type) == 100
            assert len(failure.message) == 2_000
            assert failure.retry_after is None
            assert len(msgspec.json.encode(failure)) < 8_000

    run_test(test)


@pytest.mark.parametrize(
    ("kind", "data"),
    [("progress", b"{"), ("used", b'{"tokens":"many"}'), ("progress", b'"' + b"x" * 70_000 + b'"')],
)
def test_a_child_that_speaks_no_protocol_is_killed(kind: str, data: bytes):
    async def test() -> None:
        async with desk() as (made, nursery, _):
            child = nursery.put(ScriptedChild())
            made.start()
            assert child.heard is not None
            child.heard.told(kind, data)
            assert child.killed
            failure = await failed(made)
            assert failure.type == "Crashed"
            assert kind in failure.message

    run_test(test)


def test_a_child_is_heard_and_its_questions_are_answered():
    async def test() -> None:
        async with desk() as (made, nursery, _):
            child = nursery.put(ScriptedChild())
            run = made.start()
            assert child.heard is not None
            child.heard.told("progress", b"0.5")
            child.heard.told("used", b'{"tokens":7}')
            child.heard.asked(1, "telephone", b"{}")
            await child.answered.wait()
            assert made.told == [("progress", b"0.5")]
            assert run.side is not None
            assert run.side.used == {"tokens": 7}
            answer = child.answers[1]
            assert isinstance(answer, Failure)
            assert answer.type == "BadInput"
            child.end(Ending(result=b"1"))

    run_test(test)


def test_what_a_child_stores_and_reads_is_checked_before_the_host_does_it():
    async def test() -> None:
        async with desk() as (made, nursery, _):
            child = nursery.put(ScriptedChild())
            run = made.start()
            assert child.heard is not None
            assert run.side is not None
            child.heard.told("output", b'"part"')
            assert made.told == [("output", b'"part"')]
            ref = b'{"name":"n","size":%d,"digest":"%s"}'
            good, large = ref % (1000, b"0" * 64), ref % (1001, b"0" * 64)
            wanted = [
                ("checkpoint", b'{"done":1}', ""),
                ("checkpoint", b"{", "checkpoint"),
                ("checkpoint", b'"\xff"', "checkpoint"),
                ("checkpoint", b"[" * 100 + b"]" * 100, "nested deeper"),
                ("checkpoint", b'"%s"' % (b"x" * (17 << 20)), "bytes; at most"),
                ("blob_put", b"\x00\xff anything", ""),
                ("blob_get", good, ""),
                ("blob_get", large, "1,001 bytes; 1,000 are granted"),
                ("blob_get", b"{}", "missing required field"),
            ]
            for number, (kind, data, _why) in enumerate(wanted):
                child.answered.clear()
                child.heard.asked(number, kind, data)
                await child.answered.wait()
            for number, (_kind, _data, why) in enumerate(wanted):
                answer = child.answers[number]
                if isinstance(answer, Failure):
                    assert why, answer
                    assert why in answer.line
                else:
                    assert (answer, why) == (b'"done"', "")
            assert [data for kind, data in made.asked] == [w[1] for w in wanted if not w[2]]
            assert run.side.heard_at > 0
            child.end(Ending(result=b"1"))

    run_test(test)


def test_a_child_cannot_fill_its_host_with_what_it_asks():
    async def test() -> None:
        async with desk() as (made, nursery, _):
            child = nursery.put(ScriptedChild())
            made.start()
            assert child.heard is not None
            made.may_answer.clear()
            for number in range(5):
                child.heard.asked(number, "blob_put", bytes(20 << 20))
            answer = child.answers.get(4)
            assert isinstance(answer, Failure)
            assert answer.type == "Busy"
            await asyncio.sleep(0)
            assert len(made.asked) == 1, "large ones are done one after the other"
            made.may_answer.set()
            while len(child.answers) < 5:
                child.answered.clear()
                await child.answered.wait()
            child.end(Ending(result=b"1"))

    run_test(test)


def test_no_child_has_more_than_a_few_questions_open():
    async def test() -> None:
        async with desk() as (made, nursery, _):
            child = nursery.put(ScriptedChild())
            made.start()
            assert child.heard is not None
            for number in range(100):
                child.heard.asked(number, "telephone", b"{}")
            refused = [one for one in child.answers.values() if isinstance(one, Failure)]
            assert [one.type for one in refused] == ["Busy"] * 36
            child.end(Ending(result=b"1"))

    run_test(test)


def test_whoever_finds_no_child_waits_for_one_and_its_time_counts_from_then():
    async def test() -> None:
        async with desk() as (made, nursery, _):
            made.start()
            await nursery.asked.wait()
            assert made.begun_runs == []
            child = nursery.put(ScriptedChild())
            async with asyncio.timeout(5):
                await child.started.wait()
            assert made.begun_runs == [True]
            child.end(Ending(result=b"1"))
            assert await made.end() == (b"1", None)

    run_test(test)


def test_a_run_that_is_stopped_while_it_waits_ends_without_a_child():
    async def test() -> None:
        async with desk() as (made, nursery, _):
            run = made.start()
            await nursery.asked.wait()
            made.stop(run, "cancel")
            assert await made.end() == (None, None)
            assert nursery.put(ScriptedChild()).header is None

    run_test(test)


def test_a_cancelled_child_is_asked_first_and_one_without_a_lease_is_killed():
    async def test() -> None:
        async with desk() as (made, nursery, _):
            asked, killed = nursery.put(ScriptedChild()), nursery.put(ScriptedChild())
            first, second = made.start(), made.start()
            made.stop(first, "timeout")
            made.stop(second, "lease")
            assert (asked.cancelled, asked.killed) == (True, False)
            assert killed.killed
            await made.end()
            assert made.processes.kill(first)
            assert asked.killed
            await made.end()
            assert not made.processes.kill(first)

    run_test(test)


def test_a_child_is_taken_for_its_tenant_unless_that_wants_each_task_alone():
    async def test() -> None:
        strict = Demand(process=True, require=frozenset({"fresh"}))
        async with desk(Policy(tenants={"acme": strict})) as (made, nursery, _):
            for tenant in ("acme", "other"):
                child = nursery.put(ScriptedChild())
                made.start(tenant=tenant)
                child.end(Ending(result=b"1"))
                await made.end()
            waited = made.start(tenant="other")
            await nursery.asked.wait()
            child = nursery.put(ScriptedChild())
            await child.started.wait()
            child.end(Ending(result=b"1"))
            await made.end()
            assert waited.tenant == "other"
            assert nursery.tenants == [None, "other", "other", "other"]

    run_test(test)


def test_a_task_whose_tenant_requires_more_than_there_is_runs_nowhere():
    async def test() -> None:
        strict = Demand(process=True, require=frozenset({"seccomp", "landlock"}))
        policy = Policy(tenants={"acme": strict})
        async with desk(policy) as (made, nursery, _):
            child = nursery.put(ScriptedChild())
            made.start()
            failure = await failed(made)
            assert failure.type == "IsolationMissing"
            assert "landlock: this kernel has none" in failure.message
            assert "seccomp" not in failure.message
            assert not failure.final
            assert child.header is None
            made.start(tenant="other")
            assert child.header is not None
            child.end(Ending(result=b"1"))

    run_test(test)


def test_a_dead_zygote_is_followed_by_another_and_whoever_waits_goes_on():
    async def test() -> None:
        zygotes = Zygotes()
        async with keep_nursery(["m"], PLANS, frozenset(), opens=zygotes) as kept:
            waiting = asyncio.ensure_future(kept.wait("echo"))
            await zygotes.opened[0].asked.wait()
            zygotes.changed.clear()
            zygotes.broken = 1
            zygotes.opened[0].die()
            assert kept.take("echo") is None
            assert not kept.open
            async with asyncio.timeout(5):
                await zygotes.changed.wait()
                child = zygotes.opened[1].put(ScriptedChild())
                assert await waiting is child

    run_test(test)


def test_a_zygote_that_does_not_start_at_all_is_an_error_of_the_host():
    async def test() -> None:
        with pytest.raises(BlockingIOError):
            async with keep_nursery(["m"], PLANS, frozenset(), opens=Zygotes(broken=1)):
                raise AssertionError("there is none")

    run_test(test)


def test_agents_get_children_as_they_declare_and_as_tenants_demand():
    limits = ChildLimits(spares=3, slots=9, disk_mb=5)
    policy = Policy(read=("/usr",), tenants={"acme": Demand(process=True)})
    declared = cell_plans([echo, plain], HostOptions(url=URL, limits=limits))
    assert [(plan.capability, plan.slots, plan.spares) for plan in declared] == [("echo", 2, 2)]
    assert (declared[0].grant.memory_mb, declared[0].grant.disk_mb) == (50, 5)
    demanded = cell_plans([echo, plain], HostOptions(url=URL, limits=limits, policy=policy))
    assert [(plan.capability, plan.slots, plan.spares) for plan in demanded] == [
        ("echo", 2, 2),
        ("plain", 9, 1),
    ]
    assert demanded[1].read == ("/usr",)
