"""Figures for whoever asks: rows of the store, grouped by what is asked for, with their quantiles.

Grouping adds histograms, so a group's quantiles are those of all of its attempts together, and not
the mean of several quantiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from callboard_broker.errors import BadInput
from callboard_ledger.histogram import Histogram, quantile
from callboard_ledger.performance import (
    HOUR_MS,
    FailureKey,
    FailureTally,
    PerformanceKey,
    Tally,
)
from callboard_ledger.questions import Grouping

__all__ = ["FailureView", "FailuresView", "FigureView", "FiguresView", "Spread", "grouped", "told"]


_MOST_GROUPS = 1500


class Spread(msgspec.Struct, frozen=True):
    """Milliseconds, within four per cent; None if nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


class FigureView(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The attempts of one group; what it is not grouped by is left out.

    hour: its beginning, Unix milliseconds. success_rate: of those with an outcome. wait: from when
    a task could run to its first dispatch; handoff: from a dispatch to its handler's start; run:
    the handler. used: by unit.
    """

    hour: int | None = None
    tenant: str | None = None
    capability: str | None = None
    agent: str | None = None
    version: str | None = None
    attempts: int
    succeeded: int
    failed: int
    lost: int
    success_rate: float | None
    wait: Spread
    handoff: Spread
    run: Spread
    used: dict[str, float] = {}


class FiguresView(msgspec.Struct):
    """One row a group, sorted by what it is grouped by."""

    items: list[FigureView]
    position: int


class FailureView(msgspec.Struct, kw_only=True):
    """Tasks that failed or expired alike. pattern: their message without what varies. example: the
    last one's id, and message what it said. agent, version: empty where no agent had it last.
    first_at, last_at: Unix milliseconds."""

    type: str
    pattern: str
    tenant: str
    capability: str
    agent: str
    version: str
    count: int
    first_at: int
    last_at: int
    example: str
    message: str


class FailuresView(msgspec.Struct):
    """The most frequent first."""

    items: list[FailureView]
    position: int


def grouped(
    rows: Iterable[tuple[PerformanceKey, Tally]], by: Sequence[Grouping]
) -> list[FigureView]:
    """Return a row for each group. by: `agent` tells the version with it.

    Raises `BadInput` if there are more groups than one answer can hold.
    """
    names = [name for name in PerformanceKey._fields if name in by]
    if "agent" in by and "version" not in names:
        names.append("version")
    groups: dict[tuple[int | str, ...], Tally] = {}
    for key, tally in rows:
        values: tuple[int | str, ...] = tuple(getattr(key, name) for name in names)
        groups.setdefault(values, Tally()).add(tally)
        if len(groups) > _MOST_GROUPS:
            raise BadInput("by", f"makes more than {_MOST_GROUPS} groups: ask for a shorter time")
    return [
        _view(dict(zip(names, values, strict=True)), groups[values]) for values in sorted(groups)
    ]


def told(rows: Iterable[tuple[FailureKey, FailureTally]]) -> list[FailureView]:
    """Return what a store has of failures, as it is answered."""
    return [FailureView(**key._asdict(), **msgspec.structs.asdict(tally)) for key, tally in rows]


def _view(group: dict[str, int | str], tally: Tally) -> FigureView:
    outcomes = tally.succeeded + tally.failed
    hour = group.pop("hour", None)
    return FigureView(
        **{name: str(value) for name, value in group.items()},
        hour=None if hour is None else int(hour) * HOUR_MS,
        attempts=outcomes + tally.lost,
        succeeded=tally.succeeded,
        failed=tally.failed,
        lost=tally.lost,
        success_rate=tally.succeeded / outcomes if outcomes else None,
        wait=_spread(tally.wait),
        handoff=_spread(tally.handoff),
        run=_spread(tally.run),
        used=tally.used,
    )


def _spread(histogram: Histogram) -> Spread:
    found = [quantile(histogram, share) for share in (0.5, 0.95, 0.99)]
    return Spread(*(None if value is None else round(value, 3) for value in found))
