"""Shows a timeline: as bars in a terminal or a pipe, as JSON, or as a picture in a file."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from callboard.cli.gantt import to_svg
from callboard.cli.reaching import link_to
from callboard.cli.screen import Cell, Screen, clock_time, lasted, state_text
from callboard.connecting import Place
from callboard_broker.errors import BadInput
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_ledger.replay import Replay, replay
from callboard_ledger.timeline import Lane, Timeline

__all__ = ["drawn", "show_timeline"]

_CELLS = 48
_WAITS, _HANDED, _RUNS = "\u00b7", "\u2591", "\u2588"
_STYLES = {"succeeded": "green", "failed": "red", "lost": "yellow", "running": "cyan"}


async def show_timeline(place: Place, screen: Screen, thing: str, *, svg: Path | None) -> None:
    """Replay the journal and draw what happened to `thing`. Raises `BadInput` without it."""
    topology, timeline = Topology(Subjects(place.prefix)), Timeline()
    replaying = Replay(topology.subjects, about=thing, heard=timeline.hear)
    async with link_to(place, name="callboard timeline") as connection:
        await replay(connection, topology, replaying)
    if not timeline.lanes:
        raise BadInput("id", f"the journal has no task or workflow {thing}")
    if svg is not None:
        _write(svg, to_svg(timeline, f"{thing} on {place.prefix}"))
    if screen.json:
        lanes = {"first": timeline.first, "last": timeline.last, "lanes": timeline.lanes}
        screen.document({**lanes, "left_out": timeline.left_out})
    elif svg is not None:
        screen.line(f"{len(timeline.lanes)} lanes are in {svg}")
    else:
        _show(screen, timeline)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput("svg", f"{path} cannot be written: {error.strerror}") from error


def _show(screen: Screen, timeline: Timeline) -> None:
    first, last = timeline.first, timeline.last
    screen.line(f"{clock_time(first)} to {clock_time(last)} ({lasted(first, last)})", "bold")
    rows: list[list[Cell]] = []
    for lane in timeline.lanes:
        attempts = len(lane.bars)
        took = lasted(lane.begun_at, lane.ended_at)
        ended = lane.state if lane.ended_at is not None else "running"
        state = state_text(ended) if ended != "lost" else ended
        rows.append([lane.id, lane.label, state, attempts, took, drawn(lane, timeline)])
    columns = ("id", "what", "state", "attempts#", "took#", "when")
    screen.table(columns, rows)
    if timeline.left_out:
        screen.note(f"{timeline.left_out} more are not shown")
    screen.note(f"{_WAITS} waits  {_HANDED} is handed over  {_RUNS} runs")


def drawn(lane: Lane, timeline: Timeline) -> Text:
    """The lane as characters, each of them as long as any other."""
    span = max(1, timeline.last - timeline.first)

    def cell(at: int) -> int:
        return min(_CELLS - 1, (at - timeline.first) * _CELLS // span)

    signs, styles = [" "] * _CELLS, [""] * _CELLS
    for place in range(cell(lane.begun_at), cell(lane.ended_at or timeline.last) + 1):
        signs[place] = _WAITS
    for bar in lane.bars:
        end = timeline.last if bar.ended_at is None else bar.ended_at
        begun = bar.started_at or (bar.dispatched_at if bar.ended_at is None else end)
        for place in range(cell(bar.dispatched_at), cell(end) + 1):
            signs[place] = _HANDED if place < cell(begun) else _RUNS
            styles[place] = _STYLES.get(bar.state, "")
    text = Text()
    for sign, style in zip(signs, styles, strict=True):
        text.append(sign, style=style)
    text.rstrip()
    return text
