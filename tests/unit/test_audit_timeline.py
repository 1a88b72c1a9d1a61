"""A timeline: what counted is drawn as it was, and what strangers wrote stays text."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec

from callboard.cli.gantt import to_svg
from callboard.cli.timing import drawn
from callboard_broker.record import Record
from callboard_broker.wire import Failure, Outcome
from callboard_ledger.replay import Replay
from callboard_ledger.timeline import Timeline
from tests.ledger_journal import SUBJECTS, Scribe, fan_out

_START = 1_700_000_000_000


def timeline_of(records: list[Record], about: str) -> Timeline:
    timeline = Timeline()
    replaying = Replay(SUBJECTS, about=about, heard=timeline.hear)
    for record in records:
        replaying.feed(record)
    return timeline


class Clock:
    """A scribe whose events lie apart: `wait` before the next one."""

    def __init__(self) -> None:
        self.scribe = Scribe()
        self.scribe.begin_epoch()
        self.at = 0
        self.times: dict[int, int] = {}

    def wait(self, ms: int) -> None:
        self._date()
        self.at += ms

    def _date(self) -> None:
        for record in self.scribe.records:
            self.times.setdefault(record.seq, _START + self.at)

    def outcome(self, task: str, attempt: int = 1, *, took: int, error: str = "") -> None:
        now = _START + self.at
        failure = Failure(error, "no") if error else None
        result = msgspec.UNSET if error else msgspec.Raw(b"1")
        secret = f"s{attempt}"
        outcome = Outcome(task, attempt, secret, "host-1", now - took, now, result, error=failure)
        self.scribe.write(SUBJECTS.run("acme", "outcome", 7), outcome)

    @property
    def records(self) -> list[Record]:
        self._date()
        return [
            msgspec.structs.replace(record, at_ns=self.times[record.seq] * 1_000_000)
            for record in self.scribe.records
        ]


def story() -> tuple[list[Record], str]:
    """A workflow: a plan, three builds of which one fails and one is lost first, and an end."""
    clock = Clock()
    scribe = clock.scribe
    flow = scribe.flow(*fan_out())
    clock.wait(300)
    scribe.dispatch(f"{flow}.plan.0")
    clock.wait(1_200)
    clock.outcome(f"{flow}.plan.0", took=1_000)
    scribe.expanded(flow, "build", 3)
    clock.wait(50)
    for index in range(3):
        scribe.dispatch(f"{flow}.build.{index}")
        clock.wait(100)
    clock.wait(800)
    clock.outcome(f"{flow}.build.0", took=700)
    clock.outcome(f"{flow}.build.1", took=600, error="Boom")
    scribe.retrying(f"{flow}.build.1", 1)
    clock.wait(900)
    scribe.lost(f"{flow}.build.2")
    scribe.dispatch(f"{flow}.build.1", 2)
    scribe.dispatch(f"{flow}.build.2", 2)
    clock.wait(700)
    clock.outcome(f"{flow}.build.1", 2, took=500)
    scribe.outcome(f"{flow}.build.2")  # of the attempt that was lost: it counts for nothing
    clock.wait(600)
    scribe.lost(f"{flow}.build.2", 2)
    scribe.settled(f"{flow}.build.2")
    scribe.settled(flow)
    clock.wait(1)
    scribe.run_task()  # somebody else's
    return clock.records, flow


def test_lanes_and_bars_are_what_the_journal_says() -> None:
    records, flow = story()
    timeline = timeline_of(records, flow)
    lanes = {lane.id.partition(".")[2]: lane for lane in timeline.lanes}
    assert set(lanes) == {"", "plan.0", "build.0", "build.1", "build.2"}
    assert (lanes[""].label, lanes[""].state) == ("nightly", "failed")
    assert lanes["plan.0"].label == "review.python"
    assert [bar.state for bar in lanes["build.1"].bars] == ["failed", "succeeded"]
    assert [bar.state for bar in lanes["build.2"].bars] == ["lost", "lost"]
    plan = lanes["plan.0"].bars[0]
    assert (plan.dispatched_at, plan.started_at, plan.ended_at) == (
        _START + 300,
        _START + 500,
        _START + 1_500,
    )
    assert timeline.last - timeline.first == 4_850


def test_a_lane_in_characters_is_as_long_as_it_took() -> None:
    records, flow = story()
    timeline = timeline_of(records, flow)
    texts = [drawn(lane, timeline).plain for lane in timeline.lanes]
    assert texts[0] == "\u00b7" * 48
    assert texts[1].strip() == "\u2591" * 2 + "\u2588" * 11
    assert all(len(text) <= 48 for text in texts)


def test_the_picture_is_a_well_formed_svg_with_a_bar_for_each_attempt(tmp_path: Path) -> None:
    records, flow = story()
    picture = to_svg(timeline_of(records, flow), "a & b <script>\x1b[31m")
    path = tmp_path / "picture.svg"
    path.write_text(picture, encoding="utf-8")
    root = ET.parse(path).getroot()  # noqa: S314  our own file
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles[0] == "a & b <script>\\x1b[31m"
    assert sum("attempt" in (title or "") for title in titles) == 6
    assert "<script>" not in picture


def test_a_journal_without_time_between_its_events_is_drawn() -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    task = scribe.post()
    timeline = timeline_of(scribe.records, task)
    assert "<svg" in to_svg(timeline, "one")
    assert drawn(timeline.lanes[0], timeline).plain
