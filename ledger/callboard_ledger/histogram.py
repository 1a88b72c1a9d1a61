"""Durations as counts in buckets that grow by eight per cent: small, mergeable, exact in number.

A quantile is off by at most four per cent, and below twelve milliseconds, where every bucket holds
one number, not at all; what took less than a millisecond counts as nothing. Two histograms are
merged by adding their counts, so one that is kept in parts says the same as one that is kept whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

__all__ = ["Histogram", "bucket", "merge", "quantile"]

Histogram = dict[int, int]
"""How many durations fell into each bucket."""

_GROWTH = math.log(1.08)
_EXACT = 12  # milliseconds: below, eight per cent are less than one
_LONGEST = 400 * 86_400_000  # milliseconds: longer than any task may take
_TABLE = [0, *(1 + int(math.log(ms) / _GROWTH) for ms in range(1, 4096))]


def bucket(ms: int) -> int:
    """The bucket of a duration in milliseconds; of a negative one, that of none."""
    if ms < len(_TABLE):
        return _TABLE[ms] if ms > 0 else 0
    return 1 + int(math.log(min(ms, _LONGEST)) / _GROWTH)


def merge(into: Histogram, more: Mapping[int, int]) -> None:
    """Add the counts of `more` to `into`."""
    for place, count in more.items():
        into[place] = into.get(place, 0) + count


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """Milliseconds that this share of the durations (0 to 1) did not exceed; None if there are
    none."""
    total = sum(counts.values())
    if not total:
        return None
    wanted = max(1, math.ceil(share * total))
    for place in sorted(counts):
        wanted -= counts[place]
        if wanted <= 0:
            middle = math.exp((place - 0.5) * _GROWTH) if place else 0.0
            return float(round(middle)) if middle < _EXACT else middle
    return None
