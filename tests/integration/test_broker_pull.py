"""A pull hands a host exactly as much as it has places for, and goes on after every outage."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from callboard_broker import pull as pull_module
from callboard_broker.connection import Connection, open_link
from callboard_broker.errors import StreamMissing
from callboard_broker.publisher import Publisher
from callboard_broker.pull import Delivery, Pull, durable_name, ensure_durable
from callboard_broker.pull_requests import PullOptions
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from tests.arrivals import Arrivals
from tests.servers import NatsServer

POOL, CAPABILITY = "shared", "review.python"
DURABLE = durable_name(POOL, CAPABILITY)


async def queue(connection: Connection, prefix: str) -> Topology:
    topology = Topology(Subjects(prefix))
    await ensure_streams(connection, topology)
    await ensure_durable(connection, topology, POOL, CAPABILITY, 1)
    return topology


async def dispatch(connection: Connection, topology: Topology, count: int) -> None:
    subject = topology.subjects.dispatch("acme", POOL, CAPABILITY)
    async with Publisher(connection) as publisher:
        for number in range(count):
            publisher.publish(subject, b"%d" % number)
        await publisher.settled()


def sequences(deliveries: list[Delivery]) -> list[int]:
    return [delivery.seq for delivery in deliveries]


def test_a_durable_is_named_for_its_pool_and_capability():
    assert DURABLE == "shared=review=python"


async def test_work_is_delivered_once_in_order_and_acknowledged(nats: NatsServer):
    got: Arrivals[Delivery] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        topology = await queue(connection, nats.prefix)

        def take(delivery: Delivery) -> None:
            got.add(delivery)
            delivery.ack()
            pull.refill()

        async with Pull(connection, topology.journal, DURABLE, take, slots=lambda: 8) as pull:
            await dispatch(connection, topology, 3000)
            await got.count(3000)
            await connection.link.round_trip()
            info = await connection.api(f"CONSUMER.INFO.{topology.journal}.{DURABLE}")
    assert sequences(got.items) == list(range(1, 3001))
    first = got.items[0]
    assert (first.data, first.num_delivered) == (b"0", 1)
    assert first.subject == topology.subjects.dispatch("acme", POOL, CAPABILITY)
    assert (info["num_ack_pending"], info["num_pending"]) == (0, 0)


async def test_never_more_is_asked_for_than_there_are_places(nats: NatsServer):
    got: Arrivals[Delivery] = Arrivals()
    free = 5

    def take(delivery: Delivery) -> None:
        nonlocal free
        free -= 1
        got.add(delivery)

    async with open_link(nats.url, name="a") as connection:
        topology = await queue(connection, nats.prefix)
        await dispatch(connection, topology, 20)
        async with Pull(connection, topology.journal, DURABLE, take, slots=lambda: free) as pull:
            for expected in (5, 6, 9, 20):
                await got.count(expected)
                await connection.link.round_trip()
                info = await connection.api(f"CONSUMER.INFO.{topology.journal}.{DURABLE}")
                assert info["delivered"]["consumer_seq"] == expected == len(got.items)
                assert pull.asked == 0
                free = {5: 1, 6: 3, 9: 11, 20: 0}[expected]
                for _ in range(3):
                    pull.refill()


async def test_two_hosts_share_a_queue_and_nothing_is_delivered_to_both(nats: NatsServer):
    got: Arrivals[Delivery] = Arrivals()
    async with (
        open_link(nats.url, name="a") as here,
        open_link(nats.url, name="b") as there,
    ):
        topology = await queue(here, nats.prefix)

        async def work(connection: Connection) -> None:
            def take(delivery: Delivery) -> None:
                got.add(delivery)
                delivery.ack()
                pull.refill()

            async with Pull(connection, topology.journal, DURABLE, take, slots=lambda: 4) as pull:
                await got.count(2000)

        await asyncio.gather(dispatch(here, topology, 2000), work(here), work(there))
    assert sorted(sequences(got.items)) == list(range(1, 2001))
    assert {delivery.connection.name for delivery in got.items} == {"a", "b"}


async def test_it_goes_on_after_the_server_was_killed(nats: NatsServer):
    got: Arrivals[Delivery] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        topology = await queue(connection, nats.prefix)

        def take(delivery: Delivery) -> None:
            got.add(delivery)
            delivery.ack()
            pull.refill()

        async with Pull(connection, topology.journal, DURABLE, take, slots=lambda: 8) as pull:
            for _ in range(3):
                await connection.reached()
                before, _ = await last_sequence(connection, topology.journal)
                await dispatch(connection, topology, 500)
                await got.until(
                    lambda items, first=before + 1: (
                        set(range(first, first + 500)) <= set(sequences(items))
                    )
                )
                generation = connection.generation
                restored = Arrivals[None]()
                forget = connection.at_restore(lambda to=restored: to.add(None))
                nats.kill()
                nats.restart()
                await restored.count(1)
                forget()
                assert connection.generation == generation + 1


async def test_a_consumer_that_is_deleted_and_made_again_is_served_on(nats: NatsServer):
    got: Arrivals[Delivery] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        topology = await queue(connection, nats.prefix)
        async with Pull(connection, topology.journal, DURABLE, got.add, slots=lambda: 8) as pull:
            await dispatch(connection, topology, 5)
            await got.count(5)
            await connection.api(f"CONSUMER.DELETE.{topology.journal}.{DURABLE}")
            await connection.link.round_trip()
            assert pull.last_status.startswith("409")
            await ensure_durable(connection, topology, POOL, CAPABILITY, 6)
            await dispatch(connection, topology, 5)
            await got.count(10)
    assert sequences(got.items) == list(range(1, 11))


async def test_a_consumer_that_does_not_exist_yet_is_waited_for(nats: NatsServer):
    got: Arrivals[Delivery] = Arrivals()
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="a") as connection:
        with pytest.raises(StreamMissing):
            await ensure_durable(connection, topology, POOL, CAPABILITY, 1)
        await ensure_streams(connection, topology)
        async with Pull(connection, topology.journal, DURABLE, got.add, slots=lambda: 8) as pull:
            await connection.api("INFO")
            await connection.link.round_trip()
            assert pull.last_status.startswith("503")
            await ensure_durable(connection, topology, POOL, CAPABILITY, 1)
            await dispatch(connection, topology, 3)
            await got.count(3)


async def test_ensuring_a_durable_again_keeps_its_position(nats: NatsServer):
    got: Arrivals[Delivery] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        topology = await queue(connection, nats.prefix)
        await dispatch(connection, topology, 10)
        async with Pull(connection, topology.journal, DURABLE, got.add, slots=lambda: 4):
            await got.count(4)
        for start in (1, 7):
            await ensure_durable(connection, topology, POOL, CAPABILITY, start)
        info = await connection.api(f"CONSUMER.INFO.{topology.journal}.{DURABLE}")
        config = info["config"]
    assert info["delivered"]["stream_seq"] == len(got.items)
    assert config["filter_subject"] == topology.subjects.dispatch_filter(POOL, CAPABILITY)
    assert (config["max_deliver"], config["ack_wait"]) == (1, 30 * 10**9)
    assert (config["ack_policy"], config["max_ack_pending"]) == ("explicit", -1)


async def test_a_server_that_stood_still_is_asked_again(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pull_module, "_OPTIONS", PullOptions(expires=2, heartbeat=0.2))
    got: Arrivals[Delivery] = Arrivals()
    asked: Arrivals[int] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        topology = await queue(connection, nats.prefix)

        def slots() -> int:
            asked.add(len(asked.items))
            return 8

        async with Pull(connection, topology.journal, DURABLE, got.add, slots=slots):
            await dispatch(connection, topology, 1)
            await got.count(1)
            os.kill(nats.embedded.pid, signal.SIGSTOP)
            try:
                await asked.count(len(asked.items) + 1)
            finally:
                os.kill(nats.embedded.pid, signal.SIGCONT)
            await dispatch(connection, topology, 5)
            await got.count(6)
    assert sequences(got.items) == list(range(1, 7))


async def test_requests_that_expire_are_renewed(nats: NatsServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pull_module, "_OPTIONS", PullOptions(expires=0.2, heartbeat=0.1))
    got: Arrivals[Delivery] = Arrivals()
    asked: Arrivals[int] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        topology = await queue(connection, nats.prefix)

        def slots() -> int:
            asked.add(0)
            return 8

        async with Pull(connection, topology.journal, DURABLE, got.add, slots=slots) as pull:
            await asked.count(5)
            assert pull.last_status == "408 Request Timeout"
            assert pull.asked <= 8
            await dispatch(connection, topology, 3)
            await got.count(3)
