"""Who holds what, and what is used of budgets: equal to an independent fold, whatever is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from callboard_broker.limits import Limit, Quota
from callboard_broker.wire import Budget, Failure
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.allocations import Allocation
from callboard_ledger.budgets import Account
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.store import AllocationsQuery, Overlap
from tests.folding import fold_with_kills
from tests.ledger_journal import SUBJECTS, Scribe, random_journal
from tests.naive_ledger import NaiveFold

ALL = AllocationsQuery(limit=10_000)


def begun(**limits: Limit) -> Scribe:
    scribe = Scribe()
    scribe.begin_epoch()
    if limits:
        base = {key.replace("__", "/"): limit for key, limit in limits.items()}
        scribe.write(SUBJECTS.run("all", "budget", 0), Budget(scribe.epoch, base))
    return scribe


def account(scribe: Scribe, key: str) -> Account:
    fold = Aggregator(SUBJECTS)
    for record in scribe.records:
        fold.apply(record)
    return fold.accounts[key]


def stored(scribe: Scribe) -> SqliteStore:
    store, fold = SqliteStore(None, stream="JOURNAL"), Aggregator(SUBJECTS)
    for record in scribe.records:
        fold.apply(record)
        changes = fold.changes()
        store.save(changes)
        fold.saved(changes)
    return store


@pytest.mark.parametrize("seed", range(12))
def test_allocations_and_budgets_equal_an_independent_fold_across_saves_and_restarts(
    seed: int, tmp_path: Path
) -> None:
    journal = random_journal(seed, 1_200, resume=False, budgets=True)
    store = fold_with_kills(journal, seed, tmp_path / "ledger.db")
    naive = NaiveFold()
    for record in journal:
        naive.apply(record)
    allocations = {row.seq: seen(row) for row in store.allocations(ALL)}
    assert allocations == naive.allocations
    held = {row.task for row in store.allocations(AllocationsQuery(held=True, limit=10_000))}
    assert held == {name for name, row in naive.tasks.items() if row["state"] == "running"}
    accounts = {row.key: told(row) for row in store.accounts()}
    assert accounts == naive.accounts()
    assert any(row["used"] for row in accounts.values())
    assert any(row["reserved"] for row in accounts.values())
    store.close()


def seen(row: Allocation) -> dict[str, Any]:
    names = "task attempt tenant pool capability since host end_seq ending"
    return {name: getattr(row, name) for name in names.split()}


def told(row: Account) -> dict[str, Any]:
    limit = None if row.limit is None else {"units": {}, **msgspec.to_builtins(row.limit)}
    found = {"limit": limit, "in_use": row.in_use, "reserved": row.reserved}
    return found | {"used": row.used}


def test_an_attempt_holds_its_place_until_its_outcome_and_says_which_host_had_it() -> None:
    scribe = begun()
    task = scribe.post()
    scribe.dispatch(task)
    (row,) = stored(scribe).allocations(ALL)
    assert (row.task, row.attempt, row.capability, row.host) == (task, 1, "review.python", None)
    assert (row.since, row.ending) == (1_700_000_000_003, None)
    scribe.outcome(task, error=Failure("Boom", "no"))
    scribe.retrying(task)
    scribe.dispatch(task, 2, host="host-2")
    scribe.lost(task, 2)
    store = stored(scribe)
    second, first = store.allocations(ALL)
    assert (first.ending, first.host, first.returned_at) == ("failed", "host-1", first.since + 1)
    assert (second.ending, second.host, second.end_seq) == ("lost", "host-1", len(scribe.records))
    assert store.allocations(AllocationsQuery(held=True)) == []
    assert [row.seq for row in store.allocations(AllocationsQuery(before=second.seq))] == [3]
    assert store.allocations(AllocationsQuery(host="host-9")) == []
    assert store.allocations(AllocationsQuery(tenant="globex")) == []


def test_the_store_tells_how_many_attempts_a_host_had_at_once() -> None:
    scribe = begun()
    for began, ended in ((10, 20), (15, 30), (20, 25), (40, 50), (5, 5)):
        task = scribe.post()
        scribe.dispatch(task)
        scribe.outcome(task, times=(began, ended))
    assert stored(scribe).overlaps() == [Overlap("shared", "host-1", "review.python", 2)]


def test_units_are_reserved_while_an_attempt_runs_and_settled_by_what_it_tells() -> None:
    units = {"tokens": Quota(100.0)}
    scribe = begun(**{"global": Limit(units=units), "key__openai": Limit(5, units=units)})
    task = scribe.post(budgets=["openai"], units={"tokens": 10.0, "images": 1.0})
    scribe.dispatch(task)
    row = account(scribe, "key/openai")
    assert (row.in_use, row.reserved, row.used) == (1, {"tokens": 10.0, "images": 1.0}, {})
    scribe.outcome(task, used={"tokens": 3.0})
    row = account(scribe, "key/openai")
    assert (row.in_use, row.most, row.reserved) == (0, 1, {})
    assert row.used == {"tokens": 3.0, "images": 1.0}
    assert account(scribe, "global").used == row.used
    assert account(scribe, "tenant/acme").open is False


def test_a_lost_attempt_costs_what_it_had_reserved_until_its_outcome_comes_late() -> None:
    scribe = begun(**{"global": Limit(3)})
    task = scribe.post(units={"tokens": 10.0})
    scribe.dispatch(task)
    scribe.lost(task)
    assert account(scribe, "global").used == {"tokens": 10.0}
    scribe.outcome(task, used={"tokens": 4.0})
    assert account(scribe, "global").used == {"tokens": 4.0}
    scribe.outcome(task, used={"tokens": 4.0})
    assert account(scribe, "global").used == {"tokens": 4.0}


def test_a_dispatch_beyond_a_limit_is_counted() -> None:
    scribe = begun(tenant=Limit(1))
    for _ in range(2):
        scribe.dispatch(scribe.post())
    row = account(scribe, "tenant/acme")
    assert (row.in_use, row.most, row.exceeded) == (2, 2, 1)
    assert row.limit == Limit(1)
    assert account(scribe, "global").limit is None


def test_what_a_budget_event_of_an_old_router_says_changes_nothing() -> None:
    scribe = begun(**{"global": Limit(3)})
    old = scribe.epoch
    scribe.begin_epoch()
    changed = {"global": Limit(9)}
    scribe.write(SUBJECTS.run("all", "budget", 0), Budget(old, changed=changed))
    assert account(scribe, "global").limit == Limit(3)
    scribe.write(SUBJECTS.run("all", "budget", 0), Budget(scribe.epoch, changed=changed))
    assert account(scribe, "global").limit == Limit(9)
    assert account(scribe, "global").base == Limit(3)


def test_allocations_of_a_month_ago_are_dropped_and_those_that_are_held_stay() -> None:
    scribe = begun()
    held, gone = scribe.post(), scribe.run_task()
    scribe.dispatch(held)
    scribe.skip_ms(31 * 24 * 3600 * 1000)
    later = scribe.run_task()
    tasks = [row.task for row in stored(scribe).allocations(ALL)]
    assert tasks == [later, held]
    assert gone not in tasks
