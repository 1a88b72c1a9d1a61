"""The checkpointer on JetStream beside the one in memory, and what only it promises."""

from __future__ import annotations

import asyncio
import json
import operator
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec
import ormsgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import CheckpointTuple, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from callboard_broker.errors import TooLarge
from callboard_broker.server import EmbeddedServer, ServerOptions
from callboard_integrations.langgraph import JetStreamSaver, LeaseHeld, LeaseLost
from callboard_integrations.langgraph.packing import StoredWrites
from tests.clusters import open_cluster
from tests.servers import NatsServer

WRITER = Path(__file__).parent.parent / "langgraph_writer.py"


def folded(current: list[str] | None, writes: list[list[str]]) -> list[str]:
    return [*(current or []), *(word for write in writes for word in write)]


class Story(TypedDict, total=False):
    log: Annotated[list[str], DeltaChannel(folded, snapshot_frequency=4)]
    plain: Annotated[list[int], operator.add]
    n: int
    i: int


def rounds(saver: Any, *, count: int, width: int) -> Any:
    """A graph whose reducers see in which order the writes of parallel tasks are applied."""
    graph = StateGraph(Story)
    graph.add_node("tick", lambda state: {"n": state.get("n", 0) + 1})
    graph.add_node(
        "work", lambda state: {"log": [f"{state['n']}.{state['i']}"], "plain": [state["i"]]}
    )
    graph.add_node("join", lambda _state: {})

    def fan_out(state: Story) -> list[Send]:
        return [Send("work", {"n": state["n"], "i": i}) for i in range(width)]

    graph.add_edge(START, "tick")
    graph.add_conditional_edges("tick", fan_out, ["work"])
    graph.add_edge("work", "join")
    graph.add_conditional_edges(
        "join", lambda state: "tick" if state["n"] < count else END, ["tick", END]
    )
    return graph.compile(checkpointer=saver)


async def history(graph: Any, thread: str) -> list[Any]:
    config = {"configurable": {"thread_id": thread}}
    return [
        (state.metadata["step"], state.values, state.next, [task.name for task in state.tasks])
        async for state in graph.aget_state_history(config)
    ]


async def test_a_graph_leaves_the_same_history_as_with_the_saver_in_memory(nats: NatsServer):
    config = {"configurable": {"thread_id": "a thread"}, "recursion_limit": 100}
    seen = []
    async with JetStreamSaver.from_url(nats.url) as saver:
        for each in (InMemorySaver(), saver):
            graph = rounds(each, count=4, width=12)
            out = await graph.ainvoke({"log": ["start"]}, config, durability="sync")
            seen.append((out, await history(graph, "a thread")))
    assert len(seen[0][1]) == 14
    assert seen[1] == seen[0]


async def test_every_checkpoint_can_be_gone_back_to_and_forked(nats: NatsServer):
    results = []
    async with JetStreamSaver.from_url(nats.url) as saver:
        for each in (InMemorySaver(), saver):
            graph = rounds(each, count=3, width=3)
            config = {"configurable": {"thread_id": "t"}, "recursion_limit": 100}
            await graph.ainvoke({"log": ["start"]}, config, durability="sync")
            states = [state async for state in graph.aget_state_history(config)]
            outs = [await graph.ainvoke(None, state.config) for state in reversed(states[1:])]
            fork = await graph.aupdate_state(states[4].config, {"n": 1, "plain": [100]})
            outs.append(await graph.ainvoke(None, fork))
            results.append((outs, await history(graph, "t")))
    assert results[1] == results[0]


VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=3) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.tuples(inner),
    max_leaves=3,
)
CHANNELS = st.sampled_from(["a", "b.c", "ü *>", "__error__", "__interrupt__", "__resume__"])
CALLS = st.lists(
    st.tuples(
        st.lists(st.tuples(CHANNELS, VALUES), max_size=4),
        st.sampled_from(["t1", "t2", "t3"]),
        st.sampled_from(["", "~__pregel_pull, b", "~__pregel_push, 10", "~__pregel_push, 2"]),
    ),
    max_size=6,
)


def shown(found: CheckpointTuple | None) -> Any:
    assert found is not None
    return found.config, found.checkpoint, found.metadata, found.parent_config, found.pending_writes


def test_writes_come_back_as_from_the_saver_in_memory(
    nats: NatsServer, tell: Callable[[str], None]
):
    calls_made = 0
    with JetStreamSaver.from_url(nats.url) as saver:

        @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(
            calls=CALLS,
            ns=st.sampled_from(["", "child:1|x"]),
            values=st.dictionaries(CHANNELS, VALUES),
        )
        def check(calls: Any, ns: str, values: dict[str, Any]) -> None:
            nonlocal calls_made
            calls_made += 3 + len(calls)
            checkpoint = empty_checkpoint()
            versions: dict[str, Any] = dict.fromkeys(values, "1.5")
            versions["gone"] = "2.5"
            checkpoint["channel_versions"] = versions
            checkpoint["channel_values"] = values
            place: Any = {"configurable": {"thread_id": checkpoint["id"], "checkpoint_ns": ns}}
            got = []
            for each in (InMemorySaver(), saver):
                config = each.put(place, checkpoint, {"step": 1}, versions)
                for writes, task, path in calls:
                    each.put_writes(config, writes, task, path)
                got.append((shown(each.get_tuple(place)), [shown(one) for one in each.list(place)]))
            assert got[1] == got[0]

        check()
    tell(f"JetStreamSaver: {calls_made} calls gave what InMemorySaver gives")


async def test_a_graph_is_interrupted_and_goes_on_over_another_connection(nats: NatsServer):
    class Asked(TypedDict, total=False):
        answer: str

    graph = StateGraph(Asked)
    graph.add_node("ask", lambda _state: {"answer": interrupt("which one?")})
    graph.add_edge(START, "ask")
    config: Any = {"configurable": {"thread_id": "t"}}
    async with JetStreamSaver.from_url(nats.url) as saver:
        out = await graph.compile(checkpointer=saver).ainvoke({}, config)
        assert out["__interrupt__"][0].value == "which one?"
    async with JetStreamSaver.from_url(nats.url) as saver:
        out = await graph.compile(checkpointer=saver).ainvoke(Command(resume="this"), config)
    assert out == {"answer": "this"}


def test_a_program_without_a_loop_uses_the_same_graph(nats: NatsServer):
    before = threading.active_count()
    with JetStreamSaver.from_url(nats.url) as saver:
        graph = rounds(saver, count=5, width=3)
        config: Any = {"configurable": {"thread_id": "t"}, "recursion_limit": 50}
        out = graph.invoke({"log": ["start"]}, config, durability="sync")
        assert out["plain"] == [0, 1, 2] * 5
        assert next(graph.get_state_history(config)).values["n"] == 5
        saver.copy_thread("t", "u")
        saver.prune(["t"])
        assert graph.get_state(config).values == out
        other: Any = {"configurable": {"thread_id": "u"}}
        assert len(list(saver.list(other))) == 17
        assert len(list(saver.list(config))) == 6  # back to the delta channel's snapshot
        assert graph.get_state(other).values == out
        saver.delete_thread("u")
        assert saver.get_tuple(other) is None
    assert threading.active_count() <= before + 8  # LangGraph keeps its own pool


async def test_a_synchronous_method_on_the_loop_says_what_to_use(nats: NatsServer):
    async with JetStreamSaver.from_url(nats.url) as saver:
        with pytest.raises(RuntimeError, match="aget_tuple"):
            saver.get_tuple({"configurable": {"thread_id": "t"}})


async def test_large_values_are_cut_and_deleted_with_what_named_them(nats: NatsServer):
    async with JetStreamSaver.from_url(nats.url) as saver:
        text = "long " * 500_000
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        for version in ("1.1", "2.2"):
            checkpoint = empty_checkpoint()
            checkpoint["channel_versions"] = {"text": version}
            checkpoint["channel_values"] = {"text": text + version}
            config = await saver.aput(config, checkpoint, {}, {"text": version})
            await saver.aput_writes(config, [("out", text)], "task")
        found = await saver.aget_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"text": text + "2.2"}
        assert found.pending_writes == [("task", "out", text)]
        parts = await saver._table.keys("cb.ckpt.*.p.>")
        assert len(parts) == 30
        await saver.aprune(["t"])
        assert len(await saver._table.keys("cb.ckpt.*.p.>")) == 20
        assert await saver.aget_tuple(config) == found
        await saver.adelete_thread("t")
        assert not await saver._table.keys("cb.ckpt.>")
        with pytest.raises(TooLarge, match="at most 67,108,864"):
            await saver.aput_writes(config, [("out", bytes(70 * 1024 * 1024))], "task")


@dataclass
class Known:
    name: str


async def test_a_crafted_checkpoint_runs_no_code(nats: NatsServer, tmp_path: Path):
    mark = tmp_path / "mark"
    call = ormsgpack.packb(["os", "system", f"touch {mark}"])
    crafted = [
        ("msgpack", ormsgpack.packb(ormsgpack.Ext(0, call))),
        ("pickle", pickle.dumps(os.getcwd)),
    ]
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    async with JetStreamSaver.from_url(nats.url) as saver:
        at = await saver.aput(config, empty_checkpoint(), {}, {})
        subject = (await saver._table.keys("cb.ckpt.*.c.>"))[0].replace(".c.", ".w.") + ".dGFzaw.x"
        kind, data = crafted[0]
        row = msgspec.msgpack.encode(StoredWrites("task", "", [(0, "a", kind, data)]))
        await saver._table.write(subject, b"\x00" + row)
        found = await saver.aget_tuple(at)
        assert found is not None
        assert found.pending_writes is not None
        assert found.pending_writes[0][2] != 0
        row = msgspec.msgpack.encode(StoredWrites("task", "", [(0, "a", *crafted[1])]))
        await saver._table.write(subject, b"\x00" + row)
        with pytest.raises(NotImplementedError, match="pickle"):
            await saver.aget_tuple(at)
    assert not mark.exists()


async def test_a_type_of_the_state_comes_back_where_it_is_allowed_by_name(nats: NatsServer):
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    async with (
        JetStreamSaver.from_url(nats.url) as strict,
        JetStreamSaver.from_url(nats.url, allow=[Known]) as open_minded,
    ):
        at = await strict.aput(config, empty_checkpoint(), {}, {})
        await strict.aput_writes(at, [("a", Known("Ada"))], "task")
        for saver, value in ((strict, {"name": "Ada"}), (open_minded, Known("Ada"))):
            found = await saver.aget_tuple(at)
            assert found is not None
            assert found.pending_writes == [("task", "a", value)]


async def test_what_a_zombie_still_writes_is_refused_by_the_server(nats: NatsServer):
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    async with (
        JetStreamSaver.from_url(nats.url) as zombie,
        JetStreamSaver.from_url(nats.url) as heir,
    ):
        async with zombie.lease("t") as old:
            at = await zombie.aput(config, empty_checkpoint(), {}, {})
            with pytest.raises(LeaseHeld, match="take_over=True") as held:
                async with heir.lease("t"):
                    pass
            assert held.value.holder.endswith(f"/{os.getpid()}")
            async with heir.lease("t", take_over=True) as lease:
                await heir.aput_writes(at, [("a", 1)], "task")
                with pytest.raises(LeaseLost):
                    await zombie.aput_writes(at, [("a", 2)], "task")
                with pytest.raises(LeaseLost):
                    await zombie.aput(config, empty_checkpoint(), {}, {})
                assert (old.lost, lease.lost) == (True, False)
                await zombie.aput(
                    {"configurable": {"thread_id": "u", "checkpoint_ns": ""}},
                    empty_checkpoint(),
                    {},
                    {},
                )
        found = await heir.aget_tuple(config)
        assert found is not None
        assert found.pending_writes == [("task", "a", 1)]
        async with zombie.lease("t"):  # it was given back
            await zombie.aput_writes(at, [("a", 3)], "other")


def test_a_program_without_a_loop_holds_a_thread_and_is_fenced(nats: NatsServer):
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    with (
        JetStreamSaver.from_url(nats.url) as saver,
        JetStreamSaver.from_url(nats.url) as heir,
        saver.lease("t") as old,
    ):
        saver.put(config, empty_checkpoint(), {}, {})
        with pytest.raises(LeaseHeld, match="t"), heir.lease("t"):
            pytest.fail("two hold one thread")
        with heir.lease("t", take_over=True) as new:
            at = heir.put(config, empty_checkpoint(), {}, {})
            with pytest.raises(LeaseLost):
                saver.put_writes(at, [("a", 1)], "zombie")
            assert (old.lost, new.lost) == (True, False)
        found = heir.get_tuple(config)
        assert found is not None
        assert found.config == at
        assert not found.pending_writes
        with heir.lease("t"):
            heir.put_writes(at, [("a", 2)], "task")


async def test_a_holder_that_goes_does_not_end_the_lease_of_its_heir(nats: NatsServer):
    async with (
        JetStreamSaver.from_url(nats.url) as zombie,
        JetStreamSaver.from_url(nats.url) as heir,
    ):
        old = zombie.lease("t")
        await old.__aenter__()
        async with heir.lease("t", take_over=True):
            await old.__aexit__(None, None, None)  # it has not noticed
            with pytest.raises(LeaseHeld):
                async with zombie.lease("t"):
                    pass


async def test_a_lease_whose_holder_was_killed_ends_by_the_servers_clock(nats: NatsServer):
    process = subprocess.Popen(  # noqa: ASYNC220  nothing else is on the loop
        [sys.executable, str(WRITER), nats.url, "t", "2"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.stdout.close()
    process.wait()
    refused = 0
    async with JetStreamSaver.from_url(nats.url) as heir, asyncio.timeout(30):
        while True:
            try:
                async with heir.lease("t") as lease:
                    assert not lease.lost
                break
            except LeaseHeld:
                refused += 1
                await asyncio.sleep(0.1)  # the server tells nobody that a row has expired
    assert refused


async def test_a_deleted_thread_takes_no_more_writes_of_its_holder(nats: NatsServer):
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    async with JetStreamSaver.from_url(nats.url) as saver, saver.lease("t"):
        await saver.aput(config, empty_checkpoint(), {}, {})
        await saver.adelete_thread("t")
        with pytest.raises(LeaseLost):
            await saver.aput(config, empty_checkpoint(), {}, {})
        assert await saver.aget_tuple(config) is None


async def test_a_burst_on_a_server_that_syncs_is_stored_whole_and_in_order(tmp_path: Path):
    options = ServerOptions(store=tmp_path / "nats", sync="always")
    async with EmbeddedServer(options) as server, JetStreamSaver.from_url(server.url) as saver:
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        at = await saver.aput(config, empty_checkpoint(), {}, {})
        for _ in range(2):  # the second time nothing counts: the first call of a task does
            await asyncio.gather(
                *[saver.aput_writes(at, [("a", n)], f"task-{n:04}") for n in range(1500)]
            )
        found = await saver.aget_tuple(config)
        assert found is not None
        assert found.pending_writes == [(f"task-{n:04}", "a", n) for n in range(1500)]


async def test_on_a_cluster_a_leased_thread_is_read_as_it_was_written(tmp_path: Path):
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    with open_cluster(tmp_path) as cluster:
        url = cluster.server().url
        async with (
            JetStreamSaver.from_url(url, replicas=3) as saver,
            JetStreamSaver.from_url(url, replicas=3) as zombie,
        ):
            held = zombie.lease("t")
            await held.__aenter__()
            async with saver.lease("t", take_over=True):
                for number in range(5):
                    checkpoint = empty_checkpoint()
                    checkpoint["channel_versions"] = {"text": f"{number}.1"}
                    checkpoint["channel_values"] = {"text": "long " * 100_000 + str(number)}
                    at = await saver.aput(config, checkpoint, {}, {"text": f"{number}.1"})
                    await asyncio.gather(
                        *[saver.aput_writes(at, [("a", n)], f"task-{n:03}") for n in range(100)]
                    )
                    found = await saver.aget_tuple(config)
                    assert found is not None
                    assert found.checkpoint["channel_values"] == checkpoint["channel_values"]
                    assert found.pending_writes == [(f"task-{n:03}", "a", n) for n in range(100)]
                with pytest.raises(LeaseLost):
                    await zombie.aput_writes(at, [("a", 7)], "task")
            await held.__aexit__(None, None, None)


async def test_a_killed_writer_leaves_whole_writes_or_none(nats: NatsServer):
    """SIGKILL at 8 moments: of each call, all four channels are there or not one."""
    torn = calls = 0
    for number in range(8):
        process = subprocess.Popen(  # noqa: ASYNC220  nothing else is on the loop
            [sys.executable, str(WRITER), nats.url, f"thread-{number}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(3 + 7 * number):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        process.wait()
        process.stdout.close()
        async with JetStreamSaver.from_url(nats.url) as saver:
            found = await saver.aget_tuple({"configurable": {"thread_id": f"thread-{number}"}})
        assert found is not None
        by_task: dict[str, list[str]] = {}
        for task, channel, _ in found.pending_writes or []:
            by_task.setdefault(task, []).append(channel)
        torn += sum(channels != ["a", "b", "c", "d"] for channels in by_task.values())
        calls += len(by_task)
        said = [json.loads(line) for line in rest if line.endswith("]")]
        assert all(f"task-{done}" in by_task for (done,) in said), "an acknowledged write is gone"
    assert calls > 8
    assert torn == 0
