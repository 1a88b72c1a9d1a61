"""Graphs whose nodes are agents, and agents that are graphs, on a whole real board."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.errors import NodeTimeoutError
from langgraph.func import entrypoint
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy, Send, TimeoutPolicy

from callboard import connect
from callboard.testing import Processes, live_board
from callboard_broker.client import Board
from callboard_broker.errors import BadInput, TaskCancelled, TaskFailed
from callboard_broker.handle import Handle
from callboard_integrations.langgraph import (
    DurabilityRefused,
    JetStreamSaver,
    agent_node,
    agent_task,
    durable,
    is_retryable,
)
from tests.servers import NatsServer

TESTS = Path(__file__).parent.parent
AGENTS, GRAPHS = TESTS / "langgraph_agents.py", TESTS / "langgraph_graphs.py"


class Table:
    """What handlers have written, and the doors they wait at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def lines(self) -> Counter[str]:
        table = self.folder / "table"
        return Counter(table.read_text().splitlines()) if table.exists() else Counter()

    def open(self, *doors: str) -> None:
        for door in doors:
            (self.folder / door).touch()

    async def shows(self, holds: Callable[[Counter[str]], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds(self.lines):  # noqa: ASYNC110  a file tells nobody that it has grown
                await asyncio.sleep(0.02)


@asynccontextmanager
async def board_of(folder: Path, **settings: str) -> AsyncIterator[tuple[Board, Table]]:
    environment = {
        "LANGGRAPH_FOLDER": str(folder),
        "PYTHONPATH": str(TESTS.parent),
        **{f"CALLBOARD_{name}": value for name, value in settings.items()},
    }
    async with live_board([str(AGENTS), str(GRAPHS)], environment=environment) as board:
        yield board, Table(folder)


class State(TypedDict, total=False):
    value: int
    name: str
    door: str
    result: Any
    results: Annotated[list[int], lambda old, new: sorted((old or []) + (new or []))]


def one_node(node: Any, **options: Any) -> StateGraph[Any, Any, Any, Any]:
    graph = StateGraph(State)
    graph.add_node("work", node, **options)
    graph.add_edge(START, "work")
    return graph


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


async def test_nodes_send_and_functional_tasks_run_on_agents(tmp_path: Path):
    async with board_of(tmp_path) as (board, _table):
        node = agent_node("double", board=board, reads="value", writes="result")
        graph = one_node(node).compile()
        told = []
        async for mode, part in graph.astream({"value": 4}, stream_mode=["custom", "values"]):
            told.append((mode, part))
        assert told[-1] == ("values", {"value": 4, "result": 8, "results": []})
        customs = [part for mode, part in told if mode == "custom"]
        assert [part["progress"] for part in customs] == [{"half": 4}]
        assert customs[0]["capability"] == "double"

        async def many(value: int) -> State:
            return {"results": [await node.run(value)]}

        graph = StateGraph(State)
        graph.add_node("many", many)
        graph.add_conditional_edges(
            START, lambda _state: [Send("many", value) for value in range(40)], ["many"]
        )
        out = await graph.compile().ainvoke({})
        assert out["results"] == [2 * value for value in range(40)]

        remote = agent_task("double", board=lambda: board)

        @entrypoint()
        async def program(values: list[int]) -> list[int]:
            return await asyncio.gather(*[remote(value) for value in values])

        assert await program.ainvoke([1, 2, 3]) == [2, 4, 6]


async def test_a_failed_node_is_tried_again_by_either_side_and_resumed_by_neither_twice(
    tmp_path: Path,
):
    async with (
        board_of(tmp_path) as (board, table),
        JetStreamSaver.from_url(board_url(board)) as saver,
    ):
        node = agent_node("fails", board=board, writes="result")
        policy = RetryPolicy(max_attempts=3, initial_interval=0.01, retry_on=is_retryable)
        graph = one_node(node, retry_policy=policy).compile(checkpointer=saver)
        given: Any = {"name": "a", "door": "open"}
        with pytest.raises(TaskFailed, match="KeyError"):
            await graph.ainvoke(given, thread("t"), durability="sync")
        assert table.lines == {"fails a": 3}
        table.open("open")
        out = await durable(graph).ainvoke(None, thread("t"))
        assert out["result"] == "recovered"
        assert table.lines == {"fails a": 4}, "a failed outcome was joined, or more than one posted"

        again = agent_node("fails", board=board, writes="result", retry={"attempts": 2, "delay": 0})
        with pytest.raises(TaskFailed):
            await one_node(again).compile().ainvoke({"name": "b", "door": "closed"})
        assert table.lines["fails b"] == 2


def board_url(board: Board) -> str:
    return board.connection.url


async def cancelled_at_the_first_word(board: Board, graph: Any) -> None:
    given = {"name": "b", "door": "closed"}
    async for part in graph.astream(given, stream_mode="custom"):
        await board.cancel(part["task"], "not wanted")


async def test_cancellation_goes_both_ways_and_timeouts_hear_heartbeats(tmp_path: Path):
    async with board_of(tmp_path) as (board, table):
        node = agent_node("door", board=board, writes="result")
        running = asyncio.ensure_future(
            one_node(node).compile().ainvoke({"name": "a", "door": "closed"})
        )
        await table.shows(lambda lines: lines["door a begins"] == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await table.shows(lambda lines: lines["door a cancelled"] == 1)

        cancelled = cancelled_at_the_first_word(board, one_node(node).compile())
        with pytest.raises(TaskCancelled, match="not wanted"):
            await cancelled
        await table.shows(lambda lines: lines["door b cancelled"] == 1)

        idle = TimeoutPolicy(idle_timeout=2, refresh_on="heartbeat")
        with pytest.raises(NodeTimeoutError):
            await one_node(node, timeout=idle).compile().ainvoke({"name": "c", "door": "silence"})
        await table.shows(lambda lines: lines["door c cancelled"] == 1)

        beats = agent_node("beating", board=board, reads="value", writes="result")
        out = await one_node(beats, timeout=idle).compile().ainvoke({"value": 4})
        assert out["result"] == "done"


async def test_durability_is_refused_with_the_reason_or_corrected(tmp_path: Path):
    async with (
        board_of(tmp_path) as (board, table),
        JetStreamSaver.from_url(board_url(board)) as saver,
    ):
        node = agent_node("double", board=board, reads="value", writes="result")
        graph = one_node(node).compile(checkpointer=saver)
        for durability in (None, "async", "exit"):
            with pytest.raises(DurabilityRefused, match="all of them would run twice"):
                await graph.ainvoke({"value": 1}, thread(str(durability)), durability=durability)
        assert not table.lines
        assert (await durable(graph).ainvoke({"value": 1}, thread("t")))["result"] == 2
        with pytest.raises(BadInput, match="has none"):
            await one_node(agent_node("double", reads="value")).compile().ainvoke({"value": 1})


async def test_a_remote_graph_asks_a_person_through_the_local_one(tmp_path: Path):
    async with (
        board_of(tmp_path) as (board, table),
        JetStreamSaver.from_url(board_url(board)) as saver,
    ):

        class Outer(TypedDict, total=False):
            topic: str
            outline: str
            approved: str

        graph = StateGraph(Outer)
        graph.add_node("write", agent_node("docs.ask", board=board))
        graph.add_edge(START, "write")
        local = durable(graph.compile(checkpointer=saver))
        told = []
        async for mode, part in local.astream(
            {"topic": "cats"}, thread("t"), stream_mode=["custom", "updates"]
        ):
            told.append((mode, part))
        assert ("custom", {"outlined": "cats"}) in [
            (mode, part["progress"]) for mode, part in told if mode == "custom"
        ]
        (question,) = told[-1][1]["__interrupt__"]
        assert question.value == {"approve": "outline of cats"}
        out = await local.ainvoke(Command(resume="yes"), thread("t"))
        assert out == {"topic": "cats", "outline": "outline of cats", "approved": "yes"}
        assert table.lines == {"outline": 1}

        foreign = {"__resume__": {"x": 1}, "thread": "somebody-else/7"}
        handle = await board.submit("docs.ask", foreign)
        with pytest.raises(TaskFailed, match="of another tenant"):
            await handle.result(timeout=20)


async def test_a_graph_agent_in_a_graph_agent_asks_and_runs_no_finished_node_again(
    tmp_path: Path,
):
    async with board_of(tmp_path) as (board, table):
        asked = await board.submit("docs.nested", {"topic": "cats"})
        found = await asked.result(timeout=20)
        (question,) = found["__interrupt__"]
        assert question["value"] == {"approve": "outline of cats"}
        answer = {"__resume__": {question["id"]: "yes"}, "thread": found["thread"]}
        answered = await board.submit("docs.nested", answer)
        result = await answered.result(timeout=20)
        assert (result["outline"], result["approved"]) == ("outline of cats", "yes")
        assert table.lines == {"outline": 1}


async def threads_of(saver: JetStreamSaver, *handles: Handle) -> list[bool]:
    """Whether there are checkpoints of these tasks."""
    return [
        await saver.aget_tuple(thread(f"default/{handle.id}")) is not None for handle in handles
    ]


async def test_checkpoints_of_a_graph_agent_are_deleted_when_its_task_has_succeeded(
    tmp_path: Path,
):
    async with (
        board_of(tmp_path) as (board, table),
        JetStreamSaver.from_url(board_url(board)) as saver,
    ):
        asked = await board.submit("docs.ask", {"topic": "dogs"})
        question = await asked.result(timeout=20)
        table.open("d0", "d1")
        first = await board.submit("docs.pages", {"topic": "cats", "door": "d"})
        await first.result(timeout=20)
        assert await threads_of(saver, asked, first) == [True, True]
        second = await board.submit("docs.pages", {"topic": "cats", "door": "d"})
        await second.result(timeout=20)
        assert await threads_of(saver, asked, first, second) == [True, False, True]

        (each,) = question["__interrupt__"]
        answer = {"__resume__": {each["id"]: "yes"}, "thread": question["thread"]}
        answered = await board.submit("docs.ask", answer)
        assert (await answered.result(timeout=20))["approved"] == "yes"
        assert await threads_of(saver, asked, second) == [True, False]
        assert await saver.asweep_ended() == 1
        assert await threads_of(saver, asked, answered) == [False, False]


async def test_checkpoints_of_a_task_that_failed_or_has_not_ended_stay(tmp_path: Path):
    async with (
        board_of(tmp_path) as (board, table),
        JetStreamSaver.from_url(board_url(board)) as saver,
    ):
        config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
        failed = await board.submit("fails", {"name": "a", "door": "closed"})
        with pytest.raises(TaskFailed):
            await failed.result(timeout=20)
        running = await board.submit("door", {"name": "b", "door": "d0"})
        await table.shows(lambda lines: lines["door b begins"] == 1)
        for task in (failed.id, running.id, "999999"):
            await saver.aput(config, empty_checkpoint(), {}, {})
            await saver.anote_end("t", tenant="default", task=task)
            assert await saver.asweep_ended() == 0
            assert await saver.aget_tuple(config) is not None
        await saver.anote_end("t", tenant="default", task=running.id)
        table.open("d0")
        await running.result(timeout=20)
        assert await saver.asweep_ended() == 1
        assert await saver.aget_tuple(config) is None


def check_once(lines: Counter[str]) -> None:
    """Every node and every remote task ran exactly once, `local` apart."""
    ran = {line: count for line, count in lines.items() if line != "local"}
    assert ran == dict.fromkeys(
        ["outline", *(f"door p{n} {what}" for n in range(6) for what in ("begins", "ends"))], 1
    )


def half_done(lines: Counter[str]) -> bool:
    """Three of the six have ended, the others run."""
    begun = sum(lines[f"door p{n} begins"] for n in range(6))
    return begun == 6 and sum(lines[f"door p{n} ends"] for n in range(6)) == 3


async def test_a_graph_killed_in_a_superstep_runs_no_finished_and_no_running_task_again(
    tmp_path: Path,
):
    def started(begin: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(TESTS / "langgraph_run.py"), url, "t", json.dumps(begin)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(TESTS.parent), "LANGGRAPH_FOLDER": str(tmp_path)},
        )

    async with board_of(tmp_path) as (board, table):
        url = board_url(board)
        table.open("d0")
        first = started({"topic": "cats", "door": "d"})
        await table.shows(lambda lines: half_done(lines) and lines["local"] == 1)
        first.kill()
        assert await asyncio.to_thread(first.communicate) == ("", None)
        second = started(None)
        await asyncio.to_thread(table.open, "d1")
        out, _ = await asyncio.to_thread(second.communicate, timeout=60)
        assert sorted(json.loads(out)["pages"]) == ["local", *(f"through p{n}" for n in range(6))]
        check_once(table.lines)


async def test_a_graph_agent_whose_host_is_killed_goes_on_from_its_checkpoint(
    nats: NatsServer, tmp_path: Path
):
    table = Table(tmp_path)
    environment = {
        "PYTHONPATH": str(TESTS.parent),
        "LANGGRAPH_FOLDER": str(tmp_path),
        "CALLBOARD_LEASE__LEASE_SECONDS": "5",
    }
    processes = Processes(nats, tmp_path, cwd=TESTS, environment=environment)
    try:
        processes.router("router")
        processes.ledger()
        processes.host("workers", str(AGENTS))
        processes.host("first", str(GRAPHS))
        await processes.says("now leader", "router")
        async with connect(nats.url, prefix=nats.prefix) as board:
            handle = await board.submit("docs.pages", {"topic": "cats", "door": "d"})
            table.open("d0")
            await table.shows(lambda lines: half_done(lines) and lines["local"] == 1)
            processes.kill("first")
            processes.host("second", str(GRAPHS))
            await asyncio.to_thread(table.open, "d1")
            result = await handle.result(timeout=60)
    finally:
        processes.stop()
    assert sorted(result["pages"]) == ["local", *(f"through p{n}" for n in range(6))]
    check_once(table.lines)
    assert table.lines["local"] == 1, "its write was stored, for the superstep had ended for it"


async def test_the_example_runs_as_it_stands(tmp_path: Path):
    folder = TESTS.parent / "examples/langgraph"
    async with live_board([str(folder / "review_agents.py")], folder=tmp_path / "board") as board:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(folder / "review_graph.py"),
            stdout=subprocess.PIPE,
            env={**os.environ, "CALLBOARD_NATS_URL": board_url(board)},
        )
        out, _ = await process.communicate()
    assert out.decode().splitlines() == [
        "asked: {'publish': ['b.py has no docstring']}",
        "approved: True ['b.py has no docstring']",
    ]
