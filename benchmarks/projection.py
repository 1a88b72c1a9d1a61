"""100,000 tasks, over 300,000 events, from a journal into Postgres (or Supabase's protocol).

    python benchmarks/projection.py [--tasks 100000] [--supabase] [--away SECONDS]

A real nats-server, a real Postgres from its wheel, and `callboard projector` as a process of its
own. Prints events a second, the projector's resident set while it catches up, the CPU time of an
event, and with --away what an outage of the database leaves behind and how long that takes. The
Supabase-compatible server is an npm package that the tests install (`tests/databases.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent))

from callboard_broker.bookmarks import read_bookmarks
from callboard_broker.connection import Connection, open_link
from callboard_broker.publisher import Publisher
from callboard_broker.server import EmbeddedServer, ServerOptions
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Dispatch, Epoch, Outcome, Post, encode
from callboard_ledger.projection.postgres import migrate
from tests.databases import Database, Supabase, open_postgres, open_supabase

_SUBJECTS = Subjects()
_AT_ONCE = 1000
_LOOK_SECONDS = 0.5


async def write_journal(link: Connection, tasks: int) -> int:
    """Post, dispatch and end so many tasks; return the last sequence."""
    payload = msgspec.Raw(msgspec.json.encode({"file": "a.py", "text": "x" * 150}))
    result = msgspec.Raw(msgspec.json.encode({"findings": [], "note": "y" * 100}))
    seq = 1
    async with Publisher(link) as publisher:
        publisher.publish(_SUBJECTS.epoch, encode(Epoch("bench", 1)))
        await publisher.settled()
        now = int(time.time() * 1000)
        for start in range(0, tasks, _AT_ONCE):
            count = min(_AT_ONCE, tasks - start)
            tenants = [f"tenant-{number % 20}" for number in range(count)]
            for tenant in tenants:
                post = encode(Post(payload=payload))
                publisher.publish(_SUBJECTS.task(tenant, "review.python"), post)
            for number, tenant in enumerate(tenants):
                task = str(seq + 1 + number)
                dispatch = Dispatch(task, 1, f"secret-{task}", 1, 7, 0, 20.0, payload=payload)
                subject = _SUBJECTS.dispatch(tenant, "shared", "review.python")
                publisher.publish(subject, encode(dispatch))
            for number, tenant in enumerate(tenants):
                task = str(seq + 1 + number)
                host = f"host-{number % 8}"
                ended = Outcome(task, 1, f"secret-{task}", host, now, now + 40, result=result)
                publisher.publish(_SUBJECTS.run(tenant, "outcome", 7), encode(ended))
            await publisher.settled()
            seq += 3 * count
    return seq


@asynccontextmanager
async def projector(url: str, place: dict[str, str]) -> AsyncIterator[psutil.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "callboard", "projector"),
        env={**os.environ, "CALLBOARD_NATS_URL": url, **place},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield psutil.Process(process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def until(link: Connection, last: int, watched: psutil.Process) -> list[tuple[int, float]]:
    """Until so much is written; (position, resident MiB) every half second."""
    seen: list[tuple[int, float]] = []
    while True:
        marks = await read_bookmarks(link, Topology())
        position = max((mark.position for mark in marks), default=0)
        seen.append((position, watched.memory_info().rss / 2**20))
        if position >= last:
            return seen
        await asyncio.sleep(_LOOK_SECONDS)


async def measure(database: Database, project: Supabase | None, tasks: int, away: float) -> None:
    place = {"CALLBOARD_PROJECTION__TO": database.url}
    if project is not None:
        place = {
            "CALLBOARD_PROJECTION__TO": "supabase",
            "CALLBOARD_SUPABASE_URL": project.url,
            "CALLBOARD_SUPABASE_KEY": project.key,
        }
    with (
        tempfile.TemporaryDirectory() as store,
        EmbeddedServer(ServerOptions(store=Path(store))) as server,
    ):
        async with open_link(server.url, name="bench") as link:
            await ensure_streams(link, Topology())
            last = await write_journal(link, tasks)
            print(f"{tasks} tasks, {last} events; to {'Supabase' if project else 'Postgres'}")
            async with projector(server.url, place) as process:
                began = time.perf_counter()
                seen = await until(link, last, process)
                took = time.perf_counter() - began
                cpu = sum(process.cpu_times()[:2])
                print(f"written in {took:.1f} s: {last / took:,.0f} events/s, start included")
                print(f"CPU of the projector: {1e6 * cpu / last:.0f} us an event")
                backends = psutil.Process(database.server.pid).children()
                cpu = sum(sum(backend.cpu_times()[:2]) for backend in backends)
                print(f"CPU of Postgres: {1e6 * cpu / last:.0f} us an event")
                _show_memory(seen)
                if away:
                    await outage(link, database, project, process, away)
            counts = database.run("select count(*), count(distinct seq) from callboard_events")
            ended = database.run("select count(*) from callboard_tasks where state = 'succeeded'")
            print("events in the table, distinct:", counts[0], "tasks that succeeded:", ended[0][0])


def _show_memory(seen: list[tuple[int, float]]) -> None:
    marks = [seen[len(seen) * part // 5] for part in range(1, 5)] + [seen[-1]]
    print("resident MiB at event:", ", ".join(f"{mib:.0f} at {at:,}" for at, mib in marks))


async def outage(
    link: Connection,
    database: Database,
    project: Supabase | None,
    process: psutil.Process,
    seconds: float,
) -> None:
    """Stop the database (or the server before it) while 1,000 tasks a second arrive."""
    if project is None:
        database.server.stop()
    else:
        project.kill()
    began = time.perf_counter()
    subjects, posted = Subjects(), 0
    async with Publisher(link) as publisher:
        while time.perf_counter() - began < seconds:
            for _ in range(100):
                publisher.publish(subjects.task("acme", "late"), encode(Post()))
            posted += 100
            await publisher.settled()
            await asyncio.sleep(0.1)
    info = await link.api("STREAM.INFO.JOURNAL")
    last = int(info["state"]["last_seq"])
    (mark,) = await read_bookmarks(link, Topology())
    print(f"away for {seconds:g} s: {last - mark.position:,} events behind ({mark.problem})")
    if project is None:
        database.server.start()
    else:
        project.start()
    began = time.perf_counter()
    seen = await until(link, last, process)
    print(
        f"written {time.perf_counter() - began:.1f} s after it is back, retries included;", end=" "
    )
    print(f"resident {seen[-1][1]:.0f} MiB; posted meanwhile: {posted:,}, in the table:", end=" ")
    print(database.run("select count(*) from callboard_tasks where capability = 'late'")[0][0])


@contextmanager
def _project(database: Database, *, wanted: bool) -> Iterator[Supabase | None]:
    if not wanted:
        asyncio.run(migrate(database.url))
        yield None
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        open_supabase(Path(folder), database, lambda: asyncio.run(migrate(database.url))) as found,
    ):
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--supabase", action="store_true")
    parser.add_argument("--away", type=float, default=0.0, metavar="SECONDS")
    given = parser.parse_args()
    with open_postgres() as server:
        database = server.database()
        with _project(database, wanted=given.supabase) as project:
            uvloop.run(measure(database, project, given.tasks, given.away))
    print(f"this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
