"""When each attempt of a task, or of the steps of a workflow, waited and ran: from the journal.

Only events that counted are heard, so what is drawn is what the fold made of them. An attempt
waits from its dispatch to the time at which its host says that the handler began.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from callboard_broker.record import Record
from callboard_broker.wire import Dispatch, FlowRun, Lost, Outcome, Post, Settled
from callboard_ledger.reading import Reading

__all__ = ["Bar", "BarState", "Lane", "Timeline"]

BarState = Literal["running", "succeeded", "failed", "lost", "cancelled", "expired"]

_MOST_LANES = 2_000


class Bar(msgspec.Struct):
    """One attempt. All times are Unix milliseconds. ended_at: None while it runs."""

    attempt: int
    host: str
    dispatched_at: int
    started_at: int | None = None
    ended_at: int | None = None
    state: BarState = "running"


class Lane(msgspec.Struct):
    """A task, a step's element or a workflow. label: its capability, or the workflow's name.

    begun_at: its first event. ended_at, state: its end, once it has one.
    """

    id: str
    label: str
    begun_at: int
    bars: list[Bar] = []
    ended_at: int | None = None
    state: BarState = "running"


class Timeline:
    """Give `hear` the events. lanes: in the order in which they began, 2,000 at most; left_out:
    those beyond. first, last: Unix milliseconds of the first and the last thing there is."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._left_out: set[str] = set()
        self.first = self.last = 0

    @property
    def lanes(self) -> list[Lane]:
        return list(self._lanes.values())

    @property
    def left_out(self) -> int:
        return len(self._left_out)

    def hear(self, record: Record, reading: Reading) -> None:
        """The next event that counted."""
        event, at = reading.event, record.at_ns // 1_000_000
        self.first = self.first or at
        self.last = max(self.last, at)
        if isinstance(event, FlowRun):
            self._lane(reading.resource, event.name, at)
        elif isinstance(event, Post):
            self._lane(reading.resource, reading.address.rest, at)
        elif isinstance(event, Dispatch):
            capability = event.capability or reading.address.rest
            lane = self._lane(event.task, capability, at)
            if lane is not None:
                lane.ended_at, lane.state = None, "running"
                lane.bars.append(Bar(event.attempt, event.host or "", at))
        elif isinstance(event, Outcome):
            self._outcome(event, at)
        elif isinstance(event, Lost):
            self._end(event.task, event.attempt, at, "lost")
        elif isinstance(event, Settled):
            lane = self._lane(event.task, "", at)
            if lane is not None:
                lane.ended_at, lane.state = at, event.state

    def _outcome(self, event: Outcome, at: int) -> None:
        state: BarState = "succeeded" if event.error is None else "failed"
        bar = self._end(event.task, event.attempt, at, state)
        if bar is None:
            return
        bar.host = event.host
        bar.started_at = min(max(event.started_at, bar.dispatched_at), at)
        if state == "succeeded":
            lane = self._lanes[event.task]
            lane.ended_at, lane.state = at, state

    def _end(self, task: str, attempt: int, at: int, state: BarState) -> Bar | None:
        lane = self._lanes.get(task)
        bars = [] if lane is None else [bar for bar in lane.bars if bar.attempt == attempt]
        if not bars:
            return None
        bars[-1].ended_at, bars[-1].state = at, state
        return bars[-1]

    def _lane(self, lane_id: str, label: str, at: int) -> Lane | None:
        """The lane of this id, made if it is new and there is room."""
        lane = self._lanes.get(lane_id)
        if lane is None:
            if len(self._lanes) >= _MOST_LANES:
                self._left_out.add(lane_id)
                return None
            self._lanes[lane_id] = lane = Lane(lane_id, label, at)
        elif not lane.label:
            lane.label = label
        return lane
