"""Nonsense is refused or dead-lettered with the field's name, and everything runs on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import nats as nats_py
import pytest

from callboard import BadInput, Board, TaskFailed, connect
from tests.board import Processes, started_processes
from tests.servers import NatsServer

DEEP = b"[" * 100_000 + b"]" * 100_000

POSTS = [
    # what is posted, the field that the error names
    (b"", "body"),
    (b"not json", "body"),
    (b"\xff\xfe", "body"),
    (b'{"payload": NaN}', "body"),
    (b'{"payload": {"x": 1e999}}', "payload"),
    (b'{"payload": "\xff"}', "payload"),
    (b'{"paylod": 1}', "paylod"),
    (b'{"priority": 11}', "priority"),
    (b'{"priority": "high"}', "priority"),
    (b'{"shard": 4000}', "shard"),
    (b'{"timeout": -1}', "timeout"),
    (b'{"v": 99}', "v"),
    (b'{"key": ""}', "key"),
    (b'{"payload": ' + DEEP + b"}", "body"),
    (b"[1, 2]", "body"),
]
FLOWS = [
    (b"{}", "name"),
    (b'{"name": "x", "steps": []}', "steps"),
    (b'{"name": "x", "steps": [{"id": "A!", "capability": "c"}]}', "steps[0].id"),
    (
        b'{"name": "x", "steps": [{"id": "a", "capability": "c"}, {"id": "a", "capability": "c"}]}',
        "steps[1].id",
    ),
    (
        b"""{"name": "x", "steps": [{"id": "a", "capability": "c", "after": ["b"]},
             {"id": "b", "capability": "c", "after": ["a"]}]}""",
        "steps",
    ),
    (
        b'{"name": "x", "steps": [{"id": "a", "capability": "c", "after": ["nobody"]}]}',
        "steps[0].after[0]",
    ),
    (
        b'{"name": "x", "steps": [{"id": "a", "capability": "c d", "payload": 1}]}',
        "steps[0].capability",
    ),
    (
        b'{"name": "x", "steps": [{"id": "a", "capability": "c", "payload": {"from": "zz"}}]}',
        "steps[0].payload",
    ),
]
SUBJECTS = [  # below the prefix
    "task.Acme.mark.work",
    "task.acme.mark.w\u00f6rk",
    "task.all.mark.work",
    "task.acme." + "x" * 200,
    "run.acme.outcome.9999",
    "run.acme.nonsense.1",
    "run.nobody",
]


async def test_every_bad_post_is_dead_lettered_by_its_field_and_the_board_runs_on(
    nats: NatsServer, tmp_path: Path
):
    async with _board(nats, tmp_path) as (board, client):
        told = await client.subscribe(f"{nats.prefix}.told.acme.*")
        for body, field in POSTS:
            await client.publish(f"{nats.prefix}.task.acme.mark.work", body)
            assert (await _settled(told))["error"]["field"] == field, body[:60]
        for body, field in FLOWS:
            await client.publish(f"{nats.prefix}.flow.acme.run", body)
            error = (await _settled(told))["error"]
            assert error["field"] == field, (body, error)
        await client.publish(f"{nats.prefix}.flow.acme.explode", b"{}")
        assert (await _settled(told))["error"]["field"] == "verb"
        for subject in SUBJECTS:
            await client.publish(f"{nats.prefix}.{subject}", b'{"payload": {"n": 1}}')
        await client.publish(f"{nats.prefix}.beat.shared.host", b"no beat")
        await client.publish(f"{nats.prefix}.ask.acme.status", b"no question")
        await _still_works(nats)
        assert "Traceback" not in "".join(map(board.log, ("router", "ledger", "host")))


async def test_a_payload_of_the_wrong_type_is_a_failure_that_names_the_field(
    nats: NatsServer, tmp_path: Path
):
    async with _board(nats, tmp_path), connect(nats.url, prefix=nats.prefix) as poster:
        handle = await poster.submit("mark.work", {"n": "seven"})
        with pytest.raises(TaskFailed) as caught:
            await handle.result(20)
        assert caught.value.error.type == "BadInput"
        assert caught.value.error.field == "n"
        await _still_works(nats)


async def test_the_client_refuses_before_it_sends(nats: NatsServer, tmp_path: Path):
    async with _board(nats, tmp_path), connect(nats.url, prefix=nats.prefix) as poster:
        for expected, call in _client_calls(poster).items():
            with pytest.raises(BadInput) as caught:
                await call()
            assert caught.value.field == expected
        await _still_works(nats)


def _client_calls(poster: Board) -> dict[str, Any]:
    nested: Any = 0
    for _ in range(100):
        nested = [nested]
    return {
        "tenant": lambda: poster.submit("mark.work", tenant="A*"),
        "capability": lambda: poster.submit("mark.>"),
        "payload.n": lambda: poster.submit("mark.work", {"n": math.nan}),
        "payload": lambda: poster.submit("mark.work", nested),
        "priority": lambda: poster.submit("mark.work", priority=10),
        "timeout": lambda: poster.submit("mark.work", timeout=0),
        "key": lambda: poster.submit("mark.work", key=""),
    }


class _board:  # noqa: N801  reads as the function that it stands for
    def __init__(self, nats: NatsServer, folder: Path) -> None:
        self._nats = nats
        self._processes = started_processes(nats, folder)

    async def __aenter__(self) -> tuple[Processes, Any]:
        board = self._processes.__enter__()
        board.router("router")
        board.ledger()
        board.host("host")
        await board.says("is ready", "host")
        self._client = await nats_py.connect(self._nats.url, max_reconnect_attempts=1)
        return board, self._client

    async def __aexit__(self, *raised: object) -> None:
        await self._client.close()
        self._processes.__exit__(None, None, None)


async def _settled(told: Any) -> Any:
    return json.loads((await told.next_msg(timeout=20)).data)


async def _still_works(nats: NatsServer) -> None:
    async with connect(nats.url, prefix=nats.prefix) as poster:
        handle = await poster.submit("mark.work", {"n": 5})
        assert await handle.result(20) == 5
