"""The rules of a host's lease, driven without any I/O."""

from __future__ import annotations

import random

from callboard_agents.attempts import Attempts, Confirm, Refuse, Start
from callboard_broker.wire import Dispatch

LEASE = 20.0


def dispatch(task: str = "1", attempt: int = 1, *, start_by: int = 10_000) -> Dispatch:
    return Dispatch(
        task=task,
        attempt=attempt,
        secret="s",  # noqa: S106  a test's
        epoch=1,
        shard=0,
        start_by=start_by,
        lease=LEASE,
    )


def leased(*, barrier: int = 0) -> Attempts:
    attempts = Attempts("x", lease_seconds=LEASE)
    attempts.stored_before(barrier)
    attempts.beat_stored(attempts.life, 0.0)
    return attempts


def test_a_fresh_dispatch_starts_and_is_held_until_its_outcome_is_stored():
    attempts = leased()
    verdict = attempts.offered(dispatch(), 5, now_ms=1, now=1.0)
    assert isinstance(verdict, Start)
    assert attempts.snapshot() == (verdict.life, [("1", 1)])
    attempts.release(verdict.life, "1", 1)
    assert attempts.snapshot()[1] == []


def test_a_dispatch_past_its_start_by_is_refused_by_the_servers_clock():
    attempts = leased()
    assert isinstance(attempts.offered(dispatch(), 5, now_ms=10_000, now=1.0), Start)
    late = attempts.offered(dispatch("2"), 6, now_ms=10_001, now=1.0)
    assert late == Refuse("delivered 1 ms after its start_by")


def test_an_attempt_seen_twice_is_refused_also_after_it_has_ended():
    attempts = leased()
    first = attempts.offered(dispatch(), 5, now_ms=1, now=1.0)
    assert isinstance(first, Start)
    assert isinstance(attempts.offered(dispatch(), 5, now_ms=2, now=1.0), Refuse)
    attempts.release(first.life, "1", 1)
    assert isinstance(attempts.offered(dispatch(), 9, now_ms=3, now=1.0), Refuse)
    assert isinstance(attempts.offered(dispatch(attempt=2), 10, now_ms=3, now=1.0), Start)


def test_a_clock_that_steps_back_does_not_revive_a_forgotten_attempt():
    attempts = leased()
    assert isinstance(attempts.offered(dispatch("old", start_by=10), 1, now_ms=5, now=1.0), Start)
    for number in range(20_000):
        now_ms = 100 + number
        attempts.offered(dispatch(f"n{number}", start_by=now_ms + 50), 2, now_ms=now_ms, now=1.0)
    again = attempts.offered(dispatch("old", start_by=10), 1, now_ms=5, now=1.0)
    assert isinstance(again, Refuse)


def test_what_was_seen_is_forgotten_once_its_start_by_has_passed():
    attempts = leased()
    for number in range(100_000):
        task = dispatch(f"n{number}", start_by=number + 50)
        verdict = attempts.offered(task, number + 1, now_ms=number, now=1.0)
        assert isinstance(verdict, Start)
        attempts.release(verdict.life, task.task, task.attempt)
    assert attempts.remembered < 20_000
    recent = dispatch("n99999", start_by=100_049)
    assert isinstance(attempts.offered(recent, 1, now_ms=99_999, now=1.0), Refuse)


def test_a_dispatch_stored_before_the_connection_needs_the_routers_word():
    attempts = leased(barrier=100)
    verdict = attempts.offered(dispatch(), 100, now_ms=1, now=1.0)
    assert isinstance(verdict, Confirm)
    assert attempts.snapshot()[1] == []
    assert isinstance(attempts.offered(dispatch("2"), 101, now_ms=1, now=1.0), Start)
    started = attempts.confirmed(verdict.life, dispatch(), now_ms=2, now=1.0)
    assert isinstance(started, Start)
    assert ("1", 1) in attempts.snapshot()[1]


def test_until_the_journals_end_is_known_everything_may_be_old():
    attempts = leased()
    attempts.connected()
    verdict = attempts.offered(dispatch(), 1_000_000, now_ms=1, now=1.0)
    assert isinstance(verdict, Confirm)
    assert attempts.needs_word(1_000_000)
    attempts.stored_before(999_999)
    assert not attempts.needs_word(1_000_000)


def test_a_confirmation_that_comes_too_late_starts_nothing():
    attempts = leased(barrier=100)
    verdict = attempts.offered(dispatch(), 1, now_ms=1, now=1.0)
    assert isinstance(verdict, Confirm)
    late = attempts.confirmed(verdict.life, dispatch(), now_ms=10_001, now=1.0)
    assert isinstance(late, Refuse)


def test_a_confirmation_for_an_incarnation_that_has_ended_starts_nothing():
    attempts = leased(barrier=100)
    verdict = attempts.offered(dispatch(), 1, now_ms=1, now=1.0)
    assert isinstance(verdict, Confirm)
    attempts.end_lease(LEASE)
    attempts.beat_stored(attempts.life, LEASE)
    assert isinstance(attempts.confirmed(verdict.life, dispatch(), now_ms=2, now=LEASE + 1), Refuse)


def test_no_attempt_starts_without_a_lease():
    attempts = Attempts("x", lease_seconds=LEASE)
    attempts.stored_before(0)
    assert not attempts.wants_work(1.0)
    assert isinstance(attempts.offered(dispatch(), 1, now_ms=1, now=1.0), Refuse)
    attempts = leased()
    assert isinstance(attempts.offered(dispatch(), 1, now_ms=1, now=LEASE), Refuse)


def test_an_acknowledged_beat_extends_the_lease_from_its_sending():
    attempts = leased()
    attempts.beat_stored(attempts.life, 7.0)
    attempts.beat_stored(attempts.life, 6.0)  # its acknowledgement was overtaken
    assert attempts.end_lease(26.9) is None
    assert attempts.end_lease(27.0) is not None


def test_a_host_whose_beats_go_unanswered_wants_no_new_work():
    attempts = leased()
    assert attempts.wants_work(2.9)
    assert not attempts.wants_work(3.0)


def test_the_end_of_the_lease_voids_everything_and_begins_a_new_incarnation():
    attempts = leased()
    verdict = attempts.offered(dispatch(), 1, now_ms=1, now=1.0)
    assert isinstance(verdict, Start)
    assert attempts.may_report(verdict.life, 19.9)
    assert not attempts.may_report(verdict.life, 20.0)
    assert attempts.end_lease(20.0) is verdict.life
    assert attempts.end_lease(99.0) is None
    assert attempts.life.incarnation == "x.1"
    assert attempts.snapshot()[1] == []
    attempts.beat_stored(verdict.life, 30.0)  # a late acknowledgement of the old one's beat
    assert not attempts.wants_work(30.0)
    attempts.beat_stored(attempts.life, 30.0)
    assert not attempts.may_report(verdict.life, 31.0)
    assert isinstance(attempts.offered(dispatch(), 1, now_ms=2, now=31.0), Refuse)
    assert isinstance(attempts.offered(dispatch("2"), 2, now_ms=2, now=31.0), Start)


def test_in_any_order_of_events_an_attempt_starts_once_and_never_without_a_lease():
    for seed in range(200):
        choose = random.Random(seed)
        attempts = Attempts("x", lease_seconds=5.0, suspect_seconds=2.0)
        now, seq, started = 0.0, 0, set()
        parked: list[tuple[Confirm, Dispatch]] = []
        last_acked = float("-inf")
        for _ in range(300):
            now += choose.random()
            now_ms = int(now * 1000)
            what = choose.randrange(6)
            if what == 0:
                attempts.beat_stored(attempts.life, now)
                last_acked = now
            elif what == 1:
                attempts.end_lease(now)
            elif what == 2:
                attempts.connected()
                attempts.stored_before(seq)
            elif what == 3 and parked:
                confirm, waiting = parked.pop()
                verdict = attempts.confirmed(confirm.life, waiting, now_ms=now_ms, now=now)
            else:
                seq += 1
                waiting = dispatch(str(choose.randrange(60)), start_by=30_000)
                verdict = attempts.offered(
                    waiting, choose.randrange(1, seq + 1), now_ms=now_ms, now=now
                )
                if isinstance(verdict, Confirm):
                    parked.append((verdict, waiting))
            if what >= 3 and isinstance(verdict, Start):
                assert waiting.task not in started
                started.add(waiting.task)
                assert now < last_acked + 5.0
                assert now_ms <= waiting.start_by
                assert (waiting.task, 1) in attempts.snapshot()[1]
                verdict = None
