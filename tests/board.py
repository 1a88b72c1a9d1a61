"""A whole board for a test: routers, a ledger and agent hosts, each a process of its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import callboard.testing
from callboard.testing import read_journal
from callboard_broker.record import Record
from tests.servers import NatsServer

__all__ = ["Processes", "check_history", "read_journal", "started_processes"]

HERE = Path(__file__).parent
NO_LIMIT = 10**9


class Processes(callboard.testing.Processes):
    """Processes whose agents write what they do into a table, outside of the board."""

    def __init__(self, nats: NatsServer, folder: Path, environment: Mapping[str, str]) -> None:
        self.table = folder / "table"
        self.table.touch()
        marking = {"MARKING_TABLE": str(self.table), "PYTHONPATH": str(HERE.parent)}
        super().__init__(nats, folder, cwd=HERE, environment=marking | dict(environment))

    def host(self, name: str, *places: str) -> None:
        super().host(name, *(places or ("marking_agents.py",)))


@contextmanager
def started_processes(nats: NatsServer, folder: Path, **settings: object) -> Iterator[Processes]:
    """Stop every process at the end. settings: `CALLBOARD_*` without that prefix."""
    environment = {f"CALLBOARD_{name}": str(value) for name, value in settings.items()}
    processes = Processes(nats, folder, environment)
    try:
        yield processes
    finally:
        processes.stop()


def check_history(  # noqa: PLR0912, PLR0915  one pass over the journal, read from top to bottom
    records: list[Record], table: Path
) -> dict[str, Any]:
    """Check the invariants from the journal and the outside table, with a rule of its own.

    Every task ends exactly once, no attempt starts twice, attempt n+1 is dispatched only after
    attempt n has ended, and the budgets are never exceeded. Returns counts.
    """
    limits: dict[str, int] = {}
    running: dict[str, tuple[int, str]] = {}
    attempts: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    in_use: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    merged: set[str] = set()
    posts: set[str] = set()
    high = epoch = 0
    for record in records:
        words = record.subject.split(".")
        if words[1] == "task":
            posts.add(str(record.seq))
        if words[1] != "run":
            continue
        event = json.loads(record.data)
        kind, task = event["kind"], event.get("task", "")
        counts[kind] += 1
        tenant = words[2]
        if kind == "epoch":
            epoch = record.seq
        elif kind not in ("outcome", "checkpoint"):
            assert event["epoch"] == epoch, f"{kind} at {record.seq} of a router that is not active"
        if kind == "budget":
            for key, limit in (event.get("base", {}) | event.get("changed", {})).items():
                limits[key] = (limit or {}).get("concurrency", limits.get(key, NO_LIMIT))
        elif kind == "dispatch":
            assert task not in running, f"{task} dispatched at {record.seq} while it runs"
            assert event["attempt"] == attempts[task] + 1
            assert not ends[task]
            attempts[task] += 1
            running[task] = (event["attempt"], event["secret"])
            in_use["global"] += 1
            in_use[tenant] += 1
            high = max(high, in_use["global"])
            assert in_use["global"] <= limits["global"], f"over the budget at {record.seq}"
            assert in_use[tenant] <= limits.get(f"tenant/{tenant}", limits["tenant"])
        elif kind in ("outcome", "lost") and task in running:
            current = running[task]
            mine = current == (event["attempt"], event.get("secret", current[1]))
            if mine:
                del running[task]
                in_use["global"] -= 1
                in_use[tenant] -= 1
                if kind == "outcome" and "error" not in event:
                    ends[task] += 1
        elif kind == "settled":
            assert task not in running
            ends[task] += 1
        elif kind == "merged":
            merged.add(task)
    assert not running, f"still running at the end: {list(running)[:5]}"
    assert {task for task in posts if ends[task] != 1} <= merged, "a task without exactly one end"
    starts = Counter(tuple(line.split()[:2]) for line in table.read_text().splitlines())
    twice = [start for start, count in starts.items() if count > 1]
    assert not twice, f"attempts started twice: {twice[:5]}"
    return {**counts, "posts": len(posts), "budget high": high, "starts": len(starts)}
