"""What is asked of the ledger about hosts, about what attempts hold, and about budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from callboard_broker.beats import Beat, Offer
from callboard_broker.limits import Limit, Quota
from callboard_broker.streams import Topology
from callboard_broker.wire import Budget
from tests.asked_board import AskedBoard, opened, options_of, running
from tests.servers import NatsServer


async def say(board: AskedBoard, host: str, pool: str = "shared", **said: Any) -> None:
    await board.put(board.subjects.beat(pool, host), Beat(host, "i1", pool, **said))


async def agents(board: AskedBoard, tenant: str = "all", **asked: Any) -> dict[str, Any]:
    answer = await board.ask("agents", {"fresh": True, **asked}, tenant)
    return {item["host"]: item for item in answer["items"]}


async def test_a_host_is_told_with_what_it_offers_and_measures_and_to_whom_it_belongs(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats) as board, running(options_of(nats, tmp_path)):
        offers = [Offer("review", 4, 3, version="2.1")]
        await say(board, "h1", offers=offers, cpu=0.5, memory_mb=55.0, layers=["uid"])
        await say(board, "h2", pool="acme", offers=[Offer("build", 1, 1)])
        found = await agents(board)
        assert found["h1"]["state"] == "here"
        assert found["h1"]["silent_seconds"] < 10
        assert found["h1"]["offers"][0]["version"] == "2.1"
        told = (found["h1"]["cpu"], found["h1"]["memory_mb"], found["h1"]["layers"])
        assert told == (0.5, 55.0, ["uid"])
        assert list(await agents(board, "acme")) == ["h2"]
        assert list(await agents(board, capability="build")) == ["h2"]
        await say(board, "h1", gone=True)
        assert list(await agents(board, state="gone")) == ["h1"]
        refused = await board.ask("agents", {"colour": "red"}, "all")
        assert refused["error"]["type"] == "BadInput"


async def test_a_host_is_known_when_the_stream_of_beats_was_lost_and_made_anew(
    nats: NatsServer, tmp_path: Path
) -> None:
    options = options_of(nats, tmp_path)
    async with opened(nats) as board:
        async with running(options):
            await say(board, "h1", cpu=0.5)
            assert list(await agents(board)) == ["h1"]
        await board.link.api(f"STREAM.DELETE.{Topology(board.subjects).beats}")
        async with running(options):
            await say(board, "h2")
            found = await agents(board)
            assert list(found) == ["h1", "h2"]
            assert found["h1"]["cpu"] == 0.5


async def test_what_attempts_hold_is_told_until_it_is_returned_and_after_a_rebuild(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats) as board:
        async with running(options_of(nats, tmp_path)):
            done, task = await board.run_task(), await board.post()
            await board.dispatch(task)
            other = await board.run_task("globex")
            answer = await board.ask("allocations", {"fresh": True})
            assert [item["task"] for item in answer["items"]] == [task, done]
            assert "ending" not in answer["items"][0]
            assert (answer["items"][1]["ending"], answer["items"][1]["host"]) == (
                "succeeded",
                "host-1",
            )
            held = await board.ask("allocations", {"held": True}, "all")
            assert [item["task"] for item in held["items"]] == [task]
            before = answer["items"][0]["seq"]
            page = await board.ask("allocations", {"before": before, "limit": 1}, "all")
            assert [item["task"] for item in page["items"]] == [done]
            everything = await board.ask("allocations", {}, "all")
            assert everything["items"][0]["task"] == other
        async with running(options_of(nats, tmp_path, rebuild=True)):
            again = await board.ask("allocations", {"fresh": True}, "all")
            assert again["items"] == everything["items"]


async def test_budgets_are_told_as_of_a_sequence_and_a_tenant_sees_its_own(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with opened(nats) as board, running(options_of(nats, tmp_path)):
        base = {"global": Limit(3, units={"tokens": Quota(100.0)}), "tenant/acme": Limit(2)}
        await board.put(board.subjects.run("all", "budget", 0), Budget(board.epoch, base))
        task = await board.post(units={"tokens": 5.0})
        await board.dispatch(task)
        answer = await board.ask("budgets", {"fresh": True}, "all")
        found = {item["key"]: item for item in answer["items"]}
        assert answer["position"] == 4
        assert found["global"]["limit"]["concurrency"] == 3
        assert (found["global"]["in_use"], found["global"]["reserved"]) == (1, {"tokens": 5})
        await board.outcome(task, used={"tokens": 2.0})
        answer = await board.ask("budgets", {"fresh": True, "key": "global"}, "all")
        assert answer["items"] == [
            {"key": "global", "limit": found["global"]["limit"], "most": 1, "used": {"tokens": 2}}
        ]
        own = await board.ask("budgets", {}, "acme")
        assert [item["key"] for item in own["items"]] == ["tenant/acme"]
