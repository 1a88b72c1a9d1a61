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

__all__ = ["MISSING", "Heard", "begin", "failed", "measured", "needs", "opened", "run"]

MISSING = [layer for layer, reason in available().items() if reason]


class Heard:
    """What one child says, and its end."""

    def __init__(self, until: bytes = b"") -> None:
        self.told_of: list[tuple[str, Any]] = []
        self.until = until
        self.reached = asyncio.Event()
        self.end: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def told(self, kind: str, data: bytes) -> None:
        self.told_of.append((kind, json.loads(data or b"null")))
        if self.until and self.until in data:
            self.reached.set()

    def asked(self, number: int, kind: str, data: bytes) -> None:
        raise AssertionError((number, kind, data))

    def ended(self, ending: Ending) -> None:
        if not self.end.done():  # a test that has failed closes what runs
            self.end.set_result(ending)


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
