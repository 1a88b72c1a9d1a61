"""How the attempts of a batch went, summed by tenant, capability and host.

The sums of a batch are added to those in the database in the transaction that moves the position,
so every outcome that counts is counted once.
"""

from __future__ import annotations

from typing import Any

import msgspec

from callboard_broker.wire import Lost, Outcome
from callboard_ledger.projection.documents import without_nul
from callboard_ledger.rows import Task

__all__ = ["Performance"]

_MOST_MS = 10**12  # a clock that is off must not make a sum overflow
_encoder = msgspec.json.Encoder()


class _Sums(msgspec.Struct):
    tenant: str
    capability: str
    host: str
    succeeded: int = 0
    failed: int = 0
    lost: int = 0
    wait_ms: int = 0
    waits: int = 0
    handoff_ms: int = 0
    run_ms: int = 0
    run_ms_max: int = 0
    run_buckets: list[int] = []
    used: dict[str, float] = {}


class Performance:
    """The sums of what was counted since they were taken last."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], _Sums] = {}

    def count(self, event: Outcome | Lost, task: Task) -> None:
        """An accepted outcome or loss of an attempt of `task`, which has been folded."""
        key = task.tenant, task.capability, event.host or ""
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = _Sums(*key)
        if isinstance(event, Lost):
            sums.lost += 1
            return
        if event.error is None:
            sums.succeeded += 1
        else:
            sums.failed += 1
        for unit, amount in event.used.items():
            sums.used[unit] = sums.used.get(unit, 0.0) + amount
        begun = task.dispatched_at
        if begun is not None:
            sums.handoff_ms += _span(begun, event.started_at)
            if task.posted_at is not None and event.attempt == 1:
                sums.waits += 1
                sums.wait_ms += _span(task.posted_at, begun)
        run = _span(event.started_at, event.ended_at)
        sums.run_ms += run
        sums.run_ms_max = max(sums.run_ms_max, run)
        bucket = run.bit_length()
        sums.run_buckets += [0] * (bucket + 1 - len(sums.run_buckets))
        sums.run_buckets[bucket] += 1

    def take(self) -> list[tuple[str, bytes]]:
        """The sums as (name, JSON); the next ones begin at nothing."""
        found, self._sums = self._sums, {}
        return [
            (f"{sums.tenant}/{sums.capability}/{sums.host}", self._document(sums))
            for sums in found.values()
        ]

    def _document(self, sums: _Sums) -> bytes:
        document: dict[str, Any] = msgspec.structs.asdict(sums)
        return without_nul(_encoder.encode(document))


def _span(start: int, end: int) -> int:
    return min(max(end - start, 0), _MOST_MS)
