"""Draws a timeline as SVG: a lane for each task, a bar for each attempt, an axis of seconds.

The file needs nothing else to be shown: no fonts of its own, no scripts, nothing from elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from callboard.cli.screen import clock_time, visible
from callboard_ledger.timeline import Bar, Lane, Timeline

__all__ = ["COLOURS", "to_svg"]

COLOURS = {
    "running": "#0284c7",
    "succeeded": "#16a34a",
    "failed": "#dc2626",
    "lost": "#d97706",
    "cancelled": "#9333ea",
    "expired": "#9333ea",
}
_WAIT = "#cbd5e1"
_WIDTH, _LEFT, _RIGHT = 1200, 330, 30
_TOP, _ROW, _BAR, _FOOT = 74, 24, 13, 46
_LONGEST_LABEL = 44
_TICKS = 8
_FONT = "ui-sans-serif, system-ui, Helvetica, Arial, sans-serif"


def to_svg(timeline: Timeline, title: str) -> str:
    """The picture, as the text of an SVG file."""
    lanes = timeline.lanes
    height = _TOP + _ROW * max(1, len(lanes)) + _FOOT
    span = max(1, timeline.last - timeline.first)
    scale = (_WIDTH - _LEFT - _RIGHT) / span
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    about = f"from {clock_time(timeline.first)}, {_seconds(span)}, {len(lanes)} lanes"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONT}" font-size="12">',
        f"<title>{_safe(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="16" fill="#0f172a">{_safe(title)}</text>',
        f'<text x="16" y="46" fill="#64748b">{about}</text>',
        *_axis(span, scale, height),
    ]
    for number, lane in enumerate(lanes):
        lines += _lane(lane, _TOP + number * _ROW, timeline, scale)
    lines += _legend(height - 18)
    if timeline.left_out:
        lines.append(
            f'<text x="{_WIDTH - _RIGHT}" y="{height - 18}" text-anchor="end" fill="#64748b">'
            f"{timeline.left_out} more are not drawn</text>"
        )
    return "\n".join([*lines, "</svg>", ""])


def _axis(span: int, scale: float, height: int) -> Iterator[str]:
    bottom = height - _FOOT
    step = _step(span)
    at = 0.0
    while at <= span:
        x = _LEFT + at * scale
        yield f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{bottom}" stroke="#e2e8f0"/>'
        yield (
            f'<text x="{x:.1f}" y="{_TOP - 12}" text-anchor="middle" fill="#64748b">'
            f"{_seconds(at)}</text>"
        )
        at += step


def _lane(lane: Lane, top: int, timeline: Timeline, scale: float) -> Iterator[str]:
    middle = top + _ROW / 2
    text = f"{lane.id}  {lane.label}".strip()
    yield (
        f'<text x="16" y="{middle + 4:.1f}" fill="#0f172a">'
        f"{_safe(_short(text))}<title>{_safe(text)}</title></text>"
    )
    end = lane.ended_at or timeline.last
    colour = COLOURS[lane.state] if lane.ended_at is not None else _WAIT
    first, last = (_x(at, timeline, scale) for at in (lane.begun_at, end))
    yield (
        f'<line x1="{first:.1f}" y1="{middle}" x2="{last:.1f}" y2="{middle}" stroke="{_WAIT}" '
        'stroke-width="2"/>'
    )
    for bar in lane.bars:
        yield from _bar(lane, bar, middle, timeline, scale)
    if lane.ended_at is not None:
        yield f'<circle cx="{last:.1f}" cy="{middle}" r="3.5" fill="{colour}" stroke="#ffffff"/>'


def _bar(lane: Lane, bar: Bar, middle: float, timeline: Timeline, scale: float) -> Iterator[str]:
    end = bar.ended_at or timeline.last
    begun = bar.started_at or (bar.dispatched_at if bar.ended_at is None else end)
    waits, runs, ends = (_x(at, timeline, scale) for at in (bar.dispatched_at, begun, end))
    top = middle - _BAR / 2
    host = f" on {bar.host}" if bar.host else ""
    took = _seconds(end - bar.dispatched_at)
    said = f"{lane.id} attempt {bar.attempt}{host}: {bar.state}, {took}"
    yield f"<g><title>{_safe(said)}</title>"
    if runs > waits:
        yield (
            f'<rect x="{waits:.1f}" y="{top:.1f}" width="{runs - waits:.1f}" height="{_BAR}" '
            f'fill="{COLOURS[bar.state]}" fill-opacity="0.3"/>'
        )
    yield (
        f'<rect x="{runs:.1f}" y="{top:.1f}" width="{max(2.0, ends - runs):.1f}" height="{_BAR}" '
        f'rx="2" fill="{COLOURS[bar.state]}"/></g>'
    )


def _legend(y: int) -> Iterator[str]:
    x = 16
    for name in ("succeeded", "failed", "lost", "cancelled", "running"):
        yield f'<rect x="{x}" y="{y - 9}" width="12" height="10" rx="2" fill="{COLOURS[name]}"/>'
        yield f'<text x="{x + 17}" y="{y}" fill="#475569">{name}</text>'
        x += 96
    yield f'<rect x="{x}" y="{y - 9}" width="12" height="10" fill="#16a34a" fill-opacity="0.3"/>'
    yield f'<text x="{x + 17}" y="{y}" fill="#475569">handed over, not known to run</text>'


def _x(at: int, timeline: Timeline, scale: float) -> float:
    return _LEFT + (min(max(at, timeline.first), timeline.last) - timeline.first) * scale


def _step(span: int) -> float:
    """Milliseconds between two ticks: 1, 2 or 5 times a power of ten."""
    rough = span / _TICKS
    power = 10.0 ** math.floor(math.log10(max(rough, 1)))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def _seconds(ms: float) -> str:
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 120_000:
        return f"{ms / 1000:.4g} s"
    return f"{ms / 60_000:.4g} min" if ms < 7_200_000 else f"{ms / 3_600_000:.4g} h"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "\u2026"


def _safe(text: str) -> str:
    """Names come from strangers: neither markup nor control characters of theirs count."""
    return escape(visible(text))
