"""The savers for LangGraph side by side, as `benchmarks/langgraph_savers.py` measures them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


_BUSY = 1.5  # on a quiet machine it is 0.5; where all wait for the CPU, little is left of that


def test_with_the_same_promise_a_wide_superstep_is_no_slower_than_with_sqlite_or_postgres(
    tmp_path: Path, tell: Callable[[str], None]
):
    found = tmp_path / "found.json"
    command = ["langgraph_savers.py", "--rounds", "1", "--promise", "fsync", "--json", str(found)]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=_BENCHMARKS,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tell(f"LangGraph savers:\n{done.stdout.strip()}")
    wide = {name: times["500"] for name, times in json.loads(found.read_text())["fsync"].items()}
    slowest = _BUSY * min(wide["SQLite"], wide["Postgres"])
    assert wide["JetStream"] < slowest
