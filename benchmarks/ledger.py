"""What the ledger does with a long journal: rebuild from it, audit it, verify it; in what memory.

    python benchmarks/ledger.py [--events 300000] [--only NAME ...] [--signed] [--json FILE]

A journal of plain tasks (post, dispatch, outcome) is written to a real server. Each measure is a
process of its own, so that its CPU and its peak of memory are its own; rates are given by the clock
and by the CPU that it used, because a shared machine slows the clock alone. A measure is a function
in MEASURES: it gets the board, and returns what it found.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
from spine import server

from callboard_broker.connection import open_link
from callboard_broker.outcome_signature import sign_outcome
from callboard_broker.publisher import Publisher
from callboard_broker.record import Record
from callboard_broker.signing import SigningKey
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Dispatch, Epoch, Outcome, Post, encode
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.audit import Auditor, Tail
from callboard_ledger.check_export import check_export
from callboard_ledger.exporting import export_board
from callboard_ledger.notes import sign_note
from callboard_ledger.reading import read
from callboard_ledger.records import HostKey
from callboard_ledger.serve import LedgerOptions, run_ledger
from callboard_ledger.skeleton import Choice
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.trust import Trust, trust_of
from callboard_ledger.verify import verify_board

SUBJECTS = Subjects()
TOPOLOGY = Topology(SUBJECTS)
WINDOW = 5_000
PAYLOAD = msgspec.Raw(b'{"file":"src/module.py","lines":[1,2,3],"depth":3}')
RESULT = msgspec.Raw(b'{"verdict":"fine","findings":[]}')


@dataclass(frozen=True, slots=True)
class Where:
    """A board with a journal of `events` events, and a directory for whoever needs one."""

    url: str
    folder: Path
    events: int


def journal(events: int, key: SigningKey | None) -> Iterator[tuple[str, bytes, bytes]]:
    """(subject, data, headers) of so many events, a task in three; outcomes signed with `key`."""
    yield SUBJECTS.epoch, encode(Epoch("router-1", 1)), b""
    seq = 1
    post = encode(Post(payload=PAYLOAD))
    while seq < events:
        task = str(seq + 1)
        tenant = ("acme", "globex", "initech")[seq % 3]
        yield SUBJECTS.task(tenant, "review.python"), post, b""
        dispatch = Dispatch(task, 1, f"secret{seq}", 1, seq % 256, 0, 20.0, payload=PAYLOAD)
        yield SUBJECTS.dispatch(tenant, "shared", "review.python"), encode(dispatch), b""
        outcome = Outcome(task, 1, f"secret{seq}", "host-1", 1, 2, result=RESULT)
        subject, data = SUBJECTS.run(tenant, "outcome", seq % 256), encode(outcome)
        headers = b"" if key is None else sign_outcome(key, subject, "shared", "review", data)
        yield subject, data, headers
        seq += 3


async def write(url: str, events: int, key: SigningKey | None) -> int:
    """Store the journal; returns how many events it has."""
    count = 0
    async with open_link(url, name="benchmark") as link, Publisher(link) as publisher:
        await ensure_streams(link, TOPOLOGY)
        for subject, data, headers in journal(events, key):
            publisher.publish(subject, data, headers=headers)
            count += 1
            if count % WINDOW == 0:
                await publisher.settled()
        await publisher.settled()
    return count


# -- the measures


def offline(where: Where) -> dict[str, Any]:
    """Fold, SQLite and audit of a journal in memory, without a server: the ledger's own work."""
    events = min(where.events, 100_000)
    records = [
        Record(seq, seq, subject, headers, data)
        for seq, (subject, data, headers) in enumerate(journal(events, None), 1)
    ]
    stored = [0]

    def publish(_data: bytes, _headers: bytes, done: Callable[..., None]) -> None:
        stored[0] += 1
        done(stored[0], None)

    async def work() -> None:
        store = SqliteStore(where.folder / "offline.db", stream="JOURNAL", created="now")
        aggregator, auditor = Aggregator(SUBJECTS), Auditor(publish, Tail())
        for record in records:
            reading = read(SUBJECTS, record)
            aggregator.fold(record, reading)
            auditor.add(record, reading)
            if aggregator.unsaved >= 500:
                changes = aggregator.changes()
                store.save(changes)
                aggregator.saved(changes)
        auditor.flush()
        store.close()

    begun, cpu = time.perf_counter(), time.process_time()
    asyncio.run(work())
    return rates(len(records), begun, cpu)


def rebuild(where: Where) -> dict[str, Any]:
    """A new ledger reads the whole journal: state, SQLite, audit log, checkpoints."""

    async def work() -> None:
        ready, stop = asyncio.Event(), asyncio.Event()
        options = LedgerOptions(url=where.url, store=where.folder / "ledger")
        async with asyncio.TaskGroup() as group:
            group.create_task(run_ledger(options, ready=ready.set, stop=stop))
            await ready.wait()
            async with open_link(where.url, name="benchmark") as link:
                while True:
                    await asyncio.sleep(0.1)
                    subject = SUBJECTS.ask("all", "position")
                    reply = await link.request(subject, b"{}", timeout=60)
                    said = msgspec.json.decode(reply.data)
                    if min(said["audited"], said["saved"]) >= where.events:
                        break
            stop.set()

    begun, cpu = time.perf_counter(), time.process_time()
    uvloop.run(work())
    return rates(where.events, begun, cpu)


def verify(where: Where) -> dict[str, Any]:
    """`callboard audit verify`: all of AUDIT and of the journal."""

    async def work() -> None:
        trust = trust_of(where.folder / "ledger")
        async with open_link(where.url, name="benchmark") as link:
            report = await verify_board(link, TOPOLOGY, trust)
        if not report.ok or report.audited != where.events:
            raise AssertionError(report)

    begun, cpu = time.perf_counter(), time.process_time()
    uvloop.run(work())
    return rates(where.events, begun, cpu)


def export(where: Where) -> dict[str, Any]:
    """`callboard audit export` of everything."""

    async def work() -> None:
        trust = Trust(keys=trust_of(where.folder / "ledger").keys)
        async with open_link(where.url, name="benchmark") as link:
            with (where.folder / "export").open("wb") as file:
                await export_board(link, TOPOLOGY, Choice(), file.write, trust)

    begun, cpu = time.perf_counter(), time.process_time()
    uvloop.run(work())
    size = (where.folder / "export").stat().st_size
    return {**rates(where.events, begun, cpu), "mb": round(size / 1e6)}


def verify_export(where: Where) -> dict[str, Any]:
    """`callboard audit verify FILE` of that export, offline."""
    trust = Trust(keys=trust_of(where.folder / "ledger").keys)
    begun, cpu = time.perf_counter(), time.process_time()
    report = check_export(where.folder / "export", trust)
    if not report.ok:
        raise AssertionError(report)
    return rates(where.events, begun, cpu)


MEASURES: dict[str, Callable[[Where], dict[str, Any]]] = {
    "offline": offline,
    "rebuild": rebuild,
    "verify": verify,
    "export": export,
    "verify-export": verify_export,
}
"""By name, in the order in which they run; those after `rebuild` need what it leaves."""


def rates(events: int, begun: float, cpu: float) -> dict[str, Any]:
    seconds, used = time.perf_counter() - begun, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "events_per_s": round(events / seconds),
        "events_per_cpu_s": round(events / used),
        "peak_mb": round(peak),
    }


def run_measure(name: str, where: Where) -> dict[str, Any]:
    """One measure, in a process of its own."""
    argv = [sys.executable, __file__, "--child", name, where.url, str(where.folder)]
    done = subprocess.run(
        [*argv, str(where.events)], stdout=subprocess.PIPE, text=True, check=True, env=os.environ
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def attest(url: str, log: SigningKey, host: SigningKey) -> None:
    """What the ledger writes when a host announces its key."""
    said = HostKey(pool="shared", host="host-1", key=host.public.raw, at=0)
    async with open_link(url, name="benchmark") as link, Publisher(link) as publisher:
        await ensure_streams(link, TOPOLOGY)
        await publisher.put(SUBJECTS.audit_records, sign_note(said.text(), log).encode())


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        name, url, folder, events = sys.argv[2:]
        print(json.dumps(MEASURES[name](Where(url, Path(folder), int(events)))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--only", nargs="*", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--signed", action="store_true", help="outcomes are signed by their host")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with server() as embedded, tempfile.TemporaryDirectory() as folder:
        key = SigningKey.new("shared/host-1") if given.signed else None
        if key is not None:
            (Path(folder) / "ledger").mkdir()
            log = SigningKey.read_or_make(Path(folder, "ledger", "audit.key"), "benchmark/log")
            uvloop.run(attest(embedded.url, log, key))
        events = uvloop.run(write(embedded.url, given.events, key))
        where = Where(embedded.url, Path(folder), events)
        print(f"{events:,} events")
        for name in given.only:
            found[name] = run_measure(name, where)
            line = ", ".join(f"{value:,} {what}" for what, value in found[name].items())
            print(f"{name:<14} {line}", flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
