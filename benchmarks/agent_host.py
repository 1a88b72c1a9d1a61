"""Dispatches to outcomes through one agent host with a handler that does nothing.

`python benchmarks/agent_host.py [TASKS] [AT_ONCE]`: this process plays the router and the poster
(it writes the dispatches, keeps AT_ONCE of them unfinished, and reads the journal), the host is a
process of its own, on an embedded server with file storage. Prints tasks per second, the latency
from the dispatch's writing to the reading of its outcome, and the CPU time per task of each.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import uvloop

from callboard_agents import agent
from callboard_broker import child
from callboard_broker.connection import Connection, open_link
from callboard_broker.publisher import Publisher
from callboard_broker.pull import ensure_durable
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.server import EmbeddedServer, ServerOptions
from callboard_broker.streams import Topology, ensure_streams, last_sequence
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Dispatch, decode_beat, encode

SECRET = "0123456789abcdef"  # noqa: S105  of a benchmark


@agent("noop", slots=1_000)
async def noop(payload: dict[str, int]) -> dict[str, int]:
    """Return what came."""
    return payload


@agent("noop.thread", slots=4)
def noop_in_thread(payload: dict[str, int]) -> dict[str, int]:
    """Return what came."""
    return payload


class Load:
    """Keeps `at_once` dispatches unfinished until `total` outcomes have been read."""

    def __init__(
        self, connection: Connection, publisher: Publisher, subject: str, numbers: Iterator[int]
    ) -> None:
        self.connection = connection
        self.publisher = publisher
        self.subject = subject
        self.begun: dict[str, float] = {}
        self.latencies: list[float] = []
        self.left = 0
        self.numbers = numbers
        self.finished = asyncio.Event()

    def write(self, count: int) -> None:
        """Write `count` dispatches, as far as any are left."""
        start_by = self.connection.server_now_ms() + 60_000
        now = time.perf_counter()
        for _ in range(min(count, self.left)):
            self.left -= 1
            task = str(next(self.numbers))
            self.begun[task] = now
            dispatch = Dispatch(
                task, 1, SECRET, 1, 7, start_by, 20.0, payload=msgspec.Raw(b'{"n":1}')
            )
            self.publisher.publish(self.subject, encode(dispatch))

    def read(self, records: list[Record]) -> None:
        """Take the outcomes, and write as many dispatches again."""
        now = time.perf_counter()
        over = 0
        for record in records:
            if ".outcome." in record.subject:
                task = msgspec.json.decode(record.data, type=Task).task
                self.latencies.append(now - self.begun.pop(task))
                over += 1
        self.write(over)
        if not self.begun and not self.left:
            self.finished.set()

    async def run(self, total: int, at_once: int) -> float:
        """Return the seconds that `total` tasks took."""
        self.latencies.clear()
        self.finished.clear()
        self.left = total
        begun = time.perf_counter()
        self.write(at_once)
        await self.finished.wait()
        return time.perf_counter() - begun


class Task(msgspec.Struct):
    """Which task an outcome is of."""

    task: str


async def measure(url: str, server: psutil.Process, total: int, at_once: int) -> None:
    """Start the host, warm it up, measure, and print."""
    topology = Topology(Subjects())
    command = [sys.executable, "-m", "callboard_agents", __file__, f"--url={url}", "--name=bench"]
    async with open_link(url, name="bench") as connection, Publisher(connection) as publisher:
        await ensure_streams(connection, topology)
        for capability in ("noop", "noop.thread"):
            await ensure_durable(connection, topology, "shared", capability, 1)
        alive = asyncio.Event()
        numbers = itertools.count(1)

        def beaten(records: list[Record]) -> None:
            if any(offer.free for record in records for offer in decode_beat(record.data).offers):
                alive.set()

        process = child.start(command)
        host, own = psutil.Process(process.pid), psutil.Process()
        try:
            async with Reader(connection, topology.beats, start=1, callback=beaten):
                await alive.wait()
            for capability, share in (("noop", 1), ("noop.thread", 4)):
                subject = topology.subjects.dispatch("acme", "shared", capability)
                load = Load(connection, publisher, subject, numbers)
                start, _ = await last_sequence(connection, topology.journal)
                async with Reader(
                    connection, topology.journal, start=start + 1, callback=load.read
                ):
                    await load.run(max(total // share // 5, at_once), at_once)
                    before = [cpu(each) for each in (host, server, own)]
                    seconds = await load.run(total // share, at_once)
                    used = [
                        cpu(each) - then
                        for each, then in zip((host, server, own), before, strict=True)
                    ]
                    report(capability, total // share, seconds, load.latencies, used)
                    single = min(total // share, 1_000)
                    await load.run(single, 1)
                    report(f"{capability}, one in flight", single, 0, load.latencies, [])
        finally:
            child.stop(process)


def cpu(process: psutil.Process) -> float:
    """Seconds of CPU time that a process has used."""
    times = process.cpu_times()
    return float(times.user + times.system)


def report(
    what: str, total: int, seconds: float, latencies: list[float], used: list[float]
) -> None:
    """Print one line of figures."""
    cuts = statistics.quantiles(latencies, n=100)
    line = f"{what:28} p50 {cuts[49] * 1e3:7.2f} ms  p99 {cuts[98] * 1e3:7.2f} ms"
    if used:
        host, server, own = (value / total * 1e6 for value in used)
        line += f"  {total / seconds:8,.0f}/s  CPU us/task: host {host:.0f}, "
        line += f"server {server:.0f}, load {own:.0f}"
    print(line)


def main() -> None:
    """Run the benchmark on a server of its own."""
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    at_once = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with (
        tempfile.TemporaryDirectory() as store,
        EmbeddedServer(ServerOptions(store=Path(store) / "nats")) as server,
    ):
        uvloop.run(measure(server.url, psutil.Process(server.pid), total, at_once))


if __name__ == "__main__":
    main()
