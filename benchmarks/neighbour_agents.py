"""Ten well-behaved agents, and what is run beside them: each does harm in its own way."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from callboard import agent

CALM = 5  # of each kind


async def calm(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what came."""
    return payload


def calm_apart(payload: dict[str, Any]) -> dict[str, Any]:
    """Return what came, from a child process."""
    return payload


for _number in range(CALM):
    globals()[f"calm_{_number}"] = agent(f"calm.inline.{_number}")(calm)
    globals()[f"calm_apart_{_number}"] = agent(
        f"calm.apart.{_number}", isolation="process", slots=2
    )(calm_apart)


@agent("bad.memory", isolation="process", slots=2, memory_mb=64, timeout=5)
def memory(_payload: object) -> None:
    """A memory bomb: touches all that it gets, and wants more."""
    kept = []
    while True:
        kept.append(b"x" * (1 << 20))


@agent("bad.forks", isolation="process", slots=2, timeout=3)
def forks(_payload: object) -> None:
    """A fork bomb: every process is busy and makes others."""
    while True:
        try:
            os.fork()
        except OSError:
            continue


@agent("bad.spin", isolation="process", slots=2, timeout=3)
def spin(_payload: object) -> None:
    """A busy loop."""
    while True:
        pass


@agent("bad.disk", isolation="process", slots=2, timeout=5)
def disk(_payload: object) -> None:
    """A disk filler: one file after the other, until there is no room."""
    number = 0
    while True:
        Path(str(number)).write_bytes(b"x" * (1 << 20))
        number += 1


@agent("bad.blocker", isolation="process", slots=2, timeout=3)
async def blocker(_payload: object) -> None:
    """Blocks its event loop: the one of its own process."""
    while True:
        time.sleep(1)  # noqa: ASYNC251  that is the harm
