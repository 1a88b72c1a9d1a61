"""A whole board for a test: routers, a ledger and agent hosts, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from callboard_broker.connection import open_link
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, last_sequence
from callboard_broker.subjects import Subjects
from tests.servers import NatsServer

__all__ = ["Processes", "check_history", "read_journal", "started_processes"]

HERE = Path(__file__).parent
NO_LIMIT = 10**9


class Processes:
    """The processes of a board, by name, and what a fault test does to them."""

    def __init__(self, nats: NatsServer, folder: Path, settings: dict[str, str]) -> None:
        self.folder = folder
        self.table = folder / "table"
        self.table.touch()
        self._environment = {
            **os.environ,
            "CALLBOARD_NATS_URL": nats.url,
            "CALLBOARD_BOARD__PREFIX": nats.prefix,
            "MARKING_TABLE": str(self.table),
            "PYTHONPATH": str(HERE.parent),
            **settings,
        }
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        """Start `callboard COMMAND` as `name`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self._children[name] = subprocess.Popen(
                [sys.executable, "-m", "callboard", *command],
                cwd=HERE,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def router(self, name: str) -> None:
        self.start(name, "router", "--name", name)

    def ledger(self) -> None:
        self.start("ledger", "ledger", "--store", str(self.folder / "ledger"))

    def host(self, name: str, module: str = "marking_agents.py") -> None:
        self.start(name, "agents", "run", module, "--name", name)

    def pid(self, name: str) -> int:
        return self._children[name].pid

    def kill(self, name: str) -> None:
        """SIGKILL, and the process is gone."""
        self._children[name].kill()
        self._children[name].wait()

    def pause(self, name: str) -> None:
        self._children[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self._children[name].send_signal(signal.SIGCONT)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    async def says(self, text: str, *names: str) -> str:
        """Wait until the log of one of these processes has the text; return whose."""
        async with asyncio.timeout(30):
            while True:
                for name in names:
                    if text in self.log(name):
                        return name
                await asyncio.sleep(0.02)  # a file tells nobody that it has grown

    def stop(self) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGCONT)
            child.terminate()
        for child in self._children.values():
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def started_processes(nats: NatsServer, folder: Path, **settings: object) -> Iterator[Processes]:
    """Stop every process at the end. settings: `CALLBOARD_*` without that prefix."""
    processes = Processes(
        nats, folder, {f"CALLBOARD_{name}": str(value) for name, value in settings.items()}
    )
    try:
        yield processes
    finally:
        processes.stop()


async def read_journal(nats: NatsServer) -> list[Record]:
    """Every message of the journal, in order."""
    records: list[Record] = []
    async with open_link(nats.url, name="history") as connection:
        journal = Topology(Subjects(nats.prefix)).journal
        last, _ = await last_sequence(connection, journal)
        async with Reader(connection, journal, start=1, callback=records.extend) as reader:
            async with asyncio.timeout(60):
                await reader.reached(last)
    return records


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
        elif kind != "outcome":
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
