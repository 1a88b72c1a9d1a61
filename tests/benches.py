"""Runs a benchmark as whoever measures would, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["measured"]

_BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
_SECONDS = 280.0


def measured(name: str, *options: str) -> str:
    """Return what `benchmarks/<name>.py` printed; it must end well."""
    done = subprocess.run(
        [sys.executable, f"{name}.py", *options],
        cwd=_BENCHMARKS,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
