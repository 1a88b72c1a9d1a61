"""Who leads: claims, renewals, and what a router that slept or lost its connection must not do."""

from __future__ import annotations

import pytest

from callboard_broker.wire import BlobRef, Epoch, Limit, Snapshot
from callboard_router.desk import Policy
from callboard_router.liveness import Claim
from callboard_router.tenure import Role, Tenure
from tests.simulation.leader import Leader

LIMITS = {"global": Limit(concurrency=9), "tenant": Limit(concurrency=9)}


def tenure(name: str = "a") -> Tenure:
    return Tenure(name, standby=2.0, unresolved=10.0)


def leading() -> Tenure:
    """Leads since 0.0, and has heard itself then."""
    found = tenure()
    found.start(0.0)
    assert found.claim(0.0, 0) == "a#1"
    assert found.began("a#1", 0.0)
    found.heard("a", "a#1", 0.0)
    return found


def standby() -> Tenure:
    """Follows `b`, heard at 0.0, and hears itself."""
    found = tenure()
    found.began("b#1", 0.0)
    found.start(0.0)
    found.heard("b", "b#1", 0.0)
    found.heard("a", "b#1", 0.0)
    return found


def test_nobody_claims_before_the_journal_is_read_to_its_end():
    assert tenure().claim(100.0, 0) is None


def test_the_first_router_claims_at_once():
    found = tenure()
    found.start(0.0)
    assert found.claim(0.0, 0) == "a#1"


def test_a_standby_claims_when_the_leader_is_silent():
    found = standby()
    found.heard("a", "b#1", 2.0)
    assert found.claim(2.0, 7) is None
    assert found.claim(2.1, 7) == "a#1"


def test_a_standby_leaves_a_living_leader_alone():
    found = standby()
    found.heard("b", "b#1", 2.0)
    found.heard("a", "b#1", 3.9)
    assert found.claim(4.0, 7) is None


def test_the_beats_of_another_standby_do_not_count():
    found = standby()
    found.heard("c", "b#1", 3.0)
    found.heard("a", "b#1", 3.0)
    assert found.claim(3.1, 7) == "a#1"


def test_a_standby_that_slept_does_not_take_its_own_deafness_for_silence():
    found = standby()
    assert found.claim(60.0, 7) is None
    found.heard("b", "b#1", 60.1)
    found.heard("a", "b#1", 60.1)
    assert found.claim(60.2, 7) is None


def test_a_claim_is_not_repeated_until_it_is_given_up():
    found = tenure()
    found.start(0.0)
    found.claim(0.0, 0)
    assert found.claim(10.0, 0) is None
    assert found.claim(10.1, 0) == "a#2"


def test_a_claim_that_was_lost_sight_of_is_made_again_at_once():
    found = tenure()
    found.start(0.0)
    found.claim(0.0, 0)
    found.renew(1.0)
    assert found.claim(1.0, 0) == "a#2"


def test_only_the_latest_claim_makes_a_leader():
    found = tenure()
    found.start(0.0)
    found.claim(0.0, 0)
    found.renew(1.0)
    found.claim(1.0, 0)
    assert not found.began("a#1", 1.1)
    assert found.role is Role.CLAIMING
    assert found.claim_refused("a#2", 1.2)
    assert found.role is Role.FOLLOWER


def test_the_refusal_of_an_older_claim_changes_nothing():
    found = tenure()
    found.start(0.0)
    found.claim(0.0, 0)
    found.renew(1.0)
    found.claim(1.0, 0)
    assert not found.claim_refused("a#1", 1.1)
    assert found.role is Role.CLAIMING


def test_another_ones_epoch_ends_the_reign():
    found = leading()
    assert not found.began("b#1", 1.0)
    assert found.role is Role.FOLLOWER
    assert not found.may_write(1.0)


def test_a_refused_write_ends_the_reign_before_the_new_epoch_is_read():
    found = leading()
    assert found.step_down(1.0)
    assert not found.may_write(1.0)
    found.heard("a", "a#1", 3.0)
    assert found.claim(3.0, 7) is None
    assert found.claim(3.1, 7) == "a#2", "if it never comes, the silence counts"


def test_a_leader_that_slept_writes_nothing_until_it_hears_itself():
    found = leading()
    assert found.may_write(2.0)
    assert not found.may_write(2.1)
    found.heard("a", "a#1", 1.5)
    assert not found.may_write(30.0), "an old beat, read late"
    found.heard("a", "a#1", 29.9)
    assert found.may_write(30.0)


def test_an_unresolved_write_begins_a_new_epoch_of_its_own():
    found = leading()
    found.renew(1.0)
    assert not found.may_write(1.0)
    assert found.claim(1.0, 7) == "a#2"
    assert found.began("a#2", 1.1)
    assert found.renewed
    assert found.may_write(1.1)


def test_a_takeover_is_no_renewal():
    found = standby()
    found.heard("a", "b#1", 9.0)
    found.claim(9.0, 7)
    found.began("a#1", 9.1)
    assert not found.renewed


# -- the engine around it


@pytest.fixture
def leader() -> Leader:
    found = Leader(Policy(limits=LIMITS)).lead()
    found.host("h", "plan", slots=9)
    return found


def test_a_write_refused_under_the_present_epoch_silences_the_engine(leader: Leader):
    leader.post()
    (proposal,) = leader.engine.decide(leader.now, leader.at_ms, timers=True)
    leader.engine.refused(proposal, leader.now)
    leader.post()
    assert leader.turn() == []


def test_a_write_refused_under_a_past_epoch_says_nothing_about_this_one(leader: Leader):
    leader.post()
    (old,) = leader.engine.decide(leader.now, leader.at_ms, timers=True)
    leader.engine.unresolved(leader.now)
    events = leader.turn()
    assert isinstance(events[0], Epoch)
    leader.engine.refused(old, leader.now)
    leader.post()
    assert len(leader.turn()) == 1


def test_what_was_under_way_is_decided_again_in_the_next_epoch(leader: Leader):
    name = leader.post()
    leader.engine.decide(leader.now, leader.at_ms, timers=True)
    leader.engine.reconnected(leader.now)
    leader.turn()
    assert leader.dispatched[name].epoch == leader.engine.state.epoch
    assert leader.engine.state.accounts.in_use["global"] == 1


def test_a_host_is_answered_by_the_leader_only():
    follower = Leader(Policy(limits=LIMITS))
    assert follower.engine.confirm(_claim("1"), "s1", 0, follower.now) is None


def test_a_host_that_does_not_know_the_secret_gets_no_word(leader: Leader):
    name = leader.post()
    leader.turn()
    secret = leader.dispatched[name].secret
    right = leader.engine.confirm(_claim(name), secret, 0, leader.now)
    wrong = leader.engine.confirm(_claim(name), "guessed", 0, leader.now)
    assert right is not None
    assert wrong is not None
    assert (right.go, wrong.go, wrong.wait) == (True, False, False)


def _claim(task: str) -> Claim:
    return Claim(task=task, attempt=1, host="h", incarnation="h-1")


def test_a_snapshot_is_named_by_a_new_epoch_and_by_each_one_after_it(leader: Leader):
    taken = Snapshot(3, 2, "0" * 64, BlobRef("x", 1, "0" * 64))
    leader.engine.snapshot_taken(taken, leader.now)
    (first,) = leader.turn()
    assert isinstance(first, Epoch)
    assert first.snapshot == leader.engine.state.snapshot == taken
    leader.engine.reconnected(leader.now)
    (second,) = leader.turn()
    assert isinstance(second, Epoch)
    assert second.snapshot == taken
