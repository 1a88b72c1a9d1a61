"""Callboard's spine beside raw publishing and a bare chain of the same shape, in one run.

    python benchmarks/spine.py [--tasks 10000] [--rounds 3] [--json FILE]

Each round runs the three side by side, one after the other, each on a fresh nats-server, so that a
machine whose speed drifts harms all alike; the medians are quoted. Every part of Callboard is a
process of its own: router, ledger (with audit), one agent host; the poster is this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import nats
import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import bare_chain

from callboard import Board, Workflow, connect
from callboard_broker.connection import open_link
from callboard_broker.errors import StreamMissing
from callboard_broker.server import EmbeddedServer, ServerOptions
from callboard_broker.streams import last_sequence

HERE = Path(__file__).parent
OUTSTANDING = 1000


@contextmanager
def server() -> Iterator[EmbeddedServer]:
    with tempfile.TemporaryDirectory(prefix="callboard-bench-") as folder:
        embedded = EmbeddedServer(ServerOptions(store=Path(folder) / "store"))
        with embedded:
            yield embedded


@contextmanager
def process(*argv: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=HERE,
        env={**os.environ, **settings},
    )
    try:
        yield child
    finally:
        child.terminate()
        child.wait(20)


async def raw_publish(url: str, messages: int) -> float:
    """Messages per second of nats-py's pipelined `publish_async`, 300 bytes each."""
    nc = await nats.connect(url)
    js = nc.jetstream(publish_async_max_pending=4000)
    await js.add_stream(name="RAW", subjects=["raw.>"])
    begun = time.perf_counter()
    for _ in range(messages):
        await js.publish_async("raw.x", b"x" * 300)
    await js.publish_async_completed()
    rate = messages / (time.perf_counter() - begun)
    await nc.close()
    return rate


async def chain(url: str, tasks: int) -> tuple[float, float, float]:
    """(tasks/s with 1,000 outstanding, p50 ms and p99 ms with one in flight)."""
    await bare_chain.create(url)
    with ExitStack() as stack:
        for role in ("router", "agent", "ledger"):
            child = stack.enter_context(process("bare_chain.py", role, url))
            if child.stdout is None or child.stdout.readline() != "ready\n":
                raise RuntimeError(f"{role} did not start")
        await bare_chain.post(url, tasks // 5, OUTSTANDING)
        seconds, _ = await bare_chain.post(url, tasks, OUTSTANDING)
        _, took = await bare_chain.post(url, 500, 1)
    return tasks / seconds, *quantiles(took)


async def started(url: str) -> None:
    """Wait until the router has made the streams and the host is heard."""
    async with open_link(url, name="benchmark") as connection:
        while True:
            try:
                beats, _ = await last_sequence(connection, "BEATS")
                info = await connection.api("STREAM.INFO.JOURNAL")
            except StreamMissing:
                await asyncio.sleep(0.05)
                continue
            if beats and info["state"]["consumer_count"] > 3:
                return
            await asyncio.sleep(0.05)


async def throughput(board: Board, tasks: int, outstanding: int) -> float:
    """Tasks per second, each posted, run and its result back at the poster."""
    numbers = iter(range(tasks))

    async def poster() -> None:
        for number in numbers:
            handle = await board.submit("bench.noop", {"n": number})
            if await handle.result() != {"n": number}:
                raise AssertionError(number)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(outstanding):
            group.create_task(poster())
    return tasks / (time.perf_counter() - begun)


async def latencies(board: Board, tasks: int) -> list[float]:
    took = []
    for number in range(tasks):
        begun = time.perf_counter()
        await (await board.submit("bench.noop", {"n": number})).result()
        took.append(time.perf_counter() - begun)
    return took


async def joins(board: Board, rounds: int) -> list[float]:
    """A fan-out of ten and a join as a workflow of twelve tasks, posted and awaited."""
    flow = Workflow("bench")
    wide = flow.step("wide", "bench.noop", {"n": flow.item}, each=flow.inputs["items"])
    flow.step("join", "bench.join", {"items": wide})
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        run = await board.run(flow, {"items": list(range(10))})
        if await run.result() != {"join": 10}:
            raise AssertionError(run.id)
        took.append(time.perf_counter() - begun)
    return took


async def callboard(embedded: EmbeddedServer, tasks: int, budget: int | None) -> dict[str, Any]:
    """Run the spine. budget: global and tenant concurrency; None keeps the default."""
    url = embedded.url
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        more = {} if budget is None else {"CALLBOARD_BUDGETS__GLOBAL_CONCURRENCY": str(budget)}
        children = {
            "router": stack.enter_context(
                process("-m", "callboard", "router", "--nats", url, **more)
            ),
            "ledger": stack.enter_context(
                process("-m", "callboard", "ledger", "--nats", url, "--store", folder)
            ),
            "host": stack.enter_context(
                process("-m", "callboard", "agents", "run", "noop_agents.py", "--nats", url)
            ),
        }
        async with connect(url) as board:
            await started(url)
            await throughput(board, tasks // 5, OUTSTANDING)
            found["tasks_per_s"] = await throughput(board, tasks, OUTSTANDING)
            if budget is not None:
                found["p50_ms"], found["p99_ms"] = quantiles(await latencies(board, 500))
                found["join_ms"], found["join_p99_ms"] = quantiles(await joins(board, 100))
            begun = time.perf_counter()
            where = json.loads(await board.ask("position", {}, tenant="all"))
            while where["position"] < where["last"]:
                where = json.loads(await board.ask("position", {}, tenant="all"))
            found["ledger_behind_s"] = time.perf_counter() - begun
        if budget is not None:
            found["rss_mb"] = {
                name: round(psutil.Process(child.pid).memory_info().rss / 2**20)
                for name, child in children.items()
            }
            found["rss_mb"]["server"] = round(
                psutil.Process(embedded.pid).memory_info().rss / 2**20
            )
    return found


def quantiles(took: list[float]) -> tuple[float, float]:
    """(p50, p99) in milliseconds."""
    took = sorted(took)
    return took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000


def one_round(tasks: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with server() as embedded:
        found["raw_per_s"] = uvloop.run(raw_publish(embedded.url, 50_000))
    with server() as embedded:
        rate, p50, p99 = uvloop.run(chain(embedded.url, tasks))
        found["bare"] = {"tasks_per_s": rate, "p50_ms": p50, "p99_ms": p99}
    with server() as embedded:
        found["callboard"] = uvloop.run(callboard(embedded, tasks, 2 * OUTSTANDING))
    with server() as embedded:
        found["default_budget"] = uvloop.run(callboard(embedded, tasks, None))
    return found


def show(rounds: list[dict[str, Any]]) -> None:
    def median(*path: str) -> float:
        values = []
        for found in rounds:
            value: Any = found
            for name in path:
                value = value[name]
            values.append(value)
        return statistics.median(values)

    raw, bare = median("raw_per_s"), median("bare", "tasks_per_s")
    ours = median("callboard", "tasks_per_s")
    print(f"Python {platform.python_version()}, {psutil.cpu_count()} CPUs, {len(rounds)} rounds")
    print(f"raw publish_async          {raw:10,.0f} messages/s")
    print(f"bare chain, 1,000 at once  {bare:10,.0f} tasks/s")
    print(
        f"callboard, 1,000 at once   {ours:10,.0f} tasks/s  "
        f"{ours / bare:.2f} of the bare chain, {ours / raw:.3f} of raw publishing"
    )
    print(f"callboard, default budget  {median('default_budget', 'tasks_per_s'):10,.0f} tasks/s")
    for name, where in (("bare chain", "bare"), ("callboard", "callboard")):
        print(
            f"{name}, one in flight: p50 {median(where, 'p50_ms'):.2f} ms, "
            f"p99 {median(where, 'p99_ms'):.2f} ms"
        )
    print(
        f"fan-out of 10 and join: p50 {median('callboard', 'join_ms'):.1f} ms, "
        f"p99 {median('callboard', 'join_p99_ms'):.1f} ms"
    )
    print(f"ledger behind at the end: {median('callboard', 'ledger_behind_s'):.2f} s")
    for name in rounds[-1]["callboard"]["rss_mb"]:
        print(f"RSS {name}: {median('callboard', 'rss_mb', name):.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rounds = [one_round(given.tasks) for _ in range(given.rounds)]
    show(rounds)
    if given.json:
        given.json.write_text(json.dumps(rounds, indent=2))


if __name__ == "__main__":
    main()
