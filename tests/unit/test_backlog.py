"""What waits for agents, by queue: the figures that agent processes are scaled by."""

from __future__ import annotations

import pytest

from callboard_broker.wire import Budget, Limit
from callboard_router.backlog import QueueBacklog, backlog
from callboard_router.decide import decide
from tests.desks import Bench, offer


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.limit()
    return bench


def seen(bench: Bench) -> dict[str, QueueBacklog]:
    bench.desk.agenda.take_fresh()
    decide(bench.desk, bench.now, bench.at_ms, timers=True)
    return {queue.capability: queue for queue in backlog(bench.desk, bench.at_ms)}


def test_what_nobody_serves_is_listed_with_its_oldest(bench: Bench):
    bench.task("plan")
    bench.wait(2.0)
    bench.task("plan", tenant="blue")
    found = seen(bench)
    assert found["plan"] == QueueBacklog("shared", "plan", waiting=2, oldest_ms=2000)


def test_what_waits_for_a_slot_is_not_mixed_with_what_waits_for_a_budget(bench: Bench):
    change: dict[str, Limit | None] = {"tenant/blue": Limit(concurrency=1)}
    bench.desk.state.accounts.change(Budget(0, base={}, changed=change), bench.at_ms)
    bench.beat("h", offer("review", slots=2), offer("plan", slots=9))
    for _ in range(60):
        bench.task("review")
    for _ in range(3):
        bench.task("plan", tenant="blue")
    found = seen(bench)
    assert (found["plan"].waiting, found["plan"].held) == (0, 2)
    assert (found["plan"].slots, found["plan"].hosts) == (9, 1)
    assert (found["review"].held, found["review"].slots) == (0, 2)
    assert 0 < found["review"].waiting < 60


def test_what_waits_while_the_budget_of_all_is_taken_is_held(bench: Bench):
    bench.limit(**{"global": Limit(concurrency=2)})
    bench.beat("h", offer("review", slots=9))
    for _ in range(2):
        bench.run(bench.task("review"), ("shared", "review"))
    for tenant in ("acme", "blue", "coral"):
        bench.task("review", tenant=tenant)
    found = seen(bench)
    assert (found["review"].waiting, found["review"].held) == (0, 3)


def test_a_capability_is_counted_in_the_queue_above_that_serves_it(bench: Bench):
    bench.beat("h", offer("review", slots=1))
    for _ in range(60):
        bench.task("review.python")
    assert list(seen(bench)) == ["review"]
