"""A connection outlives its server, its sockets and whatever makes nats-py give up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import uvloop

from callboard_broker.answers import ApiError, NoResponder
from callboard_broker.connection import open_link
from callboard_broker.errors import BadInput, BoardUnreachable, StreamMissing, TooLarge
from callboard_broker.headers import header, raw_headers
from callboard_broker.server import EmbeddedServer, ServerOptions
from tests.arrivals import Arrivals
from tests.servers import NatsServer


def listener(arrivals: Arrivals[bytes]):
    def sink(_subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        arrivals.add(data)

    return sink


async def test_a_message_arrives_with_its_headers_and_its_reply_subject(nats: NatsServer):
    heard: Arrivals[tuple[str, str, str | None, bytes]] = Arrivals()
    async with open_link(nats.url, name="a") as here, open_link(nats.url, name="b") as there:
        await here.sink(
            f"{nats.prefix}.>",
            lambda subject, reply, raw, data: heard.add((subject, reply, header(raw, "K"), data)),
        )
        there.send(f"{nats.prefix}.x", b"plain")
        there.send(f"{nats.prefix}.y", b"", reply="back", headers=raw_headers({"K": "v"}))
        await heard.count(2)
    assert heard.items == [
        (f"{nats.prefix}.x", "", None, b"plain"),
        (f"{nats.prefix}.y", "back", "v", b""),
    ]


async def test_a_closed_sink_hears_no_more(nats: NatsServer):
    heard: Arrivals[bytes] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        first = await connection.sink(f"{nats.prefix}.x", listener(Arrivals()))
        await first.close()
        await connection.sink(f"{nats.prefix}.x", listener(heard))
        connection.send(f"{nats.prefix}.x", b"1")
        await heard.count(1)
        assert len(connection.sinks) == 2  # its own inbox, and the second one


async def test_of_a_queue_group_only_one_member_hears_a_message(nats: NatsServer):
    heard: Arrivals[bytes] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        for _ in range(3):
            await connection.sink(f"{nats.prefix}.q", listener(heard), queue="group")
        for number in range(30):
            connection.send(f"{nats.prefix}.q", b"%d" % number)
        await connection.link.round_trip()
    assert sorted(int(item) for item in heard.items) == list(range(30))


async def test_requests_are_answered_each_with_its_own_answer(nats: NatsServer):
    async with open_link(nats.url, name="a") as asker, open_link(nats.url, name="b") as other:

        def answer(_subject: str, reply: str, _headers: bytes, data: bytes) -> None:
            other.send(reply, data[::-1])

        await other.sink(f"{nats.prefix}.turn", answer)
        asked = [asker.request(f"{nats.prefix}.turn", b"%03d" % number) for number in range(200)]
        answers = await asyncio.gather(*asked)
    assert [reply.data[::-1] for reply in answers] == [b"%03d" % number for number in range(200)]


async def test_a_request_that_nobody_hears_or_answers_says_so(nats: NatsServer):
    async with open_link(nats.url, name="a") as connection:
        with pytest.raises(NoResponder, match="nobody answers"):
            await connection.request(f"{nats.prefix}.nobody", b"")
        await connection.sink(f"{nats.prefix}.silent", listener(Arrivals()))
        with pytest.raises(TimeoutError, match="no answer"):
            await connection.request(f"{nats.prefix}.silent", b"", timeout=0.05)
        with pytest.raises(StreamMissing, match="NOSUCH"):
            await connection.api("STREAM.INFO.NOSUCH")
        with pytest.raises(ApiError, match="10056"):
            await connection.api("STREAM.CREATE.X", {"name": "Y"})


async def test_what_the_server_would_close_the_connection_for_is_refused_here(nats: NatsServer):
    async with open_link(nats.url, name="a") as connection:
        with pytest.raises(TooLarge, match="at most"):
            connection.send(f"{nats.prefix}.x", bytes(connection.link.max_payload + 1))
        with pytest.raises(BadInput, match="subject"):
            connection.send("a" * 5000, b"")
        for subject in ("a b", "a..b", "", "a\r\nPUB x 0"):
            with pytest.raises(BadInput):
                await connection.sink(subject, listener(Arrivals()))
        await connection.link.round_trip()
        assert connection.generation == 1


async def test_no_server_is_told_at_once_with_what_to_do():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(BoardUnreachable, match="callboard up"):
            async with open_link(url, name="a", tries_seconds=0.3):
                pass


async def test_denied_access_is_told_without_trying_again(tmp_path: Path):
    options = ServerOptions(
        store=tmp_path, extra={"authorization": {"user": "u", "password": "right"}}
    )
    with EmbeddedServer(options) as server:
        wrong = server.url.replace("nats://", "nats://u:wrong@")
        with pytest.raises(BoardUnreachable, match="Authorization"):
            async with asyncio.timeout(3), open_link(wrong, name="a", tries_seconds=60):
                pass
        right = server.url.replace("nats://", "nats://u:right@")
        async with open_link(right, name="a") as connection:
            assert connection.connected


async def test_sinks_and_requests_live_on_after_the_server_was_killed(nats: NatsServer):
    heard: Arrivals[bytes] = Arrivals()
    told: Arrivals[str] = Arrivals()

    async def restored() -> None:
        told.add("restored")

    async with open_link(
        nats.url, name="a", on_lost=lambda: told.add("lost"), on_restored=restored
    ) as connection:
        await connection.sink(f"{nats.prefix}.x", listener(heard))
        nats.kill()
        await told.count(1)
        assert not connection.connected
        with pytest.raises(BoardUnreachable):
            await connection.request(f"{nats.prefix}.y", b"", timeout=0.05)
        connection.send(f"{nats.prefix}.x", b"dropped")
        nats.restart()
        await told.count(2)
        connection.send(f"{nats.prefix}.x", b"after")
        await heard.count(1)
        assert connection.generation == 2
    assert told.items == ["lost", "restored"]
    assert heard.items == [b"after"]


async def test_a_request_waits_for_the_connection_to_come_back(nats: NatsServer):
    lost: Arrivals[str] = Arrivals()
    async with open_link(nats.url, name="a", on_lost=lambda: lost.add("")) as connection:
        nats.kill()
        await lost.count(1)
        asked = asyncio.ensure_future(connection.api("INFO", timeout=20))
        nats.restart()
        assert (await asked)["type"].endswith("account_info_response")


@pytest.mark.parametrize(
    "command",
    [
        b"PUB " + b"a" * 5000 + b" 0\r\n\r\n",
        b"PUB x 999999999\r\n",
        b"NONSENSE\r\n",
    ],
    ids=["a subject of 5,000 characters", "too large a payload", "no command"],
)
async def test_a_complaint_that_closes_nats_py_for_good_is_survived(
    nats: NatsServer, command: bytes
):
    heard: Arrivals[bytes] = Arrivals()
    restored: Arrivals[int] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        connection.at_restore(lambda: restored.add(connection.generation))
        await connection.sink(f"{nats.prefix}.x", listener(heard))
        for number in (1, 2):
            before = connection.link
            before._append(command)
            await restored.count(number)
            assert before.is_closed
            connection.send(f"{nats.prefix}.x", b"%d" % number)
            await heard.count(number)
            await connection.api("INFO")
    assert restored.items == [2, 3]
    assert heard.items == [b"1", b"2"]


@pytest.mark.parametrize(
    "name", ["_reading_task", "_ping_interval_task", "_flusher_task"], ids=str.strip
)
async def test_a_dead_task_of_nats_py_is_noticed_and_a_new_link_built(nats: NatsServer, name: str):
    heard: Arrivals[bytes] = Arrivals()
    restored: Arrivals[int] = Arrivals()
    async with open_link(nats.url, name="a") as connection:
        connection.at_restore(lambda: restored.add(connection.generation))
        await connection.sink(f"{nats.prefix}.x", listener(heard))
        getattr(connection.link, name).cancel()
        await restored.count(1)
        connection.send(f"{nats.prefix}.x", b"after")
        await heard.count(1)


async def test_a_failing_callback_is_reported_and_harms_nobody(nats: NatsServer):
    heard: Arrivals[bytes] = Arrivals()
    errors: Arrivals[Exception] = Arrivals()

    def failing(*_arguments: object) -> None:
        raise ValueError("planted")

    async with open_link(nats.url, name="a", on_lost=failing, on_restored=failing) as connection:
        connection.at_error(errors.add)
        await connection.sink(f"{nats.prefix}.x", failing)
        await connection.sink(f"{nats.prefix}.x", listener(heard))
        connection.send(f"{nats.prefix}.x", b"1")
        await heard.count(1)
        await errors.count(1)
        nats.kill()
        nats.restart()
        await errors.count(3)
        await connection.reached()
        connection.send(f"{nats.prefix}.x", b"2")
        await heard.count(2)
    assert {str(error) for error in errors.items} == {"planted"}


async def test_a_missing_permission_is_reported(tmp_path: Path):
    user = {"user": "u", "password": "p", "permissions": {"publish": ["ok.>"], "subscribe": [">"]}}
    options = ServerOptions(store=tmp_path, extra={"authorization": {"users": [user]}})
    errors: Arrivals[Exception] = Arrivals()
    with EmbeddedServer(options) as server:
        async with open_link(server.url.replace("//", "//u:p@"), name="a") as connection:
            connection.at_error(errors.add)
            connection.send("forbidden", b"")
            await errors.count(1)
            assert connection.generation == 1
    assert "permissions violation" in str(errors.items[0])


async def test_the_bytes_that_a_stopped_server_does_not_take_hold_up_nobody(nats: NatsServer):
    """nats-py waits for the peer to take its last bytes; a stopped one never does."""
    process = nats.embedded.pid
    lost: Arrivals[str] = Arrivals()
    async with open_link(nats.url, name="a", on_lost=lambda: lost.add("")) as connection:
        transport = connection.link._transport
        assert transport is not None
        os.kill(process, signal.SIGSTOP)
        try:
            for _ in range(64):
                connection.send(f"{nats.prefix}.x", bytes(512 * 1024))
            drained = asyncio.ensure_future(connection.drained())
            await connection.link._process_op_err(ConnectionError("as a missed ping would"))
            await lost.count(1)
            async with asyncio.timeout(5):
                await drained
                await transport.wait_closed()
        finally:
            os.kill(process, signal.SIGCONT)
        async with asyncio.timeout(20):
            await connection.reached()
        await connection.api("INFO")


async def test_drained_holds_a_sender_back(nats: NatsServer):
    heard: Arrivals[int] = Arrivals()
    async with open_link(nats.url, name="a") as here, open_link(nats.url, name="b") as there:
        await there.sink(f"{nats.prefix}.x", lambda _s, _r, _h, data: heard.add(len(data)))
        for _ in range(200):
            here.send(f"{nats.prefix}.x", bytes(256 * 1024))
            await here.drained()
        await heard.count(200)


async def test_the_connection_closes_with_what_was_sent_before(nats: NatsServer):
    heard: Arrivals[bytes] = Arrivals()
    async with open_link(nats.url, name="a") as there:
        await there.sink(f"{nats.prefix}.x", listener(heard))
        async with open_link(nats.url, name="b") as here:
            here.send(f"{nats.prefix}.x", b"last words")
        await heard.count(1)
        with pytest.raises(BoardUnreachable, match="closed"):
            await here.request(f"{nats.prefix}.x", b"")


def test_what_is_sent_on_a_broken_socket_is_dropped_without_a_word(tmp_path: Path):
    wrong: list[dict[str, Any]] = []

    async def send() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, what: wrong.append(what))
        async with open_link(server.url, name="test") as connection:
            os.kill(server.pid, signal.SIGKILL)
            while connection.link.up:  # until the read loop has seen it
                connection.send("somewhere", b"lost")
                await asyncio.sleep(0)

    with EmbeddedServer(ServerOptions(store=tmp_path / "store")) as server:
        uvloop.run(send())
    assert wrong == []
