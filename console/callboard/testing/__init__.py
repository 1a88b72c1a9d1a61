"""Tests of agents and workflows: without a server in memory, or on a whole real board.

    from callboard.testing import memory_board, virtual_time

    @virtual_time
    async def test_a_review_is_tried_again_after_an_hour():
        async with memory_board([review]) as board:
            board.fail_next("review", TimeoutError("the model is busy"))
            again = Retry(attempts=2, delay=3600)
            handle = await board.submit("review", {"path": "app.py"}, retry=again)
            assert await handle.result() == {"findings": []}

Nothing of Callboard itself imports this package. A name is loaded when it is first used; pytest is
needed by `callboard.testing.pytest_plugin` alone.
"""

from __future__ import annotations

import importlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard.testing.in_memory import MemoryBoard, memory_board
    from callboard.testing.journal import JournalEvent
    from callboard.testing.live import live_board
    from callboard.testing.one_attempt import AttemptOutcome, Spawned, run_agent
    from callboard.testing.processes import Processes, read_journal, started_processes
    from callboard.testing.servers import NatsServer, NotStartedHere, nats_server
    from callboard.testing.time_jumps import NothingHappens, VirtualTimeLoop, run, virtual_time

__all__ = [
    "AttemptOutcome",
    "JournalEvent",
    "MemoryBoard",
    "NatsServer",
    "NotStartedHere",
    "NothingHappens",
    "Processes",
    "Spawned",
    "VirtualTimeLoop",
    "live_board",
    "memory_board",
    "nats_server",
    "read_journal",
    "run",
    "run_agent",
    "started_processes",
    "virtual_time",
]

_HERE = MappingProxyType(
    {
        "AttemptOutcome": "one_attempt",
        "JournalEvent": "journal",
        "MemoryBoard": "in_memory",
        "NatsServer": "servers",
        "NotStartedHere": "servers",
        "NothingHappens": "time_jumps",
        "Processes": "processes",
        "Spawned": "one_attempt",
        "VirtualTimeLoop": "time_jumps",
        "live_board": "live",
        "memory_board": "in_memory",
        "nats_server": "servers",
        "read_journal": "processes",
        "run": "time_jumps",
        "run_agent": "one_attempt",
        "started_processes": "processes",
        "virtual_time": "time_jumps",
    }
)
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _HERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
