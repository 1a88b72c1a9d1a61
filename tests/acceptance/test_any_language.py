"""A service that has no library of ours: one plain publish is picked up, run and visible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nats as nats_py
import pytest

from tests.board import started_processes
from tests.servers import EVERY_SOURCE, NatsServer


@pytest.mark.parametrize("nats", EVERY_SOURCE, indirect=True)
async def test_a_plain_publish_without_headers_is_run_and_visible(nats: NatsServer, tmp_path: Path):
    with started_processes(nats, tmp_path) as board:
        board.router("router")
        board.ledger()
        board.host("host")
        await board.says("is ready", "host")
        client = await nats_py.connect(nats.url, max_reconnect_attempts=1)
        try:
            told = await client.subscribe(f"{nats.prefix}.told.acme.*")
            await client.publish(f"{nats.prefix}.task.acme.mark.work", b'{"payload": {"n": 7}}')
            news = await told.next_msg(timeout=20)
            event = json.loads(news.data)
            assert event["kind"] == "outcome"
            assert event["result"] == 7
            view = await _ask(
                client, f"{nats.prefix}.ask.acme.status", {"id": event["task"], "fresh": True}
            )
            assert view["state"] == "succeeded"
            assert view["capability"] == "mark.work"
            assert view["result"] == 7
            stranger = await _ask(client, f"{nats.prefix}.ask.other.status", {"id": event["task"]})
            assert stranger["error"]["type"] == "UnknownTask"
        finally:
            await client.close()


async def test_a_key_in_the_body_makes_a_plain_post_idempotent(nats: NatsServer, tmp_path: Path):
    with started_processes(nats, tmp_path) as board:
        board.router("router")
        board.host("host")
        await board.says("is ready", "host")
        client = await nats_py.connect(nats.url, max_reconnect_attempts=1)
        try:
            told = await client.subscribe(f"{nats.prefix}.told.acme.9")
            body = b'{"payload": {"n": 7}, "key": "order-1", "shard": 9}'
            for _ in range(3):
                await client.publish(f"{nats.prefix}.task.acme.mark.work", body)
            kinds = [json.loads((await told.next_msg(timeout=20)).data) for _ in range(3)]
            assert sorted(event["kind"] for event in kinds) == ["merged", "merged", "outcome"]
            first = next(event["task"] for event in kinds if event["kind"] == "outcome")
            assert {event["same_as"] for event in kinds if event["kind"] == "merged"} == {first}
        finally:
            await client.close()
        assert len(board.table.read_text().splitlines()) == 1


async def _ask(client: Any, subject: str, question: dict[str, Any]) -> Any:
    return json.loads(
        (await client.request(subject, json.dumps(question).encode(), timeout=10)).data
    )
