"""The memory of one agent host: idle, with a thousand attempts in flight, and over many tasks.

    python benchmarks/memory.py [--tasks 100000] [--json FILE]

The host is a process of its own beside a real router and ledger; what is printed is its resident
set (what the kernel counts, shared libraries included), in MiB. A host remembers the attempts that
it has seen for as long as they could be delivered again, so its memory levels off after a while at
full speed; growth is measured from there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import spine

from callboard import Board, connect

IN_FLIGHT = 1000
IDLE_MB, IN_FLIGHT_MB = 60, 150


def resident_mb(pid: int) -> float:
    rss: int = psutil.Process(pid).memory_info().rss
    return round(rss / 2**20, 1)


async def in_flight(board: Board, pid: int) -> float:
    """What the host has while so many attempts are held by it."""
    handles = [await board.submit("bench.hold", {"n": number}) for number in range(IN_FLIGHT)]
    while await (await board.submit("bench.held")).result() < IN_FLIGHT:  # noqa: ASYNC110  polled
        await asyncio.sleep(0.1)
    found = resident_mb(pid)
    await (await board.submit("bench.release")).result()
    for handle in handles:
        await handle.result()
    return found


async def measure(url: str, tasks: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    more = {
        "CALLBOARD_BUDGETS__GLOBAL_CONCURRENCY": "4000",
        "CALLBOARD_BUDGETS__TENANT_CONCURRENCY": "4000",
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        start = ["-m", "callboard"]
        stack.enter_context(spine.process(*start, "router", "--nats", url, **more))
        stack.enter_context(spine.process(*start, "ledger", "--nats", url, "--store", folder))
        host = stack.enter_context(
            spine.process(*start, "agents", "run", "noop_agents.py", "--nats", url)
        )
        async with connect(url) as board:
            await spine.started(url)
            await asyncio.sleep(3)  # beats and leases as when nothing is to do
            found["idle"] = resident_mb(host.pid)
            found["in_flight"] = await in_flight(board, host.pid)
            found["over_tasks"] = {}
            for done in range(tasks // 2, 2 * tasks + 1, tasks // 2):
                await spine.throughput(board, tasks // 2, spine.OUTSTANDING)
                found["over_tasks"][done] = resident_mb(host.pid)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--tasks",
        type=int,
        default=100_000,
        help="over so many no growth is measured, after as many that fill what is remembered",
    )
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with spine.server() as embedded:
        found = uvloop.run(measure(embedded.url, given.tasks))
    over = found["over_tasks"]
    grown = over[2 * given.tasks] - over[given.tasks]
    print(f"idle                    {found['idle']:6.1f} MiB  (asked: under {IDLE_MB})")
    print(f"{IN_FLIGHT:,} in flight         {found['in_flight']:6.1f} MiB  (under {IN_FLIGHT_MB})")
    for done, size in found["over_tasks"].items():
        print(f"after {done:7,} tasks     {size:6.1f} MiB")
    print(f"growth in the second {given.tasks:,}  {grown:.1f} MiB")
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0 if found["idle"] < IDLE_MB and found["in_flight"] < IN_FLIGHT_MB else 1


if __name__ == "__main__":
    sys.exit(main())
