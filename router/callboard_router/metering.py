"""Token buckets in the time of the events: what was drawn decays at the rate of its refill.

A bucket holds what was drawn and not yet refilled, rather than what is left; so a higher capacity
helps at once, and what is drawn beyond the capacity is a debt that the rate pays off.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from callboard_broker.wire import Limit

__all__ = ["RATE", "Bucket", "Meter", "Rule", "rule_of"]

RATE = ""
"""Stands where a unit's name stands, for the dispatches themselves."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A limit of what flows. per_ms: refill; 0: what was drawn never comes back."""

    capacity: float
    per_ms: float


@dataclass(frozen=True, slots=True)
class Rule:
    """What limits one budget. buckets: by unit; `RATE` for dispatches."""

    concurrency: int
    buckets: dict[str, Bucket] = field(default_factory=dict)


def rule_of(limit: Limit) -> Rule:
    """The limit, as it is checked. Without `burst`, what a second brings, and at least one."""
    buckets = {}
    if limit.rate is not None:
        burst = max(1.0, limit.rate) if limit.burst is None else limit.burst
        buckets[RATE] = Bucket(burst, limit.rate / 1000)
    for unit, quota in sorted(limit.units.items()):
        per_ms = 0.0 if quota.per is None else quota.limit / (quota.per * 1000)
        buckets[unit] = Bucket(quota.limit, per_ms)
    return Rule(sys.maxsize if limit.concurrency is None else limit.concurrency, buckets)


@dataclass(slots=True)
class Meter:
    """What was drawn from a bucket, as of `at_ms`."""

    drawn: float
    at_ms: int

    def drawn_by(self, bucket: Bucket, at_ms: int) -> float:
        """What is still drawn at that time, which is not before the last one."""
        elapsed = at_ms - self.at_ms
        if elapsed <= 0:
            return self.drawn
        return max(0.0, self.drawn - elapsed * bucket.per_ms)

    def refill(self, bucket: Bucket, at_ms: int) -> None:
        """Let time pass."""
        if at_ms > self.at_ms:
            self.drawn = self.drawn_by(bucket, at_ms)
            self.at_ms = at_ms
