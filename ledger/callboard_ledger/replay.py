"""The state at any moment of the past, and the history of one task: read from the journal alone.

A replay is the fold that the ledger runs, stopped early and forgetting nothing. It says of each
event whether it counted, so that what a late host or a router whose epoch was over wrote is shown
as what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from callboard_broker.connection import Connection
from callboard_broker.record import Record
from callboard_broker.rule import TaskState
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Dispatch, Expanded, Failure, Lost, Merged, Outcome, Settled
from callboard_ledger.aggregate import Aggregator, Verdict
from callboard_ledger.reading import Reading, read
from callboard_ledger.rows import Flow, Task
from callboard_ledger.scan import scan
from callboard_ledger.views import FlowView, TaskView, view

__all__ = ["Moment", "Replay", "Replayed", "render", "replay"]


class Moment(msgspec.Struct, frozen=True):
    """One event in the history of a task or workflow. at: Unix milliseconds, the server's clock."""

    seq: int
    at: int
    kind: str
    task: str
    what: str
    verdict: Verdict


class Replayed(msgspec.Struct, frozen=True):
    """The state after sequence `position`. rows: in the order in which they appeared."""

    position: int
    at: int
    epoch: int
    states: dict[TaskState, int]
    rows: list[TaskView | FlowView]
    timeline: list[Moment]


class Replay:
    """Feed it the journal from its beginning; it stops by itself.

    until_seq, until_ms: the last moment that counts (Unix milliseconds). about: a task, or a
    workflow with all of its steps; without it, rows of everything and no timeline. tenant: only
    this one's rows.
    """

    def __init__(
        self,
        subjects: Subjects,
        *,
        until_seq: int | None = None,
        until_ms: int | None = None,
        about: str | None = None,
        tenant: str | None = None,
    ) -> None:
        self._subjects = subjects
        self._until_seq = until_seq
        self._until_ms = until_ms
        self._about = about
        self._tenant = tenant
        self._fold = Aggregator(subjects)
        self._rows: dict[str, Task | Flow] = {}
        self._timeline: list[Moment] = []
        self._at = 0

    def feed(self, record: Record) -> bool:
        """Fold the next record; True once it lies beyond the moment that was asked for."""
        at = record.at_ns // 1_000_000
        if self._until_seq is not None and record.seq > self._until_seq:
            return True
        if self._until_ms is not None and at > self._until_ms:
            return True
        reading = read(self._subjects, record)
        verdict = self._fold.fold(record, reading)
        self._at = max(self._at, at)
        if verdict == "accepted" and isinstance(reading.event, Merged):
            self._rows.pop(reading.resource, None)
        if self._concerns(reading.resource):
            row = self._row(reading.resource)
            if row is not None and self._tenant in (None, row.tenant):
                self._rows[reading.resource] = row
            if self._about is not None and self._tenant in (None, reading.address.tenant):
                what = _what(reading)
                kind = reading.address.kind
                self._timeline.append(Moment(record.seq, at, kind, reading.resource, what, verdict))
        if self._fold.unsaved >= 10_000:
            self._fold.saved(self._fold.changes())  # nothing can change what has ended
        return False

    def result(self) -> Replayed:
        """The state as far as it was fed."""
        rows = sorted(self._rows.values(), key=lambda row: row.seq)
        return Replayed(
            position=self._fold.position,
            at=self._at,
            epoch=self._fold.epoch,
            states=dict(Counter(row.state for row in rows)),
            rows=[view(row) for row in rows],
            timeline=self._timeline,
        )

    def _concerns(self, resource: str) -> bool:
        if not resource:
            return False
        about = self._about
        return about is None or resource == about or resource.startswith(f"{about}.")

    def _row(self, resource: str) -> Task | Flow | None:
        task = self._fold.tasks.get(resource)
        if task is not None or not resource.isdecimal():
            return task
        return self._fold.flows.get(int(resource))


async def replay(connection: Connection, topology: Topology, replaying: Replay) -> Replayed:
    """Feed the journal to `replaying`. Raises what reading raises."""
    await scan(connection, topology.journal, replaying.feed)
    return replaying.result()


def render(replayed: Replayed) -> Iterator[str]:
    """Lines for a person: the state, then the timeline if there is one, else every row."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(replayed.states.items()))
    yield f"at {replayed.position} ({_time(replayed.at)}): {states or 'nothing'}"
    for row in replayed.rows:
        name = row.name if isinstance(row, FlowView) else row.capability
        why = "" if row.error is None else f"  {row.error.type}: {row.error.message}"
        yield _plain(f"  {row.id:<16} {row.state:<10} {row.tenant:<12} {name}{why}")
    for moment in replayed.timeline:
        void = "" if moment.verdict == "accepted" else f"  [{moment.verdict}]"
        what = f"{moment.kind:<10} {moment.task:<16} {moment.what}"
        yield _plain(f"{moment.seq:>10}  {_time(moment.at)}  {what}{void}")


def _what(reading: Reading) -> str:
    """What an event says, in a few words."""
    event = reading.event
    if reading.problem is not None:
        return _failure(reading.problem)
    if isinstance(event, Dispatch):
        return f"attempt {event.attempt} to {reading.address.pool}/{reading.address.rest}"
    if isinstance(event, Outcome):
        result = "succeeded" if event.error is None else _failure(event.error)
        return f"attempt {event.attempt} on {event.host}: {result}"
    if isinstance(event, Lost):
        return f"attempt {event.attempt}: {event.reason}"
    if isinstance(event, Settled):
        return event.state if event.error is None else f"{event.state}: {_failure(event.error)}"
    if isinstance(event, Merged):
        return f"the same as {event.same_as}"
    if isinstance(event, Expanded):
        return f"{event.step}: {event.items} items"
    return reading.address.rest


def _failure(failure: Failure) -> str:
    field = f" ({failure.field})" if failure.field else ""
    return f"{failure.type}{field}: {failure.message}"


def _time(at_ms: int) -> str:
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def _plain(line: str) -> str:
    """No control characters: what hosts and posters wrote goes to a terminal."""
    return "".join(char if char.isprintable() else "?" for char in line)
