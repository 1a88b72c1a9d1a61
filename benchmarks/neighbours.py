"""Ten well-behaved agents, alone and beside each of five that do harm, on one host.

    python benchmarks/neighbours.py [--seconds 6] [--only NAME] [--json FILE]

Five inline and five process agents are given a task each every 30 ms and more, one after the other;
p99 is from the post to the result. Beside them, two handlers at a time fill the memory, fork, spin,
fill the disk or block their event loop, in child processes, again and again. Quiet is measured
before and after each of them, so that a machine whose speed drifts harms all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import spine

from callboard import Board, TaskError, connect
from callboard_agents.sandbox import available

CALM = [f"calm.{kind}.{number}" for kind in ("inline", "apart") for number in range(5)]
BAD = ("bad.memory", "bad.forks", "bad.spin", "bad.disk", "bad.blocker")
AT_ONCE = 2
PAUSE = 0.03


@dataclass
class Row:
    """One neighbour: p99 in milliseconds of the ten beside it, and of them alone before and after;
    how it ended, how often."""

    neighbour: str
    quiet_ms: float
    p99_ms: float
    tasks: int
    ends: dict[str, int]


async def calm(board: Board, seconds: float) -> list[float]:
    """The seconds that each task of the ten took."""
    took: list[float] = []
    until = time.monotonic() + seconds

    async def one(capability: str) -> None:
        while time.monotonic() < until:
            begun = time.perf_counter()
            await (await board.submit(capability, {"n": 1}, tenant="calm")).result()
            took.append(time.perf_counter() - begun)
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        for capability in CALM:
            group.create_task(one(capability))
    return took


async def harm(board: Board, capability: str, ends: Counter[str]) -> None:
    """Until cancelled: as one ends, begin the next."""
    while True:
        handle = await board.submit(capability, None, tenant="bad")
        try:
            await handle.result()
        except TaskError as error:
            ends[str(error).split(": ")[1]] += 1
        except asyncio.CancelledError:
            await handle.cancel("enough")
            raise


async def beside(board: Board, capability: str, seconds: float) -> Row:
    ends: Counter[str] = Counter()
    before = await calm(board, seconds / 2)
    doing = [asyncio.create_task(harm(board, capability, ends)) for _ in range(AT_ONCE)]
    await asyncio.sleep(0.5)
    during = await calm(board, seconds)
    for each in doing:
        each.cancel()
    await asyncio.gather(*doing, return_exceptions=True)
    await asyncio.sleep(0.5)  # the last of them has ended
    after = await calm(board, seconds / 2)
    return Row(
        capability.removeprefix("bad."),
        spine.quantiles(before + after)[1],
        spine.quantiles(during)[1],
        len(during),
        dict(ends),
    )


async def measure(url: str, seconds: float, names: Sequence[str]) -> list[Row]:
    more = {
        "CALLBOARD_BUDGETS__GLOBAL_CONCURRENCY": "100",
        "CALLBOARD_AGENTS__DISK_MB": "64",
        "CALLBOARD_AGENTS__PROCESSES": "16",
    }
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        start = ["-m", "callboard"]
        stack.enter_context(spine.process(*start, "router", "--nats", url, **more))
        stack.enter_context(spine.process(*start, "ledger", "--nats", url, "--store", folder))
        stack.enter_context(
            spine.process(*start, "agents", "run", "neighbour_agents.py", "--nats", url, **more)
        )
        async with connect(url) as board:
            await spine.started(url)
            await calm(board, 1.0)
            return [await beside(board, capability, seconds) for capability in names]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--only", choices=[name.removeprefix("bad.") for name in BAD])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    names = [f"bad.{given.only}"] if given.only else BAD
    layers = [layer for layer, reason in available().items() if not reason]
    with spine.server() as embedded:
        found: list[Row] = uvloop.run(measure(embedded.url, given.seconds, names))
    print(f"layers: {', '.join(layers)}")
    for row in found:
        ends: dict[str, Any] = row.ends
        print(
            f"{row.neighbour:<8} p99 {row.p99_ms:6.1f} ms, quiet {row.quiet_ms:6.1f} ms "
            f"({row.p99_ms / row.quiet_ms:.2f}x, {row.tasks} tasks); it ended: {ends}"
        )
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in found]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
