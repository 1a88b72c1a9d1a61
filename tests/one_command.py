"""One command in its child process: what it says, and how it ends."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from callboard_agents import HostOptions, command_agent
from callboard_agents.cell_plans import cell_plans
from callboard_agents.sandbox import Ending, Nursery, TaskHeader, available, open_nursery
from tests.heard import Heard

__all__ = ["MISSING", "begin", "failed", "measured", "needs", "opened", "run"]

MISSING = [layer for layer, reason in available().items() if reason]


def opened(*words: str, folder: Path, **declared: Any) -> Any:
    """A nursery of one command."""
    command = command_agent("it", words, folder=folder, slots=1, **declared)
    return open_nursery(places=[], plans=cell_plans([command], HostOptions(url="nats://nowhere")))


async def begin(nursery: Nursery, heard: Heard, payload: Any = None) -> Any:
    child = await nursery.wait("it")
    child.start(TaskHeader("12", 2, "acme", "it", 30.0), json.dumps(payload).encode(), heard)
    return child


async def run(*words: str, folder: Path, payload: Any = None, **declared: Any) -> Ending:
    async with opened(*words, folder=folder, **declared) as nursery:
        heard = Heard()
        await begin(nursery, heard, payload)
        async with asyncio.timeout(30):
            return await heard.end


def failed(ending: Ending) -> tuple[str, str]:
    assert ending.failure is not None, ending
    return ending.failure.type, ending.failure.message


def needs(*layers: str) -> None:
    if missing := set(layers) & set(MISSING):
        pytest.skip(f"this host lacks {', '.join(sorted(missing))}")


def measured(words: str, message: str) -> float:
    found = re.fullmatch(words, message)
    assert found is not None, message
    return float(found[1])
