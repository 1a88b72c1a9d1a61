"""What the ledger reads from the journal only when somebody asks."""

from __future__ import annotations

import asyncio

from callboard_ledger.contents import Contents
from tests.room import room
from tests.servers import NatsServer


async def test_what_a_replica_does_not_have_yet_is_waited_for_and_what_was_purged_is_not(
    nats: NatsServer,
) -> None:
    async with room(nats) as here:
        contents = Contents(here.connection, here.topology)
        early = asyncio.ensure_future(contents._record(1))
        await asyncio.sleep(0)
        await here.post(b'{"payload":5}')
        found = await early
        assert found is not None
        assert found.data == b'{"payload":5}'
        await here.post(b"{}")
        await here.connection.api(f"STREAM.PURGE.{here.topology.journal}", {"seq": 2})
        async with asyncio.timeout(1):
            assert await contents._record(1) is None
