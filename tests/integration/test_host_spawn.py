"""Tasks that a handler spawns: whose they are, their results, and a second attempt's children."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from callboard_agents import Child, Context, agent
from callboard_broker.errors import BadInput, TaskFailed
from tests.hosts import SECRET, open_stage
from tests.servers import NatsServer


@agent("echo")
async def echo(value: Any) -> Any:
    return value


@agent("plan")
async def plan(parts: list[str], ctx: Context) -> list[Any]:
    children = [await ctx.spawn("echo", part) for part in parts]
    return [await child.result() for child in children]


@agent("plan.plain")
def plan_plain(part: str, ctx: Context) -> dict[str, Any]:
    child = ctx.wait(ctx.spawn("echo", part, priority=7, timeout=9, budgets=["llm"]))
    return {"id": child.id, "result": ctx.wait(child.result())}


async def test_a_spawned_task_names_its_parent_and_its_result_comes_back(nats: NatsServer):
    async with open_stage(nats, "plan", "echo") as stage, stage.host([plan, echo]):
        parent = await stage.dispatch("plan", ["a", "b"], attempt=3)
        for number, part in enumerate("ab", start=1):
            seq, post = await stage.posted(number)
            assert post.parent is not None
            assert (post.parent.task, post.parent.attempt) == (parent.task, 3)
            assert post.parent.secret == SECRET
            assert post.key == f"{parent.task}/{number - 1}"
            await stage.dispatch("echo", part, task=str(seq), shard=post.shard)
        assert await stage.result(parent) == ["a", "b"]


async def test_a_plain_function_spawns_and_waits_in_its_thread(nats: NatsServer):
    async with open_stage(nats, "plan.plain", "echo") as stage, stage.host([plan_plain, echo]):
        parent = await stage.dispatch("plan.plain", "a")
        seq, post = await stage.posted(1)
        assert (post.priority, post.timeout, post.budgets) == (7, 9, ["llm"])
        await stage.dispatch("echo", "a", task=str(seq), shard=post.shard)
        assert await stage.result(parent) == {"id": str(seq), "result": "a"}


async def test_a_second_attempt_finds_the_child_of_the_first(nats: NatsServer):
    async with open_stage(nats, "plan", "echo") as stage, stage.host([plan, echo]):
        parent = await stage.dispatch("plan", ["a"])
        first = await stage.posted(1)
        again = await stage.dispatch("plan", ["a"], task=parent.task, attempt=2)
        second = await stage.posted(2)
        assert second[1].key == first[1].key
        assert second[1].parent is not None
        assert second[1].parent.attempt == 2
        stage.known[str(first[0])] = {
            "state": "succeeded",
            "shard": second[1].shard,
            "result": "the first one's",
        }
        await stage.merge(second, first[0])
        assert await stage.result(again) == ["the first one's"]
        stage.stop(parent)


async def test_a_child_that_failed_in_an_earlier_attempt_gets_another_chance(nats: NatsServer):
    async with open_stage(nats, "plan", "echo") as stage, stage.host([plan, echo]):
        failed = {"state": "failed", "error": {"type": "KeyError", "message": "no"}}
        parent = await stage.dispatch("plan", ["a"], attempt=2)
        repeat = await stage.posted(1)
        stage.known["900"] = {"shard": repeat[1].shard, **failed}
        await stage.merge(repeat, 900)
        seq, post = await stage.posted(2)
        assert post.key == f"{parent.task}/0/again/1"
        await stage.dispatch("echo", "better", task=str(seq), shard=post.shard)
        assert await stage.result(parent) == ["better"]


async def test_a_failed_child_is_the_parents_to_handle(nats: NatsServer):
    seen: list[Child] = []

    @agent("careful")
    async def careful(ctx: Context) -> str:
        child = await ctx.spawn("echo", key="the only one")
        seen.append(child)
        try:
            await child.result()
        except TaskFailed as error:
            return str(error)
        return "no error"

    async with open_stage(nats, "careful") as stage, stage.host([careful]):
        parent = await stage.dispatch("careful")
        seq, post = await stage.posted(1)
        assert post.key == f"{parent.task}/key/the only one"
        assert post.shard is not None
        settled = msgspec.json.encode(
            {
                "kind": "settled",
                "task": str(seq),
                "epoch": 1,
                "state": "failed",
                "error": {"type": "Fenced", "message": "not the current attempt"},
            }
        )
        await stage.publisher.put(stage.subjects.run("acme", "settled", post.shard), settled)
        assert "Fenced" in await stage.result(parent)
        assert (seen[0].id, seen[0].state) == (str(seq), "failed")


async def test_what_cannot_be_spawned_is_refused_by_name(nats: NatsServer):
    @agent("wrong")
    async def wrong(ctx: Context) -> list[str]:
        refused = []
        for capability, options in (("No Such", {}), ("echo", {"delay": -1}), ("echo", {"x": 1})):
            try:
                await ctx.spawn(capability, None, **options)  # type: ignore[arg-type]  # the point
            except BadInput as error:
                refused.append(error.field)
        return refused

    async with open_stage(nats, "wrong") as stage, stage.host([wrong]):
        fields = await stage.result(await stage.dispatch("wrong"))
        assert fields == ["capability", "delay", "x"]
        assert stage.posts == []


async def test_a_cancelled_parent_no_longer_waits_for_its_child(nats: NatsServer):
    async with open_stage(nats, "plan", "plan.plain") as stage, stage.host([plan, plan_plain]):
        parents = [await stage.dispatch("plan", ["a"]), await stage.dispatch("plan.plain", "a")]
        await stage.posted(2)
        async with asyncio.timeout(5):
            stage.stop(*parents)
            for parent in parents:
                error = (await stage.outcome(parent)).error
                assert error is not None
                assert error.type == "Cancelled"
