"""How agents and capabilities perform, and what fails: counted in the fold, one hour at a time.

What an event adds is collected until the next save, which adds it to the rows of the store in the
transaction that moves the position: nothing is counted twice, and memory holds only what is new.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from callboard_broker.wire import Failure, Outcome
from callboard_ledger.histogram import Histogram, bucket, merge

__all__ = [
    "HOUR_MS",
    "FailureKey",
    "FailureTally",
    "Performance",
    "PerformanceKey",
    "Tally",
    "pattern_of",
]

HOUR_MS = 3_600_000

_MOST_PATTERN = 200
_VARIABLE = re.compile(
    r"0x[0-9a-fA-F]+|[0-9a-f]{8,}(?:-[0-9a-f]{4,})*|\d+(?:\.\d+)?|'[^']*'|\"[^\"]*\""
)


class PerformanceKey(NamedTuple):
    """Whose figures. hour: of Unix time. agent: its name; empty for attempts whose agent is not
    known, because they were lost."""

    hour: int
    tenant: str
    capability: str
    agent: str
    version: str


class Tally(msgspec.Struct):
    """Attempts by how they ended, and how long they took. wait: from when the task could run to
    its first dispatch; handoff: from a dispatch to its handler's start; run: the handler. used: by
    unit."""

    succeeded: int = 0
    failed: int = 0
    lost: int = 0
    wait: Histogram = {}
    handoff: Histogram = {}
    run: Histogram = {}
    used: dict[str, float] = {}

    def add(self, more: Tally) -> None:
        """Count what `more` counted."""
        self.succeeded += more.succeeded
        self.failed += more.failed
        self.lost += more.lost
        merge(self.wait, more.wait)
        merge(self.handoff, more.handoff)
        merge(self.run, more.run)
        _spend(self, more.used)


class FailureKey(NamedTuple):
    """What fails alike: tasks that failed or expired. pattern: the message without what varies."""

    tenant: str
    type: str
    pattern: str
    capability: str
    agent: str
    version: str


class FailureTally(msgspec.Struct):
    """How often, from when to when (Unix milliseconds), and the last one as an example."""

    count: int
    first_at: int
    last_at: int
    example: str
    message: str

    def add(self, more: FailureTally) -> None:
        """Count what `more` counted, which is newer."""
        self.count += more.count
        self.first_at = min(self.first_at, more.first_at)
        self.last_at, self.example, self.message = more.last_at, more.example, more.message


class Performance:
    """What the records since the last save add. by_key, failures: to be added to the store's."""

    def __init__(self) -> None:
        self.by_key: dict[PerformanceKey, Tally] = {}
        self.failures: dict[FailureKey, FailureTally] = {}

    def attempted(
        self, key: PerformanceKey, event: Outcome, begun: int | None, ready_at: int | None
    ) -> None:
        """An attempt, dispatched at `begun`, has ended with an outcome.

        ready_at: when its task could run; None: unknown, or this is not its first attempt.
        """
        tally = self._tally(key)
        if event.error is None:
            tally.succeeded += 1
        else:
            tally.failed += 1
        if begun is not None:
            if ready_at is not None:
                _count(tally.wait, begun - ready_at)
            _count(tally.handoff, event.started_at - begun)
        _count(tally.run, event.ended_at - event.started_at)
        _spend(tally, event.used)

    def lost(self, key: PerformanceKey) -> None:
        """An attempt was declared lost."""
        self._tally(key).lost += 1

    def spent(self, key: PerformanceKey, used: Mapping[str, float]) -> None:
        """An attempt that was declared lost before has used units all the same."""
        _spend(self._tally(key), used)

    def failed(self, key: FailureKey, new: FailureTally) -> None:
        """A task has ended without success."""
        found = self.failures.get(key)
        if found is None:
            self.failures[key] = new
        else:
            found.add(new)

    def _tally(self, key: PerformanceKey) -> Tally:
        tally = self.by_key.get(key)
        if tally is None:
            tally = self.by_key[key] = Tally()
        return tally


def pattern_of(error: Failure) -> str:
    """The message's first line with numbers, ids and quoted words left out."""
    first = error.message.partition("\n")[0][: 2 * _MOST_PATTERN]
    pattern = _VARIABLE.sub("…", first)[:_MOST_PATTERN]
    return f"{error.field}: {pattern}" if error.field else pattern


def _spend(tally: Tally, used: Mapping[str, float]) -> None:
    for unit, amount in used.items():
        tally.used[unit] = tally.used.get(unit, 0.0) + amount


def _count(histogram: Histogram, ms: int) -> None:
    place = bucket(ms)
    histogram[place] = histogram.get(place, 0) + 1
