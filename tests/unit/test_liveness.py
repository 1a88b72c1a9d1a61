"""Who holds an attempt, when it is lost, and who may start an old dispatch."""

from __future__ import annotations

import pytest

from callboard_broker.wire import Beat, Offer
from callboard_router.liveness import Claim, Liveness, Timing

TIMING = Timing(beat=1.0, suspect=3.0, lease=20.0, start=5.0)
QUEUE = ("shared", "plan")


@pytest.fixture
def liveness() -> Liveness:
    """Attempt 1 of task `t` was dispatched at sequence 50, at the time 0."""
    found = Liveness(TIMING)
    found.dispatched("t", 1, 50, QUEUE, now=0.0)
    return found


def beat(
    host: str = "h",
    incarnation: str = "h-1",
    *,
    holds: bool = False,
    gone: bool = False,
    fresh_from: int = 0,
) -> Beat:
    return Beat(
        host,
        incarnation,
        "shared",
        [Offer("plan", 4, 4)],
        [("t", 1)] if holds else [],
        gone=gone,
        fresh_from=fresh_from,
    )


def claim(host: str = "h", incarnation: str = "h-1", attempt: int = 1) -> Claim:
    return Claim(task="t", attempt=attempt, host=host, incarnation=incarnation)


def lost(liveness: Liveness, now: float) -> list[str]:
    return [loss.reason for loss in liveness.losses(now)]


def test_an_attempt_that_nobody_takes_is_lost_two_beats_after_its_start_time(liveness: Liveness):
    assert lost(liveness, 7.0) == []
    assert lost(liveness, 7.1) == ["no host started it in time"]


def test_a_beat_that_lists_the_attempt_renews_its_lease(liveness: Liveness):
    liveness.heard(beat(holds=True), 1.0)
    liveness.heard(beat(holds=True), 15.0)
    assert lost(liveness, 35.0) == []
    assert lost(liveness, 35.1) == ["its host's lease ended"]


def test_a_beat_that_does_not_list_it_renews_nothing(liveness: Liveness):
    liveness.heard(beat(holds=True), 1.0)
    liveness.heard(beat(), 15.0)
    assert lost(liveness, 21.1) == ["its host's lease ended"]


def test_another_host_that_claims_to_hold_it_is_not_believed(liveness: Liveness):
    liveness.heard(beat(holds=True), 1.0)
    liveness.heard(beat("g", "g-1", holds=True), 15.0)
    assert lost(liveness, 21.1) == ["its host's lease ended"]


def test_a_new_incarnation_proves_the_old_one_dead(liveness: Liveness):
    liveness.heard(beat(holds=True), 1.0)
    liveness.heard(beat(incarnation="h-2"), 2.0)
    assert lost(liveness, 2.0) == ["its host began anew"]


@pytest.mark.parametrize("named", ["h-1", "h-1.2"])
def test_the_supervisors_last_beat_ends_what_the_process_held(liveness: Liveness, named: str):
    liveness.heard(beat(incarnation="h-1.2", holds=True), 1.0)
    liveness.heard(beat(incarnation=named, gone=True), 1.5)
    assert lost(liveness, 1.5) == ["its host's process ended"]
    assert liveness.capacity(1.5) == {}


@pytest.mark.parametrize("named", ["h-0", "h-1.2.1", "h-11"])
def test_a_last_beat_of_another_incarnation_ends_nothing(liveness: Liveness, named: str):
    liveness.heard(beat(incarnation="h-1.2", holds=True), 1.0)
    liveness.heard(beat(incarnation=named, gone=True), 1.5)
    assert lost(liveness, 1.5) == []
    assert liveness.capacity(1.5) != {}


def test_a_loss_is_told_until_the_fold_has_accepted_it(liveness: Liveness):
    liveness.heard(beat(holds=True), 1.0)
    liveness.heard(beat(gone=True), 1.5)
    assert lost(liveness, 1.5) == lost(liveness, 1.6) != []
    assert liveness.ended("t") == QUEUE
    assert lost(liveness, 1.7) == []


def test_a_loss_of_attempt_one_does_not_touch_attempt_two(liveness: Liveness):
    liveness.heard(beat(holds=True), 1.0)
    liveness.heard(beat(gone=True), 1.5)
    liveness.ended("t")
    liveness.dispatched("t", 2, 60, QUEUE, now=1.6)
    assert lost(liveness, 1.7) == []


# -- outages


def test_after_an_outage_everything_is_granted_one_full_lease(liveness: Liveness):
    liveness.heard(beat(holds=True), 1.0)
    liveness.grant(100.0, hosts_are_known=False)
    assert lost(liveness, 120.0) == []
    assert lost(liveness, 120.1) == ["its host's lease ended"]


def test_a_new_router_waits_a_lease_for_what_nobody_seems_to_hold(liveness: Liveness):
    liveness.grant(100.0, hosts_are_known=False)
    liveness.heard(beat(fresh_from=90), 101.0)
    assert lost(liveness, 120.0) == []
    assert lost(liveness, 120.1) == ["no host started it in time"]


def test_what_no_host_holds_is_lost_once_all_known_ones_are_back(liveness: Liveness):
    liveness.heard(beat(), 1.0)
    liveness.heard(beat("g", "g-1"), 1.0)
    liveness.grant(3.0, hosts_are_known=True)
    liveness.heard(beat(fresh_from=90), 3.5)
    assert lost(liveness, 3.5) == [], "g may hold it"
    liveness.heard(beat("g", "g-1", fresh_from=40), 3.6)
    assert lost(liveness, 3.6) == [], "g may still start it unasked"
    liveness.heard(beat("g", "g-1", fresh_from=90), 3.7)
    assert lost(liveness, 3.7) == ["no host holds it after an outage"]


def test_a_host_that_is_gone_need_not_be_waited_for(liveness: Liveness):
    liveness.heard(beat(), 1.0)
    liveness.heard(beat("g", "g-1"), 1.0)
    liveness.grant(3.0, hosts_are_known=True)
    liveness.heard(beat(fresh_from=90), 3.5)
    liveness.heard(beat("g", "g-1", gone=True), 3.6)
    assert lost(liveness, 3.7) == ["no host holds it after an outage"]


def test_an_attempt_that_turns_up_after_an_outage_is_kept(liveness: Liveness):
    liveness.heard(beat(), 1.0)
    liveness.grant(3.0, hosts_are_known=True)
    liveness.heard(beat(holds=True, fresh_from=90), 3.5)
    assert lost(liveness, 3.5) == []


def test_what_is_dispatched_after_the_outage_is_an_ordinary_attempt(liveness: Liveness):
    liveness.ended("t")
    liveness.heard(beat(), 1.0)
    liveness.grant(3.0, hosts_are_known=True)
    liveness.dispatched("t", 2, 60, QUEUE, now=3.1)
    liveness.heard(beat(fresh_from=90), 3.5)
    assert lost(liveness, 10.1) == []
    assert lost(liveness, 10.2) == ["no host started it in time"]


# -- questions


def test_a_dispatch_stored_since_the_router_connected_was_handed_over_once(liveness: Liveness):
    assert liveness.confirm(claim(), 49, 1.0).go
    answer = liveness.confirm(claim("g", "g-1"), 49, 1.0)
    assert (answer.go, answer.wait) == (False, False)


def test_the_same_host_may_ask_twice(liveness: Liveness):
    assert liveness.confirm(claim(), 49, 1.0).go
    assert liveness.confirm(claim(), 90, 2.0).go


def test_an_older_dispatch_is_not_started_even_if_all_living_hosts_deny_it(liveness: Liveness):
    liveness.heard(beat(), 1.0)
    liveness.grant(3.0, hosts_are_known=True)
    liveness.heard(beat(fresh_from=90), 3.5)
    answer = liveness.confirm(claim(), 90, 3.6)
    assert (answer.go, answer.wait) == (False, True), "its former process may have started it"


def test_an_attempt_that_is_not_current_is_refused(liveness: Liveness):
    assert not liveness.confirm(claim(attempt=2), 0, 1.0).wait
    liveness.ended("t")
    answer = liveness.confirm(claim(), 0, 1.0)
    assert (answer.go, answer.wait) == (False, False)


def test_a_word_given_holds_the_attempt_for_one_lease(liveness: Liveness):
    liveness.confirm(claim(), 0, 6.9)
    assert lost(liveness, 26.9) == []
    assert lost(liveness, 27.0) == ["its host's lease ended"]


# -- capacity


def test_capacity_is_what_hosts_heard_lately_offer(liveness: Liveness):
    liveness.heard(beat(), 1.0)
    liveness.heard(beat("g", "g-1"), 3.0)
    assert liveness.capacity(4.0) == {QUEUE: (8, 2)}
    assert liveness.capacity(4.5) == {QUEUE: (4, 1)}
    assert liveness.capacity(6.5) == {}


def test_a_host_that_is_silent_for_three_leases_is_forgotten(liveness: Liveness):
    liveness.heard(beat(), 0.0)
    liveness.forget_silent(60.0)
    assert "h" in liveness.hosts
    liveness.forget_silent(60.1)
    assert not liveness.hosts
