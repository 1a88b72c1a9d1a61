"""Parts of a result at the poster: none is missed that comes before the post has its name."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import msgspec

from callboard import connect
from callboard_broker.connection import open_link
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Outcome, encode
from tests.scripted_router import scripted
from tests.servers import NatsServer


class Host(threading.Thread):
    """Hears the next post of `speak` and says what `said` makes of its shard, from elsewhere."""

    def __init__(self, nats: NatsServer, said: Callable[[int], list[bytes]]) -> None:
        super().__init__(daemon=True)
        self.ready, self.spoken = threading.Event(), threading.Event()
        self._nats = nats
        self._said = said

    def run(self) -> None:
        """Until it has spoken."""
        asyncio.run(self._speak())

    async def _speak(self) -> None:
        subjects = Subjects(self._nats.prefix)
        heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def hear(_subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
            heard.set_result(msgspec.json.decode(data)["shard"])

        async with open_link(self._nats.url, name="host") as connection:
            await connection.sink(subjects.task("default", "speak"), hear)
            self.ready.set()
            shard = await heard
            for news in self._said(shard):
                connection.send(subjects.news("default", shard), news)
            await connection.link.round_trip()
            self.spoken.set()


def three_parts(_shard: int) -> list[bytes]:
    """Of task 2, the second post of an empty journal; and what is of no interest to its poster."""
    parts = [
        {"task": "2", "attempt": 1, "number": number, "output": output}
        for number, output in enumerate(("a", None, [3]), 1)
    ]
    progress = {"task": "2", "attempt": 1, "progress": 0.5}
    other = {"task": "3", "attempt": 1, "number": 1, "output": "no"}
    return [*map(encode, (*parts, progress, other)), b"no json"]


def be_late(turns: int, until: threading.Event) -> None:
    """After so many turns, read nothing from any socket before that has happened."""
    if turns:
        asyncio.get_running_loop().call_soon(be_late, turns - 1, until)
    else:
        assert until.wait(10)


async def test_what_is_said_before_the_acknowledgement_is_read_is_heard(nats: NatsServer):
    async with scripted(nats) as journal, connect(nats.url, prefix=nats.prefix) as board:
        host = Host(nats, three_parts)
        host.start()
        await asyncio.to_thread(host.ready.wait, 10)
        await board.listen()
        assert (await board.submit("warm.up")).id == "1"
        be_late(3, host.spoken)  # the post is sent by then, and its acknowledgement not yet read
        handle = await board.submit("speak")
        assert handle.id == "2"
        done = Outcome("2", 1, "s", "h", 0, 1, msgspec.Raw(b'"all"'))
        ending = asyncio.create_task(journal.write("default", "outcome", handle.shard, done))
        seen = [update async for update in handle]
        await ending
        found = [update.chunk for update in seen if update.chunk is not None]
        assert [update.progress for update in seen if update.progress is not None] == [0.5]
        assert [(chunk.number, chunk.value) for chunk in found] == [(1, "a"), (2, None), (3, [3])]
        assert await handle.result(10) == "all"
        assert [chunk async for chunk in handle.output()] == [], "the first has had them"
        host.join(10)
