"""How hosts have done lately: running time and success, by host and queue.

Both are exponentially weighted averages over the outcomes that counted. They fade with time toward
what is assumed of a host that nobody knows, so that one that failed an hour ago gets its chance.
An observation: two routers may differ in it, and the fold never sees it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from callboard_router.hosts import MOST_CHARACTERS, Queue

__all__ = ["MOST_REMEMBERED", "Performance", "Record"]

MOST_REMEMBERED = 10_000
_WEIGHT = 0.2
_HALF_LIFE_MS = 5 * 60 * 1000
_LONGEST_MS = 30 * 86_400_000


@dataclass(slots=True)
class Record:
    """What one host did of one queue. run_ms: how long it took. success: 0 to 1."""

    run_ms: float
    success: float
    at_ms: int


@dataclass(slots=True)
class Performance:
    """The records of the hosts that finished something last; the oldest make room."""

    records: dict[tuple[str, Queue], Record] = field(default_factory=dict)

    def note(
        self,
        host: str,
        queue: Queue,
        run_ms: float,
        ok: bool,  # noqa: FBT001  the last word of a note, and never a literal
        *,
        at_ms: int = 0,
    ) -> None:
        """An attempt has ended with an outcome that counted.

        run_ms: from start to end, by the host's clock, which may be any number: it counts as at
        least 0 and at most 30 days. ok: no error of the attempt's own making. at_ms: the server's
        time, from which on it fades.
        """
        if len(host) > MOST_CHARACTERS:
            return
        if not 0 <= run_ms <= _LONGEST_MS:
            run_ms = 0.0 if run_ms < 0 else _LONGEST_MS
        key = (host, queue)
        known = self.records.pop(key, None)
        if known is None:
            if len(self.records) >= MOST_REMEMBERED:
                del self.records[next(iter(self.records))]
            known = Record(run_ms, 1.0, at_ms)
        if not ok or known.success < 1.0:
            known.success = self.success(known, at_ms)
            known.success += _WEIGHT * (float(ok) - known.success)
        known.run_ms += _WEIGHT * (run_ms - known.run_ms)
        known.at_ms = max(known.at_ms, at_ms)
        self.records[key] = known

    def known(self, host: str, queue: Queue) -> Record | None:
        """The record of this host, if it has finished anything that is remembered."""
        return self.records.get((host, queue))

    @staticmethod
    def success(record: Record, at_ms: int) -> float:
        """The share of successes at this time: halfway back to 1 every five minutes."""
        age = max(0, at_ms - record.at_ms)
        return 1.0 - (1.0 - record.success) * math.exp2(-age / _HALF_LIFE_MS)
