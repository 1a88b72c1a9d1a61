"""Who holds an attempt, when it is lost, and who may start an old dispatch."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard_broker.wire import Beat, Offer
from callboard_router import hosts
from callboard_router import liveness as liveness_module
from callboard_router.liveness import Claim, Hold, Liveness, Loss, Timing

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
    pool: str = "shared",
) -> Beat:
    return Beat(
        host,
        incarnation,
        pool,
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
    assert ("shared", "h") in liveness.hosts
    liveness.forget_silent(60.1)
    assert not liveness.hosts


# -- pools and mailboxes


def test_hosts_of_two_pools_may_have_one_name(liveness: Liveness):
    liveness.heard(beat(holds=True), 1.0)
    liveness.heard(beat(incarnation="other", pool="acme"), 1.5)
    assert lost(liveness, 1.6) == [], "the other pool's host is no new incarnation of this one"
    assert liveness.capacity(1.6) == {QUEUE: (4, 1), ("acme", "plan"): (4, 1)}
    liveness.heard(beat(incarnation="other", pool="acme", gone=True), 1.7)
    assert lost(liveness, 1.8) == []
    assert liveness.capacity(1.8) == {QUEUE: (4, 1)}


def test_a_host_of_another_pool_that_claims_to_hold_it_is_not_believed(liveness: Liveness):
    liveness.heard(beat(holds=True, pool="acme"), 1.0)
    assert lost(liveness, 7.1) == ["no host started it in time"]
    answer = liveness.confirm(
        Claim(task="t", attempt=1, host="h", incarnation="h-1", pool="acme"), 0, 7.2
    )
    assert (answer.go, answer.wait) == (False, False)


def test_what_went_to_a_mailbox_only_its_host_can_have():
    found = Liveness(TIMING)
    found.dispatched("t", 1, 50, QUEUE, now=0.0, host="h")
    found.heard(beat("g", "g-1", holds=True), 1.0)
    assert not found.confirm(claim("g", "g-1"), 0, 1.0).go
    assert list(found.losses(7.1)) == [Loss("t", 1, "no host started it in time", "h")]
    assert found.confirm(claim(), 0, 7.2).go
    assert list(found.losses(7.3)) == []


def test_a_loss_says_whether_a_host_had_begun(liveness: Liveness):
    assert [loss.started for loss in liveness.losses(7.1)] == [False]
    liveness.heard(beat(holds=True), 7.2)
    assert [(loss.started, loss.host) for loss in liveness.losses(27.3)] == [(True, "h")]
    liveness.heard(beat(gone=True), 27.4)
    assert {loss.started for loss in liveness.losses(27.5)} == {True}


def test_a_start_timeout_of_its_own_is_kept_and_then_the_lease_counts():
    found = Liveness(TIMING)
    found.dispatched("t", 1, 50, QUEUE, now=0.0, start_s=600.0)
    assert lost(found, 602.0) == []
    assert lost(found, 602.1) == ["no host started it in time"]
    found.heard(beat(holds=True), 602.2)
    assert lost(found, 602.3) == []
    assert lost(found, 622.3) == ["its host's lease ended"]


def test_a_lease_that_ends_before_a_long_start_timeout_would_have_is_not_overlooked():
    found = Liveness(TIMING)
    found.dispatched("t", 1, 50, QUEUE, now=0.0, start_s=600.0)
    found.heard(beat(holds=True), 1.0)
    assert lost(found, 21.0) == []
    assert lost(found, 21.1) == ["its host's lease ended"]


def test_a_slot_is_counted_once_however_the_beat_and_the_journal_come():
    found = Liveness(TIMING)
    found.heard(beat(), 0.0)
    host = found.hosts["shared", "h"]
    found.dispatched("t", 1, 50, QUEUE, now=0.1, host="h")
    assert host.free("plan") == 3, "it is on its way"
    listed = Beat("h", "h-1", "shared", [Offer("plan", 4, 3)], [("t", 1)])
    found.heard(listed, 1.0)
    assert host.free("plan") == 3, "the beat counts it now"
    found.ended("t")
    assert host.free("plan") == 4, "and it has ended since"
    found.heard(beat(), 2.0)
    assert host.free("plan") == 4
    found.dispatched("t", 2, 60, QUEUE, now=2.1, host="h")
    found.ended("t")
    assert host.free("plan") == 4, "begun and ended between two beats"
    assert host.free("other") == 0


def test_what_a_later_beat_shows_is_not_counted_again():
    found = Liveness(TIMING)
    found.heard(beat(), 0.0)
    host = found.hosts["shared", "h"]
    for task in "ab":
        found.dispatched(task, 1, 50, QUEUE, now=0.1, host="h")
    found.heard(Beat("h", "h-1", "shared", [Offer("plan", 4, 2)], [("a", 1), ("b", 1)]), 1.0)
    found.ended("a")
    assert host.free("plan") == 3
    found.heard(Beat("h", "h-1", "shared", [Offer("plan", 4, 2)], []), 2.0)
    assert host.free("plan") == 2, "the beat counts the slot of `a` as it is now"
    found.ended("b")
    assert host.free("plan") == 2, "and that of `b` too: it did not list it any more"


def test_an_outage_grants_a_long_start_timeout_anew():
    found = Liveness(TIMING)
    found.dispatched("t", 1, 50, QUEUE, now=0.0, start_s=600.0)
    found.grant(500.0, hosts_are_known=False)
    assert lost(found, 1100.0) == []
    assert lost(found, 1100.1) == ["no host started it in time"]


# -- what strangers may say


def test_offers_that_nobody_could_post_for_are_passed_over(liveness: Liveness):
    offers = [Offer(name, 4, 4) for name in ("plan", "a b", "A", "x..y", "*", ">", "", "plan")]
    liveness.heard(Beat("h", "h-1", "shared", offers), 1.0)
    assert liveness.capacity(1.0) == {QUEUE: (4, 1)}


def test_no_more_queues_are_served_than_the_server_should_hold(
    liveness: Liveness, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(liveness_module, "MOST_QUEUES", 5)
    monkeypatch.setattr(liveness_module, "MOST_QUEUES_OF_A_POOL", 3)
    liveness.heard(beat(), 1.0)
    for pool in ("acme", "blue"):
        offers = [Offer(f"c{number}", 1, 1) for number in range(9)]
        liveness.heard(Beat("h", "h-1", pool, offers), 1.0)
    served = liveness.capacity(1.0)
    assert len(served) == 5
    assert QUEUE in served, "who was there first stays"
    assert sum(pool == "acme" for pool, _ in served) == 3


def test_invented_hosts_of_one_pool_have_a_limit_and_do_not_crowd_out_others(
    liveness: Liveness, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(liveness_module, "MOST_HOSTS", 10)
    for number in range(50):
        liveness.heard(beat(f"x{number}", "x", pool="acme"), 1.0)
    liveness.heard(beat(), 1.0)
    assert len(liveness.hosts) == 11
    liveness.forget_silent(100.0)
    liveness.heard(beat("y", "y", pool="acme"), 100.0)
    assert len(liveness.hosts) == 1
    assert hosts.MOST_HOSTS > 1000


# -- the same as looking at everything


@dataclass
class Walk:
    """What is lost, found by looking at every attempt with the words of the docstring."""

    attempts: dict[str, Hold] = field(default_factory=dict)
    hosts: dict[str, tuple[str, float, int]] = field(default_factory=dict)
    proved: list[tuple[str, int, str]] = field(default_factory=list)
    cut_at: float = 0.0
    witnesses: set[str] | None = None

    def lost(self, now: float) -> set[tuple[str, int, str]]:
        found = {
            (task, attempt, why)
            for task, attempt, why in self.proved
            if task in self.attempts and self.attempts[task].attempt == attempt
        }
        known = [self.hosts[name] for name in self.witnesses or () if name in self.hosts]
        vouched = min((fresh for _, _, fresh in known), default=sys.maxsize)
        if self.witnesses is None or any(seen <= self.cut_at for _, seen, _ in known):
            vouched = 0
        for task, one in self.attempts.items():
            why = ""
            if one.owner is not None:
                why = "its host's lease ended" if now - one.renewed > TIMING.lease else ""
            elif one.clouded and one.seq <= vouched:
                why = "no host holds it after an outage"
            elif now > max(one.unclaimed_until, self.cut_at + TIMING.lease if one.clouded else 0):
                why = "no host started it in time"
            if why:
                found.add((task, one.attempt, why))
        return found

    def heard(self, message: Beat, now: float) -> None:
        known = self.hosts.get(message.host)
        anew = known is not None and known[0] != message.incarnation
        if known is not None and (message.ends(known[0]) if message.gone else anew):
            why = "its host's process ended" if message.gone else "its host began anew"
            owner = ("shared", message.host, known[0])
            for task, one in self.attempts.items():
                if one.owner == owner:
                    self.proved.append((task, one.attempt, why))
            if message.gone:
                del self.hosts[message.host]
        if message.gone:
            return
        self.hosts[message.host] = (message.incarnation, now, message.fresh_from)
        owner = ("shared", message.host, message.incarnation)
        for task, attempt in message.holds:
            one = self.attempts[task]
            if one.attempt == attempt and one.owner in (None, owner):
                one.owner, one.renewed = owner, now

    def cut(self, now: float, *, hosts_are_known: bool) -> None:
        self.cut_at = now
        self.witnesses = set(self.hosts) if hosts_are_known else None
        for one in self.attempts.values():
            one.clouded, one.renewed = True, now
            one.unclaimed_until = max(one.unclaimed_until, now + one.start_s)


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("dispatch"), st.sampled_from("abcd"), st.sampled_from([1.0, 5.0, 40.0])),
        st.tuples(st.just("end"), st.sampled_from("abcd"), st.none()),
        st.tuples(st.just("beat"), st.sampled_from("gh"), st.sets(st.sampled_from("abcd"))),
        st.tuples(st.just("anew"), st.sampled_from("gh"), st.none()),
        st.tuples(st.just("gone"), st.sampled_from("gh"), st.none()),
        st.tuples(st.just("cut"), st.booleans(), st.none()),
        st.tuples(st.just("pass"), st.sampled_from([0.1, 0.7, 3.0, 9.0, 25.0]), st.none()),
        st.tuples(st.just("confirm"), st.sampled_from("abcd"), st.sampled_from("gh")),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(_steps)
def test_buckets_of_deadlines_find_exactly_what_looking_at_everything_finds(
    steps: list[tuple[str, object, object]],
):
    found, walk = Liveness(TIMING), Walk()
    now, numbers = 0.0, itertools.count(1)
    incarnations = {"g": 1, "h": 1}
    for kind, what, more in steps:
        name = str(what)
        if kind == "dispatch" and name not in walk.attempts:
            number, start = next(numbers), float(str(more))
            found.dispatched(name, number, number, QUEUE, now=now, start_s=start)
            until = now + start + 2 * TIMING.beat
            walk.attempts[name] = Hold(
                attempt=number,
                seq=number,
                queue=QUEUE,
                renewed=now,
                start_s=start,
                unclaimed_until=until,
            )
        elif kind == "end" and name in walk.attempts:
            found.ended(name)
            del walk.attempts[name]
        elif kind in ("beat", "anew", "gone"):
            incarnations[name] += kind == "anew"
            listed = sorted(more) if isinstance(more, set) else []
            held = [(t, walk.attempts[t].attempt) for t in listed if t in walk.attempts]
            message = Beat(
                name,
                f"{name}-{incarnations[name]}",
                "shared",
                holds=held,
                gone=kind == "gone",
                fresh_from=next(numbers),
            )
            found.heard(message, now)
            walk.heard(message, now)
        elif kind == "cut":
            found.grant(now, hosts_are_known=bool(what))
            walk.cut(now, hosts_are_known=bool(what))
        elif kind == "confirm" and name in walk.attempts:
            host, one = str(more), walk.attempts[name]
            asked = claim(host, f"{host}-{incarnations[host]}", one.attempt)
            asked = replace(asked, task=name)
            if found.confirm(asked, 0, now).go:
                one.owner, one.renewed = ("shared", host, asked.incarnation), now
        elif kind == "pass":
            now += float(str(what))
        losses = list(found.losses(now))
        assert {(loss.task, loss.attempt, loss.reason) for loss in losses} == walk.lost(now)
        assert all(loss.started == (loss.host is not None) for loss in losses)


def test_a_tick_does_not_look_at_attempts_whose_time_has_not_come(
    monkeypatch: pytest.MonkeyPatch,
):
    found = Liveness(TIMING)
    for number in range(5000):
        found.dispatched(str(number), 1, number, QUEUE, now=0.0)
    looked = 0
    honest = Liveness._why_lost

    def counting(self: Liveness, hold: Hold, now: float) -> str | None:
        nonlocal looked
        looked += 1
        return honest(self, hold, now)

    monkeypatch.setattr(Liveness, "_why_lost", counting)
    held = [(str(number), 1) for number in range(5000)]
    for tenth in range(150):
        if tenth % 10 == 0:
            found.heard(Beat("h", "h-1", "shared", holds=held), tenth / 10)
        assert list(found.losses(tenth / 10)) == []
    assert looked <= 3 * 5000, "and not once for each of 150 ticks"
