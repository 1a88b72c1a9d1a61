"""How far projectors are behind, told from their bookmarks."""

from __future__ import annotations

from collections.abc import Sequence

from callboard.cli.screen import Cell
from callboard_broker.bookmarks import Bookmark
from callboard_ledger.views import PositionView

__all__ = ["told_projectors"]

_SILENT_SECONDS = 30


def told_projectors(
    bookmarks: Sequence[Bookmark], ledger: PositionView | None, now_ms: int
) -> list[tuple[str, Cell]]:
    """A line for each: its name, and how it is."""
    return [(mark.name, _told(mark, ledger, now_ms)) for mark in bookmarks]


def _told(mark: Bookmark, ledger: PositionView | None, now_ms: int) -> str:
    words = [f"{mark.target} at {mark.position}"]
    if ledger is not None and ledger.last > mark.position:
        words.append(f"{ledger.last - mark.position} events behind")
    if mark.parked:
        words.append(f"{mark.parked} rows parked (`callboard projector parked`)")
    if mark.problem:
        words.append(f"for {_span(now_ms - mark.since)} not written: {mark.problem}")
    silent = now_ms - mark.at
    if silent > _SILENT_SECONDS * 1000:
        words.append(
            f"not heard for {_span(silent)}: the journal keeps everything for it until it runs, or "
            f"`callboard projector forget {mark.name}`"
        )
    return ", ".join(words)


def _span(ms: int) -> str:
    seconds = max(0, ms // 1000)
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"
