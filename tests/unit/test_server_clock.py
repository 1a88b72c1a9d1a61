"""The server's clock is followed by the monotonic one, and only an answer turns it back."""

from __future__ import annotations

import time

import pytest

from callboard_broker.record import read_time_ns
from callboard_broker.server_clock import ServerClock


def now_ms() -> float:
    return time.time() * 1000


def test_until_the_server_has_spoken_it_is_this_machines_clock():
    clock = ServerClock()
    clock.saw_ns(int((now_ms() + 3_600_000) * 1_000_000))
    assert abs(clock.now_ms() - now_ms()) < 1000


def test_a_later_message_moves_it_on_and_an_old_one_does_not_turn_it_back():
    clock = ServerClock()
    clock.set_ms(1_000_000)
    clock.saw_ns(500_000 * 1_000_000)
    assert 1_000_000 <= clock.now_ms() < 1_001_000
    clock.saw_ns(2_000_000 * 1_000_000)
    assert 2_000_000 <= clock.now_ms() < 2_001_000
    clock.set_ms(1_500_000)
    assert 1_500_000 <= clock.now_ms() < 1_501_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-01-02T03:04:05.123456789Z", 1_767_323_045_123_456_789),
    ],
)
def test_the_servers_times_are_read_to_the_nanosecond(text: str, expected: int):
    assert read_time_ns(text) == expected
