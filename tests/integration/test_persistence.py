"""A router starts from a snapshot, and what nobody needs any more leaves the journal."""

from __future__ import annotations

import asyncio
import os

import msgspec
import pytest

from callboard_broker.direct import get_last, get_message
from callboard_broker.wire import Dispatch, Epoch, decode_event
from callboard_router.purge import Needed, purge
from callboard_router.snapshot import digest
from callboard_router.start import JournalCut, starting_state
from callboard_router.state import FOLD_VERSION
from tests.room import room
from tests.servers import NatsServer

pytestmark = pytest.mark.timeout(180)

LONG = b'{"payload":"' + b"x" * 5000 + b'"}'
SLOW = pytest.mark.skipif(not os.environ.get("CALLBOARD_SLOW"), reason="set CALLBOARD_SLOW=1")


@pytest.mark.parametrize(
    "count", [1000, pytest.param(200_000, marks=[pytest.mark.slow, SLOW], id="200000")]
)
async def test_a_start_from_a_snapshot_takes_less_than_two_seconds(nats: NatsServer, count: int):
    async with room(nats) as here:
        await here.finished_tasks(count)
        kept = await here.post(LONG)
        async with here.router("a") as replayed:
            snapshot = await here.snapshot()
        async with here.router("b") as seconds:
            await here.be_host()
            await here.until(lambda _: True)
        print(f"{count} finished tasks: replay {replayed:.2f} s, from the snapshot {seconds:.2f} s")
        assert snapshot.seq > 3 * count
        assert seconds < 2
        state = await starting_state(here.connection, here.topology, here.blobs)
        assert state is not None
        assert state.seq >= snapshot.seq
        assert [*state.tasks] == [str(kept)]


async def test_after_a_purge_a_router_still_knows_and_dispatches_what_waits(nats: NatsServer):
    async with room(nats) as here:
        await here.finished_tasks(200)
        kept = await here.post(LONG)
        await here.finished_tasks(200)
        here.saved = 9**9
        await here.be_ledger()
        async with here.router("a"):
            assert await here.until(lambda first: first > 1) == kept
        async with here.router("b"):
            await here.be_host()
            subject = here.topology.subjects.dispatch("acme", "shared", "work")
            async with asyncio.timeout(30):
                while True:
                    record = await get_last(here.connection, here.topology.journal, subject)
                    event = decode_event("dispatch", record.data)
                    if isinstance(event, Dispatch) and event.task == str(kept):
                        break
                    await here.be_host()
                    await asyncio.sleep(0.1)  # it has to take over first
            assert event.post == kept
        assert (await get_message(here.connection, here.topology.journal, kept)).data == LONG


async def test_nothing_is_purged_that_the_ledger_has_not_saved(nats: NatsServer):
    async with room(nats) as here:
        await here.finished_tasks(500)
        here.saved = 400
        await here.be_ledger()
        async with here.router("a"):
            assert await here.until(lambda first: first > 1) == 401
            here.saved = 600
            assert await here.until(lambda first: first > 401) == 601


async def test_nothing_is_purged_while_no_ledger_answers(nats: NatsServer):
    async with room(nats) as here:
        await here.finished_tasks(400)
        needed = Needed(floor=1000, snapshot=1000, epoch=1000)
        assert await purge(here.connection, here.topology, needed, retention_days=0) == 0
        here.saved = 9**9
        await here.be_ledger()
        assert await purge(here.connection, here.topology, needed, retention_days=1) == 0
        assert await here.first() == 1
        assert await purge(here.connection, here.topology, needed, retention_days=0) == 999
        assert await here.first() == 1000
        early = Needed(floor=2000, snapshot=2000, epoch=1100)
        await purge(here.connection, here.topology, early, retention_days=0)
        assert await here.first() == 1100


async def test_a_new_snapshot_takes_the_place_of_the_old_one(nats: NatsServer):
    async with room(nats) as here:
        await here.finished_tasks(400)
        async with here.router("a", snapshot_seconds=0.1):
            first = await here.snapshot()
            assert await here.has(first.blob)
            for _ in range(1100):
                here.publisher.publish(here.topology.subjects.task("acme", "work"), b"{}")
            second = await here.snapshot(beyond=first.seq)
            async with asyncio.timeout(20):
                while await here.has(first.blob):  # noqa: ASYNC110  a purge tells nobody
                    await asyncio.sleep(0.05)
            assert await here.has(second.blob)


@pytest.mark.parametrize("fault", ["another fold", "another digest", "no blob"])
async def test_a_snapshot_that_cannot_be_used_is_passed_over(nats: NatsServer, fault: str):
    async with room(nats) as here:
        await here.finished_tasks(400)
        async with here.router("a"):
            good = await here.snapshot()
        state = await starting_state(here.connection, here.topology, here.blobs)
        assert state is not None
        assert digest(state) == good.digest
        replace = msgspec.structs.replace
        blob = replace(good.blob, name="0" * 64 + "-262144", digest="0" * 64)
        bad = {
            "another fold": replace(good, fold=FOLD_VERSION + 1),
            "another digest": replace(good, digest="0" * 64),
            "no blob": replace(good, blob=blob),
        }[fault]
        await here.put(here.topology.subjects.epoch, Epoch("x#1", FOLD_VERSION, bad))
        assert await starting_state(here.connection, here.topology, here.blobs) is None
        async with here.router("b"):  # it folds the whole journal, and takes a new one
            again = await here.snapshot(beyond=good.seq)
        assert again.fold == FOLD_VERSION
        await here.put(here.topology.subjects.epoch, Epoch("x#2", FOLD_VERSION, bad))
        await here.connection.api(f"STREAM.PURGE.{here.topology.journal}", {"seq": 100})
        with pytest.raises(JournalCut, match="begins at 100") as cut:
            async with here.router("c"):
                pass
        assert cut.value.first == 100
