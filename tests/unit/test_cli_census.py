"""What `callboard agents list` shows of a host."""

from __future__ import annotations

import json

import pytest

from callboard.census import Census, Seen
from callboard.cli.crew import show_census
from callboard.cli.screen import Screen
from callboard_broker.wire import Beat

BEAT = Beat(
    "host-1", "i", "shared", blocked=7.2, allocated_cpu=1.5, allocated_mb=64, layers=["uid"]
)
CENSUS = Census(hosts=[Seen(beat=BEAT, age=0.4)], routers=[])


def test_a_host_whose_loop_is_held_up_is_seen_as_blocked(capsys: pytest.CaptureFixture[str]):
    show_census(Screen(), CENSUS)
    heads, row = capsys.readouterr().out.splitlines()
    assert "blocked" in heads
    assert row.split() == ["host-1", "shared", "0", "0", "0", "MiB", "0.4", "s", "7", "s"]


def test_promises_and_layers_are_there_for_machines(capsys: pytest.CaptureFixture[str]):
    show_census(Screen(json=True), CENSUS)
    (host,) = json.loads(capsys.readouterr().out)["hosts"]
    assert (host["allocated_cpu"], host["allocated_mb"]) == (1.5, 64)
    assert (host["blocked_seconds"], host["layers"]) == (7.2, ["uid"])
