"""The savers for LangGraph side by side, as `benchmarks/langgraph_savers.py` measures them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.benches import measured

_BUSY = 1.5  # on a quiet machine it is 0.5; where all wait for the CPU, little is left of that


def test_with_the_same_promise_a_wide_superstep_is_no_slower_than_with_sqlite_or_postgres(
    tmp_path: Path, tell: Callable[[str], None]
):
    found = tmp_path / "found.json"
    options = ("--rounds", "1", "--promise", "fsync", "--json", str(found))
    tell(f"LangGraph savers:\n{measured('langgraph_savers', *options)}")
    wide = {name: times["500"] for name, times in json.loads(found.read_text())["fsync"].items()}
    slowest = _BUSY * min(wide["SQLite"], wide["Postgres"])
    assert wide["JetStream"] < slowest
