"""The invariants of DESIGN.md in worlds full of faults, and proof that the checker sees defects.

A failing seed prints its trace and replays exactly: `simulate(SEED)`. CALLBOARD_SIM_SEEDS=N runs N
seeds, CALLBOARD_SLOW=1 a thousand.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import structs

from callboard_agents.attempts import Attempts
from callboard_broker import rule
from callboard_broker.wire import Checkpoint, Lost, Outcome, Retrying
from callboard_router import agenda, decide, ends, fold, snapshot, unfolding
from callboard_router.budget import Accounts, Need
from callboard_router.desk import Desk
from callboard_router.lanes import Tenant
from callboard_router.liveness import Answer, Claim, Liveness, Loss
from callboard_router.parking import Parking
from callboard_router.placement import Placement
from callboard_router.proposals import Proposal
from callboard_router.state import State
from tests.simulation.router import Router
from tests.simulation.scenario import Report, simulate
from tests.simulation.world import STEPS, Violation

_FAST = 60
_SLOW = 1000
_MOST = 300
_SEEDS = int(os.environ.get("CALLBOARD_SIM_SEEDS", "0"))
_FEATURES = [
    "Cancelled",
    "HeartbeatMissed",
    "TimedOut",
    "approve: done",
    "budget",
    "cancel: UnknownTask",
    "cancel: done",
    "entered",
    "expanded",
    "fenced",
    "fired",
    "gate failed",
    "gate succeeded",
    "halted",
    "late cost",
    "lost",
    "mailbox",
    "merged",
    "needs avoid",
    "needs cpu",
    "needs labels",
    "needs memory_mb",
    "needs specialization",
    "needs stay_with",
    "needs version",
    "overloaded",
    "pause: done",
    "quarantined",
    "redrive: done",
    "restored",
    "resume: done",
    "retrying",
    "signal: done",
    "skipped",
    "spawned",
    "stayed",
    "task cancelled",
    "task expired",
    "undo failed",
    "void checkpoint",
    "workflow cancelled",
    "workflow expired",
    "workflow failed",
    "workflow succeeded",
]
"""What every hundred seeds must have had in play; see `Checker.seen`."""


@pytest.mark.timeout(3600 if _SEEDS else 120)
def test_every_invariant_holds_in_worlds_full_of_faults():
    reports = [simulate(seed) for seed in range(_SEEDS or _FAST)]
    reports += [simulate(seed, storm=True) for seed in range(len(reports) // 4)]
    if len(reports) > 2 * _FAST:
        struck = sum((report.struck for report in reports), Counter[tuple[str, str]]())
        assert len(struck) > 60
        assert sum(report.crashes for report in reports) > 30
        assert sum(report.overtakes for report in reports) > 10, "no fan-out went item by item"
        assert sum(report.restored for report in reports) > 30, "no router began from a snapshot"
        assert _missing(reports) == []


def _missing(reports: list[Report]) -> list[str]:
    seen = sum((report.seen for report in reports), Counter[str]())
    return [feature for feature in _FEATURES if not seen[feature]]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif("CALLBOARD_SLOW" not in os.environ, reason="set CALLBOARD_SLOW=1")
def test_every_invariant_holds_in_a_thousand_worlds_with_a_kill_at_every_step():
    struck: Counter[str] = Counter()
    reports = [simulate(seed) for seed in range(_FAST, _SLOW)]
    for report in reports:
        for (step, kind), times in report.struck.items():
            struck[step] += times if kind in ("crash", "both", "server") else 0
    assert [step for step in STEPS if not struck[step]] == []
    assert _missing(reports) == []


def test_long_payloads_and_results_travel_by_blob(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decide, "_ATTACH_PAYLOAD", 60)
    monkeypatch.setattr(unfolding, "_ATTACH_INPUTS", 30)
    monkeypatch.setattr(unfolding, "_ATTACH_RESULT", 30)
    monkeypatch.setattr(Router, "snapshot_odds", 0.0)
    assert sum(simulate(seed).blobs for seed in range(8)) > 50


def test_a_router_may_begin_from_a_snapshot_at_any_point(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Router, "snapshot_odds", 0.3)
    assert sum(simulate(seed).restored for seed in range(20)) > 10


def test_a_seed_replays_exactly():
    first, second = simulate(3), simulate(3)
    assert first == second


def _caught(*, storm: bool = False, at: int = 0) -> str:
    """The invariant by which the planted defect is found. at: the first seed."""
    for seed in range(at, _MOST):
        try:
            simulate(seed, storm=storm)
        except Violation as found:
            print(f"caught in seed {seed}: {found}")
            return found.invariant
    return "never"


def test_a_token_that_is_not_returned_is_caught(monkeypatch: pytest.MonkeyPatch):
    give_back = Accounts.give_back

    def forgetful(self: Accounts, need: Need, used: dict[str, float] | None, at_ms: int) -> None:
        if at_ms % 37:
            give_back(self, need, used, at_ms)

    monkeypatch.setattr(Accounts, "give_back", forgetful)
    assert _caught() == "I2"


def test_a_dispatch_beyond_its_bucket_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Accounts, "missing", lambda *_args: None)
    assert _caught() == "I2"


def test_a_queue_that_serves_whoever_came_first_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Tenant, "rank_of", lambda _self, order_ms: (True, 0.0, 0, order_ms))
    assert _caught() == "I6"


def test_a_queue_that_serves_tenants_in_turn_whatever_they_have_is_caught(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(Tenant, "rank_of", lambda self, order_ms: (True, 0.0, self.turn, order_ms))
    assert _caught() == "I6"


def test_a_weight_and_a_guaranteed_minimum_that_nobody_heeds_are_caught(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(Tenant, "entitle", lambda _self: None)
    assert _caught() == "I6"


def test_a_place_that_nobody_is_told_of_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Parking, "places_changed", lambda _self: None)
    assert _caught() == "I6"


def test_a_write_without_the_guard_of_its_epoch_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Router, "guarded", False)
    assert _caught() == "fence"


def test_an_outcome_of_an_old_attempt_that_counts_is_caught(monkeypatch: pytest.MonkeyPatch):
    def lenient(life: rule.Life, event: Outcome) -> bool:
        current = structs.replace(event, attempt=life.attempt, secret=life.secret)
        return rule.apply_outcome(life, current)

    monkeypatch.setattr(fold, "apply_outcome", lenient)
    assert _caught() in ("I3", "I5")


def test_a_checkpoint_of_an_old_attempt_that_counts_is_caught(monkeypatch: pytest.MonkeyPatch):
    def lenient(life: rule.Life, event: Checkpoint) -> bool:
        current = structs.replace(event, attempt=life.attempt, secret=life.secret)
        return rule.apply_checkpoint(life, current)

    monkeypatch.setattr(fold, "apply_checkpoint", lenient)
    assert _caught() == "I3"


def test_an_attempt_that_is_not_given_the_last_checkpoint_is_caught(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(decide, "_restoring", lambda event, _found: event)
    assert _caught() == "restore"


def test_an_attempt_dispatched_before_the_loss_was_read_back_is_caught(
    monkeypatch: pytest.MonkeyPatch,
):
    honest = decide._losses

    def hasty(desk: Desk, now: float, out: list[Proposal]) -> None:
        honest(desk, now, out)
        at_ms = desk.state.at_ms + 3000
        for proposal in list(out):
            event = proposal.event
            task = desk.state.tasks.get(event.task) if isinstance(event, Lost) else None
            if task is not None and task.host is None and task.queue in desk.capacity:
                early = decide._dispatch(desk, task, Placement(queue=task.queue), at_ms, out)
                out += [early] if early is not None else []

    monkeypatch.setattr(decide, "_losses", hasty)
    assert _caught(storm=True) in ("I3b", "I2", "stop")


def test_a_retry_before_its_time_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fold, "_retrying", _forgets_the_time(fold._retrying))
    monkeypatch.setitem(fold._FOLDS, Retrying, fold._retrying)
    assert _caught() == "time"


def _forgets_the_time(honest: Callable[..., bool]) -> Callable[..., bool]:
    def call(state: State, address: Any, seq: int, event: Any) -> bool:
        return honest(state, address, seq, structs.replace(event, at=0))

    return call


def test_one_retry_too_many_is_caught(monkeypatch: pytest.MonkeyPatch):
    honest = ends._retry

    def generous(desk: Desk, task: Any, failure: Any) -> Any:
        life = structs.replace(task.life, errors=max(0, task.life.errors - 1))
        return honest(desk, structs.replace(task, life=life), failure)

    monkeypatch.setattr(ends, "_retry", generous)
    assert _caught() == "retry"


def test_a_task_that_expires_early_is_caught(monkeypatch: pytest.MonkeyPatch):
    honest = agenda.expires_at

    def early(task: Any) -> int | None:
        at = honest(task)
        return None if at is None else at - 500

    monkeypatch.setattr(agenda, "expires_at", early)
    monkeypatch.setattr(ends, "expires_at", early)
    assert _caught() == "I1"


def test_a_step_that_runs_although_its_condition_does_not_hold_is_caught(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(decide, "condition_holds", lambda _desk, _task: True)
    assert _caught() == "I5"


def test_a_snapshot_that_forgets_something_is_caught(monkeypatch: pytest.MonkeyPatch):
    honest = snapshot.load

    def forgetful(data: bytes) -> State:
        state = honest(data)
        state.nonces.clear()
        return state

    monkeypatch.setattr(snapshot, "load", forgetful)
    monkeypatch.setattr(Router, "snapshot_odds", 0.1)
    assert _caught() == "I4"


def test_an_old_dispatch_started_without_the_routers_word_is_caught(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(Attempts, "connected", lambda self: setattr(self, "_barrier", 0))
    monkeypatch.setattr(Attempts, "stored_before", lambda self, _seq: setattr(self, "_barrier", 0))
    assert _caught() == "I3"


def test_a_word_given_because_all_living_hosts_deny_the_attempt_is_caught(
    monkeypatch: pytest.MonkeyPatch,
):
    honest = Liveness.confirm

    def trusting(self: Liveness, claim: Claim, connected_seq: int, now: float) -> Answer:
        hold = self.holds.get(claim.task)
        vouched = hold is not None and hold.seq <= self._vouched()
        return honest(self, claim, 0 if vouched else connected_seq, now)

    monkeypatch.setattr(Liveness, "confirm", trusting)
    monkeypatch.setattr(Liveness, "losses", _without_outages(Liveness.losses))
    assert _caught(storm=True) == "I3"


def _without_outages(losses: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Liveness, now: float) -> Iterator[Loss]:
        for loss in losses(self, now):
            if "outage" not in loss.reason or now > self.holds[loss.task].unclaimed_until:
                yield loss

    return call


def _without_a_clock(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, now_ms: int, now: float) -> Any:
        return method(*args, now_ms=min(now_ms, 0), now=now)

    return call


def test_a_host_that_starts_past_start_by_is_caught(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Attempts, "offered", _without_a_clock(Attempts.offered))
    monkeypatch.setattr(Attempts, "confirmed", _without_a_clock(Attempts.confirmed))
    assert _caught() == "start_by"
