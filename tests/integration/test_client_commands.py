"""The client's side of commands, of a closed door and of options, on a real server.

The router is played by a script, so that it can be late, silent, or say what a real one would not.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from callboard import CommandRefused, CommandUnanswered, Overloaded, Retry, TaskFailed, connect
from callboard_broker.direct import get_message
from callboard_broker.errors import BadInput
from callboard_broker.record import Record
from callboard_broker.streams import Topology
from callboard_broker.wire import Answered, Failure, Merged, Outcome, Settled, decode_command
from tests.scripted_router import Journal, scripted
from tests.servers import NatsServer


def commands(answer: Callable[[Journal, int, Any], Any]) -> Callable[[Journal, Record], None]:
    """A script that does this with each command: (journal, its sequence, the command)."""
    going: set[asyncio.Future[Any]] = set()

    def script(journal: Journal, record: Record) -> None:
        address = journal.subjects.parse(record.subject)
        if address.kind == "flow" and address.rest != "run":
            work = asyncio.ensure_future(answer(journal, record.seq, decode_command(record.data)))
            going.add(work)
            work.add_done_callback(going.discard)

    return script


async def carry_out(journal: Journal, seq: int, command: Any) -> None:
    await journal.write("default", "answered", command.shard, Answered(str(seq), 1))


async def refuse(journal: Journal, seq: int, command: Any) -> None:
    failure = Failure("Conflict", f"{command.id} is paused already")
    await journal.write("default", "answered", command.shard, Answered(str(seq), 1, failure))


async def test_every_command_says_what_it_means_and_returns_when_it_is_done(nats: NatsServer):
    async with scripted(nats, commands(carry_out)) as journal:
        async with connect(nats.url, prefix=nats.prefix, name="tester") as board:
            await board.cancel("17", "no need")
            await board.pause("17")
            await board.resume("17", source="build", inputs={"branch": "main"})
            await board.approve("17.gate.0", approved=False, reason="friday")
            await board.signal("17", "payment", {"amount": 12})
            await board.redrive("18", {"path": "b"})
            await board.redrive("19")
        await journal.reached(14)
        sent = [
            (record.subject.rpartition(".")[2], json.loads(record.data))
            for record in journal.records
            if ".flow." in record.subject
        ]
    said = [
        (verb, {name: body[name] for name in body if name not in ("nonce", "shard")})
        for verb, body in sent
    ]
    by = {"by": "tester"}
    assert said == [
        ("cancel", {"id": "17", "reason": "no need", **by}),
        ("pause", {"id": "17", **by}),
        ("resume", {"id": "17", "from": "build", "payload": {"branch": "main"}, **by}),
        ("approve", {"id": "17.gate.0", "approved": False, "reason": "friday", **by}),
        ("signal", {"id": "17", "name": "payment", "payload": {"amount": 12}, **by}),
        ("redrive", {"id": "18", "payload": {"path": "b"}, **by}),
        ("redrive", {"id": "19", **by}),
    ]
    assert len({body["nonce"] for _, body in sent}) == len(sent)


async def test_a_refused_command_says_why(nats: NatsServer):
    async with scripted(nats, commands(refuse)), connect(nats.url, prefix=nats.prefix) as board:
        with pytest.raises(CommandRefused, match="pause 17: 17 is paused already") as refused:
            await board.pause("17")
        assert (refused.value.verb, refused.value.task) == ("pause", "17")
        assert isinstance(refused.value.error, Failure)


async def test_without_a_router_the_command_is_stored_and_the_error_says_so(nats: NatsServer):
    async with scripted(nats) as journal, connect(nats.url, prefix=nats.prefix) as board:
        with pytest.raises(CommandUnanswered, match="no router has answered") as waited:
            await board.command("cancel", "17", timeout=0.2)
        await journal.reached(int(waited.value.seq))
        assert journal.records[int(waited.value.seq) - 1].subject.endswith(".default.cancel")
        with pytest.raises(BadInput, match="verb"):
            await board.command("delete", "17")


async def test_the_answer_to_a_repeated_command_is_that_of_the_first(nats: NatsServer):
    """The acknowledgement of the first was lost: the router merges the one that is known."""

    async def merge(journal: Journal, seq: int, command: Any) -> None:
        first = str(seq + 1000)
        failure = Failure("Conflict", "it has ended")
        await journal.write("default", "answered", command.shard, Answered(first, 1, failure))
        await journal.write("default", "merged", command.shard, Merged(str(seq), first, 1))

    async with scripted(nats, commands(merge)), connect(nats.url, prefix=nats.prefix) as board:
        with pytest.raises(CommandRefused, match="it has ended"):
            await board.cancel("17")


async def test_an_answer_that_came_while_the_connection_was_down_is_learnt(nats: NatsServer):
    """The ledger, here played by the script, knows what the republish told nobody."""
    asked = asyncio.Event()

    async def answer_behind_its_back(journal: Journal, seq: int, _command: Any) -> None:
        def ledger(_subject: str, reply: str, _headers: bytes, data: bytes) -> None:
            if json.loads(data)["id"] == str(seq):
                asked.set()
                error = {"type": "Conflict", "message": "too late"}
                view = {"kind": "command", "id": str(seq), "state": "failed", "error": error}
                journal.connection.send(reply, json.dumps(view).encode())

        await journal.connection.sink(journal.subjects.ask_filter("status"), ledger)
        await board.connection.link.close()

    async with (
        scripted(nats, commands(answer_behind_its_back)),
        connect(nats.url, prefix=nats.prefix) as board,
    ):
        with pytest.raises(CommandRefused, match="too late"):
            await board.command("pause", "17", timeout=30)
        assert asked.is_set()


async def test_the_door_of_a_flooding_tenant_stays_closed_for_as_long_as_the_router_says(
    nats: NatsServer,
):
    async with scripted(nats) as journal, connect(nats.url, prefix=nats.prefix) as board:
        handle = await board.submit("echo", 1)
        failure = Failure("Overloaded", "5,000 tasks wait", final=True, retry_after=0.3)
        await journal.write(
            "default", "settled", handle.shard, Settled(handle.id, 1, "failed", error=failure)
        )
        with pytest.raises(TaskFailed, match="Overloaded"):
            await handle.result(10)
        with pytest.raises(Overloaded, match="callboard budget set tenant/default") as closed:
            await board.submit("echo", 2)
        assert closed.value.tenant == "default"
        assert 0 < closed.value.retry_after < 0.301
        assert await board.submit("echo", 3, tenant="acme")  # another door
        await asyncio.sleep(closed.value.retry_after + 0.01)  # as the error says
        assert await board.submit("echo", 4)


async def test_the_options_of_a_post_reach_the_journal(nats: NatsServer):
    async with scripted(nats), connect(nats.url, prefix=nats.prefix) as board:
        handle = await board.submit(
            "ask.llm",
            {"q": 1},
            retry=Retry(attempts=3, elsewhere=True),
            timeouts={"queue": 60},
            needs={"labels": {"gpu": "a100"}},
            budgets=["provider:openai"],
            units={"tokens": 2000},
            delay=5,
        )
        with pytest.raises(BadInput, match="retries"):
            await board.submit("ask.llm", 1, retries=3)  # type: ignore[call-arg]  # a mistake
        record = await get_message(
            board.connection, Topology(board.subjects).journal, int(handle.id)
        )
    body = json.loads(record.data)
    assert {name: body[name] for name in body if name not in ("nonce", "shard")} == {
        "payload": {"q": 1},
        "retry": {"attempts": 3, "elsewhere": True},
        "timeouts": {"queue": 60.0},
        "needs": {"labels": {"gpu": "a100"}},
        "budgets": ["provider:openai"],
        "units": {"tokens": 2000.0},
        "delay": 5.0,
    }


async def test_a_handle_of_a_part_hears_what_is_told_of_the_whole(nats: NatsServer):
    """`12.sub.0` is told under the name of its workflow."""
    async with scripted(nats) as journal, connect(nats.url, prefix=nats.prefix) as board:
        whole = await board.submit("stands.for.a.workflow", 1)
        part = f"{whole.id}.sub.0"

        def ledger(_subject: str, reply: str, _headers: bytes, _data: bytes) -> None:
            view = {"kind": "flow", "id": part, "state": "running", "shard": whole.shard}
            journal.connection.send(reply, json.dumps(view).encode())

        await journal.connection.sink(journal.subjects.ask_filter("status"), ledger)
        handle = await board.handle(part)
        done = Outcome(f"{part}.plan.3", 1, "s", "host", 0, 1)
        await journal.write("default", "outcome", whole.shard, done)
        await journal.write("default", "settled", whole.shard, Settled(part, 1, "succeeded"))
        assert await handle.result(10) is None
        assert not whole.done
