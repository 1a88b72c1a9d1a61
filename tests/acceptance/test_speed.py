"""Speed, as the benchmarks measure it, compared with what was recorded.

A rate says as much of the machine as of the code. So each is compared with a yardstick of the same
run, and the quotient with the one that was recorded on a quiet machine (docs/benchmarks.md). Half
of it is a regression: three quarters were seen at times.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.benches import measured

pytestmark = pytest.mark.timeout(300)

CHAIN = 0.64
"""Tasks a second of a whole board, of those of a bare chain on nats-py."""
KEPT, KEPT_OF_INLINE = 5.5, 0.28
"""Tasks a second in kept children, of those with a child each, and of those inline."""
STEEPEST = 0.15
"""The slope of a decision's time on log-log paper, where 0.03 and 0.05 were recorded: from 100 to
100,000 waiting tasks 0.15 is a factor of 2.8."""


def test_a_board_under_load_is_as_fast_as_recorded(tmp_path: Path, tell: Callable[[str], None]):
    found = tmp_path / "found.json"
    tell(f"Spine:\n{measured('spine', '--rounds', '1', '--tasks', '3000', '--json', str(found))}")
    (once,) = json.loads(found.read_text())
    assert once["callboard"]["tasks_per_s"] / once["bare"]["tasks_per_s"] > CHAIN / 2
    assert once["callboard"]["ledger_behind_s"] < 10


def test_children_are_as_fast_as_recorded(tmp_path: Path, tell: Callable[[str], None]):
    found = tmp_path / "found.json"
    options = ("--rounds", "1", "--tasks", "500", "--json", str(found))
    tell(f"Isolation:\n{measured('isolation', *options)}")
    rates = {kind: row["tasks_per_s"] for kind, row in json.loads(found.read_text()).items()}
    assert rates["process, kept"] / rates["process"] > KEPT / 2
    assert rates["process, kept"] / rates["inline"] > KEPT_OF_INLINE / 2


def test_a_decision_takes_as_long_whatever_waits(tell: Callable[[str], None]):
    found: dict[str, Any] = json.loads(measured("core", "--events", "20000", "--json"))
    tell(
        f"Core: {found['events_per_second']:,.0f} events/s; slope {found['slope_waiting']:+.3f} "
        f"(what waits), {found['slope_tenants']:+.3f} (tenants)"
    )
    assert found["slope_waiting"] < STEEPEST
    assert found["slope_tenants"] < STEEPEST
