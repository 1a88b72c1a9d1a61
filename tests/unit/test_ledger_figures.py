"""Performance and failures: what is stored is what an independent count of the journal finds."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from callboard_broker.errors import BadInput
from callboard_broker.record import Record
from callboard_broker.wire import Failure, Settled
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.figures import grouped, told
from callboard_ledger.histogram import bucket, merge, quantile
from callboard_ledger.performance import (
    HOUR_MS,
    FailureKey,
    FailureTally,
    Performance,
    PerformanceKey,
    Tally,
    pattern_of,
)
from callboard_ledger.rows import Changes
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.store import FailuresQuery, FiguresQuery
from tests.ledger_journal import SUBJECTS, Scribe, fan_out, random_journal


def opened(directory: Path) -> SqliteStore:
    return SqliteStore(directory / "ledger.db", stream="JOURNAL", created="t0")


def stored(directory: Path, records: list[Record], *, stops: int = 0, seed: int = 0) -> SqliteStore:
    """A store that was saved, closed and opened again at random places."""
    rng = random.Random(seed)
    places = set(rng.sample(range(len(records)), min(stops, len(records))))
    store, aggregator = opened(directory), Aggregator(SUBJECTS)
    for place, record in enumerate(records):
        aggregator.apply(record)
        if place in places:
            store.save(aggregator.changes())
            store.close()
            store, aggregator = opened(directory), Aggregator(SUBJECTS)
            aggregator.restore(store.load())
    store.save(aggregator.changes())
    return store


def counted(records: list[Record]) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Attempts by tenant and end, and failed tasks by tenant and error, from the bodies alone;
    which of them count, another fold says."""
    fold = Aggregator(SUBJECTS)
    attempts: Counter[tuple[str, str]] = Counter()
    failures: Counter[tuple[str, str]] = Counter()
    for record in records:
        words = record.subject.split(".")
        live = set(fold.flows)
        if fold.apply(record) != "accepted" or words[1] != "run" or len(words) < 4:
            continue
        body: dict[str, Any] = json.loads(record.data)
        if words[3] == "outcome":
            attempts[words[2], "failed" if "error" in body else "succeeded"] += 1
        elif words[3] == "lost":
            attempts[words[2], "lost"] += 1
        elif words[3] == "settled" and body["task"] not in live:
            row = fold.row(body["task"])
            if row is not None and row.state in ("failed", "expired") and hasattr(row, "attempt"):
                error = row.failure
                if error is not None:
                    failures[words[2], error.type] += 1
    return attempts, failures


@pytest.mark.parametrize("seed", range(12))
def test_the_figures_equal_an_independent_count_wherever_the_ledger_was_stopped(
    seed: int, tmp_path: Path
) -> None:
    records = random_journal(seed, 600)
    store = stored(tmp_path, records, stops=6, seed=seed)
    attempts, failures = counted(records)
    found: Counter[tuple[str, str]] = Counter()
    for key, tally in store.figures(FiguresQuery()):
        for name in ("succeeded", "failed", "lost"):
            found[key.tenant, name] += getattr(tally, name)
    assert +found == +attempts
    kinds: Counter[tuple[str, str]] = Counter()
    for kind, failure in store.failures(FailuresQuery(limit=1000)):
        kinds[kind.tenant, kind.type] += failure.count
    assert kinds == failures
    store.close()


def test_a_step_waits_from_the_end_of_what_it_needs(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    flow = scribe.flow(*fan_out())
    scribe.dispatch(f"{flow}.plan.0")
    scribe.outcome(f"{flow}.plan.0")
    scribe.expanded(flow, "build", 1)
    for _ in range(500):  # half a second of the journal's time passes
        scribe.post()
    scribe.dispatch(f"{flow}.build.0")
    scribe.outcome(f"{flow}.build.0")
    store = stored(tmp_path, scribe.records)
    tallies = {key.capability: tally for key, tally in store.figures(FiguresQuery())}
    builder = grouped([(PerformanceKey(0, "", "b", "", ""), tallies["builder"])], ["capability"])
    assert builder[0].wait.p50 == pytest.approx(502, rel=0.05)
    store.close()


def test_a_quantile_is_within_four_per_cent_of_the_true_one() -> None:
    rng = random.Random(7)
    times = sorted(int(rng.lognormvariate(6, 2)) for _ in range(5000))
    parts: list[dict[int, int]] = [{}, {}]
    for place, ms in enumerate(times):
        part = parts[place % 2]
        part[bucket(ms)] = part.get(bucket(ms), 0) + 1
    whole: dict[int, int] = {}
    for part in parts:
        merge(whole, part)
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        true = times[max(0, int(share * len(times) + 0.999999) - 1)]
        assert quantile(whole, share) == pytest.approx(true, rel=0.04)
    assert quantile({}, 0.5) is None


@pytest.mark.parametrize("ms", range(12))
def test_short_times_are_told_exactly(ms: int) -> None:
    assert quantile({bucket(ms): 3}, 0.99) == ms


def test_what_varies_in_a_message_does_not_split_a_kind_of_failure(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    for number in range(5):
        task = scribe.post()
        scribe.dispatch(task)
        error = Failure("ValueError", f"bad file 'f{number}.py' at 0x7f{number}a line {number}")
        scribe.outcome(task, error=error)
        settled = Settled(task, scribe.epoch, "failed", error)
        scribe.write(SUBJECTS.run("acme", "settled", 7), settled)
    store = stored(tmp_path, scribe.records, stops=4)
    (kind,) = told(store.failures(FailuresQuery()))
    assert (kind.count, kind.type, kind.example) == (5, "ValueError", task)
    assert kind.message == error.message
    assert kind.first_at < kind.last_at
    assert store.failures(FailuresQuery(tenant="globex")) == []
    assert store.failures(FailuresQuery(type="KeyError")) == []
    assert store.failures(FailuresQuery(since=kind.last_at + 1)) == []
    store.close()


def test_a_tenant_cannot_fill_the_store_with_kinds_of_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_ledger.sqlite_figures._MOST_KINDS", 20)
    store, added = opened(tmp_path), Performance()
    for number in range(50):
        word = "".join(chr(97 + int(digit)) for digit in str(number))
        key = FailureKey("acme", "Boom", pattern_of(Failure("Boom", word)), "review", "", "")
        added.failed(key, FailureTally(1, number, number, str(number), word))
    store.save(Changes(position=1, at_ms=1, epoch=0, void=0, malformed=0, performance=added))
    found = told(store.failures(FailuresQuery(limit=1000)))
    assert sum(kind.count for kind in found) == 50
    assert found[0].type == "other"
    assert found[0].count == 30
    store.close()


def test_figures_older_than_ninety_days_go(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for hour in (0, 1, 91 * 24):
        added = Performance()
        added.lost(PerformanceKey(hour, "acme", "review", "", ""))
        store.save(Changes(position=1, at_ms=1, epoch=0, void=0, malformed=0, performance=added))
    assert [key.hour for key, _ in store.figures(FiguresQuery())] == [91 * 24]
    assert list(store.figures(FiguresQuery(until=HOUR_MS))) == []
    store.close()


def test_too_many_groups_are_refused_with_what_to_do() -> None:
    rows = [(PerformanceKey(hour, "acme", "c", "", ""), Tally(1)) for hour in range(2000)]
    with pytest.raises(BadInput, match="shorter time"):
        grouped(rows, ["hour"])
    assert len(grouped(rows, ["tenant"])) == 1


def test_an_agent_is_told_with_its_version() -> None:
    tallies = defaultdict(Tally)
    for version in ("1.0", "2.0"):
        tallies[PerformanceKey(0, "acme", "review", "reviewer", version)] = Tally(3, 1, 0)
    found = grouped(tallies.items(), ["agent"])
    assert [(row.agent, row.version, row.success_rate) for row in found] == [
        ("reviewer", "1.0", 0.75),
        ("reviewer", "2.0", 0.75),
    ]
