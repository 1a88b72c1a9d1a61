"""What isolation costs: handlers inline beside handlers in child processes, on one board, in a run.

    python benchmarks/isolation.py [--tasks 2000] [--rounds 3] [--json FILE]

Router, ledger and one agent host are processes of their own; every layer of isolation that this
machine offers is active. Kept children run further tasks of their tenant: they have every layer but
`fresh`. Rounds alternate between the kinds; medians are printed. One task in flight is measured
with a pause between two, so that a prepared child waits, and back to back: at the poster, and of
the first also at the host, from the task given to the child to its result read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent))
import spine

from callboard import Board, connect
from callboard_agents.sandbox import available

PAUSE = 0.01  # seconds: time enough for a child to be made
FIGURES = ("p50_ms", "p99_ms", "child_ms", "busy_p50_ms", "busy_p99_ms", "tasks_per_s")
KINDS = {
    "inline": "bench.noop",
    "process": "bench.apart",
    "process, async": "bench.apart.async",
    "process, kept": "bench.apart.kept",
}


async def one_at_a_time(
    board: Board, capability: str, tasks: int, pause: float
) -> tuple[tuple[float, float], list[str]]:
    """(p50, p99) in milliseconds from the post to the result at the poster, and the tasks. pause:
    seconds between a result and the next post, in which the next child is made; 0: back to back,
    where it may not be ready yet."""
    took, ids = [], []
    for number in range(tasks):
        begun = time.perf_counter()
        handle = await board.submit(capability, {"n": number})
        await handle.result()
        took.append(time.perf_counter() - begun)
        ids.append(handle.id)
        await asyncio.sleep(pause)
    return spine.quantiles(took), ids


async def in_its_child(board: Board, ids: list[str]) -> float:
    """The median of the milliseconds from a task given to its child to the result at the host, as
    the outcomes say; 0 for inline handlers."""
    told = [json.loads(await board.ask("status", {"id": each})).get("usage") for each in ids]
    return statistics.median([0.0 if used is None else used["wall_s"] * 1000 for used in told])


async def rate(board: Board, capability: str, tasks: int, outstanding: int) -> float:
    """Tasks a second."""
    numbers = iter(range(tasks))

    async def poster() -> None:
        for number in numbers:
            await (await board.submit(capability, {"n": number})).result()

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(outstanding):
            group.create_task(poster())
    return tasks / (time.perf_counter() - begun)


async def measure(url: str, tasks: int, rounds: int) -> dict[str, dict[str, float]]:
    more = {
        "CALLBOARD_BUDGETS__GLOBAL_CONCURRENCY": "1000",
        "CALLBOARD_AGENTS__SPARES": "16",
    }
    found: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        start = ["-m", "callboard"]
        stack.enter_context(spine.process(*start, "router", "--nats", url, **more))
        stack.enter_context(spine.process(*start, "ledger", "--nats", url, "--store", folder))
        stack.enter_context(
            spine.process(*start, "agents", "run", "noop_agents.py", "--nats", url, **more)
        )
        async with connect(url) as board:
            await spine.started(url)
            for capability in KINDS.values():
                await rate(board, capability, 200, 20)
            for _ in range(rounds):
                for kind, capability in KINDS.items():
                    paused, ids = await one_at_a_time(board, capability, 300, PAUSE)
                    child = await in_its_child(board, ids)
                    at_once, _ = await one_at_a_time(board, capability, 300, 0)
                    per_s = await rate(board, capability, tasks, 100)
                    found[kind].append((*paused, child, *at_once, per_s))
    return {
        kind: dict(
            zip(
                FIGURES,
                map(statistics.median, zip(*rows, strict=True)),
                strict=True,
            )
        )
        for kind, rows in found.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    layers = [layer for layer, reason in available().items() if not reason]
    with spine.server() as embedded:
        found: dict[str, Any] = uvloop.run(measure(embedded.url, given.tasks, given.rounds))
    print(f"layers: {', '.join(layers)}")
    for kind, row in found.items():
        print(
            f"{kind:<15} one in flight p50 {row['p50_ms']:6.2f} ms, p99 {row['p99_ms']:6.2f} ms; "
            f"back to back {row['busy_p50_ms']:6.2f}, {row['busy_p99_ms']:6.2f} ms; "
            f"100 outstanding {row['tasks_per_s']:7,.0f} tasks/s"
        )
    for kind in list(found)[1:]:
        added = found[kind]["p50_ms"] - found["inline"]["p50_ms"]
        busy = found[kind]["busy_p50_ms"] - found["inline"]["busy_p50_ms"]
        print(
            f"{kind}: dispatch to result in its child {found[kind]['child_ms']:.2f} ms at the "
            f"median (asked: under 1); at the poster it adds {added:.2f} ms to inline, {busy:.2f} "
            "back to back"
        )
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
