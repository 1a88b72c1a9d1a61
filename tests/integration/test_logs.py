"""What handlers log, from where they say it to whoever reads it, on a whole board."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from callboard import Board, UnknownTask, Workflow
from callboard_agents.log_options import LogOptions
from callboard_broker.log_lines import LogBounds, LoggedLine
from callboard_broker.publisher import Publisher
from callboard_broker.streams import Topology, last_sequence
from callboard_broker.trace import trace_of
from tests.scraping import free_endpoint, scrape
from tests.servers import NatsServer
from tests.whole_board import whole_board

_TWO = ("log.inline", "log.thread")


@asynccontextmanager
async def opened(
    nats: NatsServer, folder: Path, *kinds: str, log: LogOptions | None = None
) -> AsyncIterator[Board]:
    """A board whose agents of these kinds log."""
    names = [f"log.{kind}" for kind in kinds]
    async with (
        whole_board(nats, folder) as whole,
        whole.ledger(),
        whole.host("log_agents.py", *names, log=log),
    ):
        yield whole.board


async def lines_of(board: Board, task: str, **more: Any) -> list[LoggedLine]:
    return [line async for line in board.logs(task, **more)]


async def test_lines_of_every_isolation_arrive_in_order_with_all_that_is_known(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path, "inline", "thread", "process") as board:
        handles = {
            kind: await board.submit(f"log.{kind}") for kind in ("inline", "thread", "process")
        }
        traces = {kind: await handle.result(30) for kind, handle in handles.items()}

        found = await lines_of(board, handles["inline"].id)
        assert [line.message for line in found] == ["first of 3", "second \x1b[31m", "third"]
        assert [line.level for line in found] == ["info", "warning", "error"]
        assert [line.n for line in found] == [1, 2, 3]
        assert found[0].fields == {"files": 7}
        assert found[2].error.startswith("Traceback")
        assert found[2].error.endswith("ValueError: what went wrong")
        for line in found:
            assert (line.task, line.workflow) == (handles["inline"].id, handles["inline"].id)
            assert (line.tenant, line.attempt, line.capability) == ("default", 1, "log.inline")
            assert line.host == "host"
            assert line.trace == traces["inline"] == trace_of(nats.prefix, line.task)
        assert [line.at for line in found] == sorted(line.at for line in found)

        found = await lines_of(board, handles["thread"].id)
        assert [line.message for line in found] == ["thread 0", "thread 1", "thread 2"]

        found = await lines_of(board, handles["process"].id)
        assert [(line.logger, line.level, line.message) for line in found] == [
            ("callboard.agent", "info", "in a child"),
            ("stdout", "info", "printed"),
            ("stderr", "info", "to the other one"),
            ("library", "warning", "from a library"),
            ("stdout", "info", "without an end"),
        ]
        assert found[0].fields == {"files": 7}
        assert {line.trace for line in found} == {traces["process"]}

        found = await lines_of(board, handles["inline"].id, level="error")
        assert [line.message for line in found] == ["third"]
        found = await lines_of(board, handles["inline"].id, last=2)
        assert [line.message for line in found] == ["second \x1b[31m", "third"]


async def test_a_child_may_say_anything_and_is_bounded_as_all_others(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path, "odd") as board:
        handle = await board.submit("log.odd", 3)
        await handle.result(30)
        found = await lines_of(board, handle.id)
        assert [line.level for line in found[:2]] == ["critical", "info"]
        assert found[0].fields == {"fields": '["no","mapping"]'}
        assert found[2].message.endswith(" more)")
        assert found[3].message == "a line that cannot be written: TypeError"
        assert found[5].message.startswith("xxx")
        assert [line.message for line in found[-3:]] == ["0", "1", "2"]


async def test_a_flood_is_bounded_and_the_last_line_says_by_how_much(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path, "flood", log=LogOptions(lines=300, rate=1000)) as board:
        handle = await board.submit("log.flood", 1500)
        await handle.result(30)
        *found, last = await lines_of(board, handle.id)
        assert [line.message for line in found] == [f"line {number}" for number in range(300)]
        assert last.level == "warning"
        assert last.message.startswith("1200 lines were dropped: more than 300 of an attempt")


async def test_what_is_too_fast_is_dropped_although_there_is_room(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path, "flood", log=LogOptions(rate=10)) as board:
        handle = await board.submit("log.flood", 2000)
        await handle.result(30)
        *found, last = await lines_of(board, handle.id)
        assert 50 <= len(found) < 500  # five seconds' worth at once, and then ten a second
        assert last.message.startswith(f"{2000 - len(found)} lines were dropped")


async def test_nothing_is_sent_below_the_level_of_the_settings(
    nats: NatsServer, tmp_path: Path
) -> None:
    log = LogOptions(level="error")
    async with opened(nats, tmp_path, "inline", "process", log=log) as board:
        handle = await board.submit("log.inline")
        child = await board.submit("log.process")
        await handle.result(30)
        await child.result(30)
        assert [line.message for line in await lines_of(board, handle.id)] == ["third"]
        assert await lines_of(board, child.id) == []


async def test_a_workflow_shows_its_steps_and_all_that_they_spawn_with_one_trace(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path, "thread", "parent", "middle", "process") as board:
        flow = Workflow("talk")
        one = flow.step("one", "log.thread")
        flow.step("two", "log.parent", after=[one])
        run = await board.run(flow)
        result = await run.result(30)
        found = await lines_of(board, run.id)
        assert [line.message for line in found][:5] == [
            "thread 0",
            "thread 1",
            "thread 2",
            "spawning",
            "spawning again",
        ]
        assert {line.workflow for line in found} == {run.id}
        assert len({line.task for line in found}) == 4
        assert {line.trace for line in found} == {trace_of(nats.prefix, run.id)}
        assert set(result["two"]) == {trace_of(nats.prefix, run.id)}
        step = await lines_of(board, f"{run.id}.one.0")
        assert [line.message for line in step] == ["thread 0", "thread 1", "thread 2"]

        given = "0af7651916cd43dd8448eb211c80319c"
        again = await board.run(flow, trace=given)
        assert set((await again.result(30))["two"]) == {given}
        task = await board.submit("log.parent", trace=given)
        assert set(await task.result(30)) == {given}
        assert {line.trace for line in await lines_of(board, task.id)} == {given}
        assert len({line.task for line in await lines_of(board, task.id)}) == 3


async def test_followed_lines_come_while_the_task_runs_and_end_with_it(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path, "patient", "slowly") as board:
        handle = await board.submit("log.patient")
        seen = []
        async for line in board.logs(handle.id, follow=True):
            seen.append(line.message)
            await handle.cancel("heard enough")
        assert seen == ["begun"]
        assert handle.state == "cancelled"

        handle = await board.submit("log.slowly", 40)
        seen = [line.message async for line in board.logs(handle.id, follow=True)]
        assert seen == [f"line {number}" for number in range(40)]


async def test_lines_of_another_tenant_do_not_exist(nats: NatsServer, tmp_path: Path) -> None:
    async with opened(nats, tmp_path, "inline") as board:
        handle = await board.submit("log.inline", tenant="acme")
        await handle.result(30)
        assert len(await lines_of(board, handle.id, tenant="acme")) == 3
        with pytest.raises(UnknownTask):
            await lines_of(board, handle.id, tenant="globex")
        with pytest.raises(UnknownTask):
            await lines_of(board, handle.id, tenant="globex", follow=True)


async def test_a_ledger_that_is_away_loses_no_line_and_shows_none_twice(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with whole_board(nats, tmp_path) as whole, whole.host("log_agents.py", *_TWO):
        board = whole.board
        async with whole.ledger():
            before = await board.submit("log.thread")
            await before.result(30)
            assert len(await lines_of(board, before.id)) == 3
        meanwhile = await board.submit("log.inline")
        await meanwhile.result(30)
        async with whole.ledger():
            assert [line.n for line in await lines_of(board, before.id)] == [1, 2, 3]
            assert [line.n for line in await lines_of(board, meanwhile.id)] == [1, 2, 3]


async def test_an_attempt_that_logs_nothing_costs_the_stream_nothing(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path, "silent") as board:
        handle = await board.submit("log.silent")
        assert await handle.result(30) == handle.id
        last, _ = await last_sequence(board.connection, Topology(board.subjects).logs)
        assert last == 0


async def test_lines_wait_while_the_server_is_away_and_the_handler_does_not(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path, "slowly") as board:
        handle = await board.submit("log.slowly", 60)
        seen = 0
        async for line in board.logs(handle.id, follow=True):
            assert line.message == f"line {seen}"
            seen += 1
            if seen == 5:
                await asyncio.to_thread(nats.restart)
        assert seen == 60
        assert handle.state == "succeeded"


async def test_a_board_that_has_lost_its_lines_works_on_and_keeps_the_next_ones(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with whole_board(nats, tmp_path) as whole, whole.host("log_agents.py", *_TWO):
        board = whole.board
        logs = Topology(board.subjects).logs
        async with whole.ledger():
            before = await board.submit("log.thread")
            await before.result(30)
            assert len(await lines_of(board, before.id)) == 3
            await board.connection.api(f"STREAM.DELETE.{logs}")
            meanwhile = await board.submit("log.inline")
            await meanwhile.result(30)
        async with whole.ledger():
            assert await lines_of(board, before.id) == []
            after = await board.submit("log.thread")
            await after.result(30)
            assert len(await lines_of(board, after.id)) == 3


async def test_the_ledger_gives_the_stream_the_bounds_of_its_settings(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with whole_board(nats, tmp_path) as whole:
        info = f"STREAM.INFO.{Topology(whole.board.subjects).logs}"
        whole.options = dataclasses.replace(
            whole.options, log_bounds=LogBounds(max_mb=3, max_days=0.5)
        )
        async with whole.ledger():
            config = (await whole.board.connection.api(info))["config"]
            assert config["max_bytes"] == 3 * 1024 * 1024
            assert config["max_age"] == 12 * 3600 * 1_000_000_000
        whole.options = dataclasses.replace(whole.options, log_bounds=LogBounds())
        async with whole.ledger():
            config = (await whole.board.connection.api(info))["config"]
            assert config["max_bytes"] == 256 * 1024 * 1024


async def test_a_line_that_no_host_would_send_stops_nobody(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats, tmp_path, "thread") as board:
        async with Publisher(board.connection) as publisher:
            for subject in (board.subjects.log("default", 0), f"{nats.prefix}.log.ALL.x"):
                await publisher.put(subject, b"\x00 no JSON")
        handle = await board.submit("log.thread")
        await handle.result(30)
        assert len(await lines_of(board, handle.id)) == 3


async def test_the_metrics_of_the_ledger_say_how_far_behind_the_lines_are(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with whole_board(nats, tmp_path) as whole, whole.host("log_agents.py", *_TWO):
        endpoint = free_endpoint()
        whole.options = dataclasses.replace(whole.options, metrics=endpoint)
        async with whole.ledger():
            handle = await whole.board.submit("log.thread")
            await handle.result(30)
            await lines_of(whole.board, handle.id)  # fresh: everything is read then
            assert (await scrape(endpoint))[("callboard_ledger_log_lag_messages",)] == 0
