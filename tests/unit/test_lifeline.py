"""A process hangs when it was silent for too long, by the time that its supervisor really had."""

from __future__ import annotations

import os

from callboard_agents.lifeline import Lifeline, Silence


def test_silence_is_counted_from_the_last_sign_of_life():
    silence = Silence(10.0)
    assert silence.step == 1.0
    assert not any(silence.look(float(now), heard=now < 5) for now in range(14))
    assert silence.look(14.0, heard=False)
    assert silence.lasts == 10.0


def test_a_process_that_was_never_heard_is_still_starting():
    silence = Silence(10.0)
    assert not any(silence.look(float(now), heard=False) for now in range(1000))


def test_a_supervisor_that_was_suspended_takes_nobody_for_dead():
    silence = Silence(10.0)
    assert not silence.look(0.0, heard=True)
    assert not silence.look(1.0, heard=False)
    for night in range(1, 4):
        assert not silence.look(night * 30_000.0, heard=False)
    assert silence.lasts == 7.0
    assert not silence.look(90_001.0, heard=True)
    assert silence.lasts == 0.0


def test_a_lifeline_neither_waits_nor_fails():
    ours, theirs = os.pipe()
    line = Lifeline(theirs)
    for _ in range(100_000):  # more than a pipe holds
        line.pull()
    os.close(ours)
    line.pull()
    line.close()
