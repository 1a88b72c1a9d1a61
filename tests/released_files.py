"""Where the released persona files of another project lie, for tests that read real ones."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from callboard_integrations.bmad.discovery import discover
from callboard_integrations.bmad.roster import Roster

__all__ = ["released", "roster_of"]

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def released(tag: str) -> Path:
    """The folder of one release; the test is skipped where there is none."""
    folder = Path(os.environ.get("CALLBOARD_TEST_DATA") or _BESIDE) / "bmad" / tag
    if not folder.is_dir():
        pytest.skip(f"no released files in {folder}; CALLBOARD_TEST_DATA names where they are")
    return folder


@functools.cache
def roster_of(tag: str) -> Roster:
    """What is in one release; read once for all tests of a process."""
    return discover(released(tag))
