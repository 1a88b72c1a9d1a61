"""The state at any moment of the past, and the history of one task: read from the journal alone.

A replay is the fold that the ledger runs, stopped early. It says of each event whether it counted,
so that what a late host or a router whose epoch was over wrote is shown as what it is. Whoever
takes the rows as they end replays a journal of any length in the memory of what was open at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from callboard_broker.connection import Connection
from callboard_broker.record import Record
from callboard_broker.rule import TaskState
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Merged
from callboard_ledger.aggregate import Aggregator, Verdict
from callboard_ledger.reading import Reading, read
from callboard_ledger.rows import CommandRow, Flow, Row, Schedule, Task
from callboard_ledger.scan import scan
from callboard_ledger.viewing import view
from callboard_ledger.views import FlowView, ScheduleView, TaskView
from callboard_ledger.wording import in_words

__all__ = ["Moment", "Replay", "Replayed", "replay"]

_FORGET_EVERY = 10_000

_Shown = TaskView | FlowView | ScheduleView


class Moment(msgspec.Struct, frozen=True):
    """One event in the history of a task or workflow. at: Unix milliseconds, the server's clock.
    actor: `client`, `router`, or the host's name."""

    seq: int
    at: int
    kind: str
    task: str
    actor: str
    what: str
    verdict: Verdict


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The state after sequence `position`. tasks, flows: how many there are of each state; a
    schedule is counted by the tasks that it made. rows: in the order in which they appeared,
    without those that were given away as they ended. void, malformed: records that meant
    nothing."""

    position: int
    at: int
    epoch: int
    void: int
    malformed: int
    tasks: dict[TaskState, int]
    flows: dict[TaskState, int]
    rows: list[_Shown]
    timeline: list[Moment]


class Replay:
    """Feed it the journal from its beginning; it stops by itself.

    until_seq, until_ms: the last moment that counts (Unix milliseconds). about: a task, or a
    workflow with all of its steps; without it, rows of everything and no timeline. tenant: only
    this one's rows. ended: gets each row once nothing can change it any more; it is then not kept.
    heard: gets each event of the story of `about` that counted.
    """

    def __init__(
        self,
        subjects: Subjects,
        *,
        until_seq: int | None = None,
        until_ms: int | None = None,
        about: str | None = None,
        tenant: str | None = None,
        ended: Callable[[_Shown], None] | None = None,
        heard: Callable[[Record, Reading], None] | None = None,
    ) -> None:
        self._subjects = subjects
        self._until_seq = until_seq
        self._until_ms = until_ms
        self._about = about
        self._tenant = tenant
        self._give = ended
        self._heard = heard
        self._given: dict[type, Counter[TaskState]] = {Task: Counter(), Flow: Counter()}
        self._fold = Aggregator(subjects)
        self._rows: dict[str, Task | Flow | Schedule] = {}
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
        about = self._fold.target(reading.resource) or reading.resource  # of an answer, the command
        verdict = self._fold.fold(record, reading)
        self._at = max(self._at, at)
        if verdict == "accepted" and isinstance(reading.event, Merged):
            self._rows.pop(reading.resource, None)
        if self._concerns(about):
            self._note(about)
            if self._about is not None and self._tenant in (None, reading.address.tenant):
                self._tell(record, reading, about, verdict)
                if self._heard is not None and verdict == "accepted":
                    self._heard(record, reading)
        if self._fold.unsaved >= _FORGET_EVERY:
            self._forget()
        return False

    def result(self) -> Replayed:
        """The state as far as it was fed."""
        self._forget()
        fold = self._fold
        rows = sorted(self._rows.values(), key=lambda row: row.seq)
        return Replayed(
            position=fold.position,
            at=self._at,
            epoch=fold.epoch,
            void=fold.void,
            malformed=fold.malformed,
            tasks=self._count(Task),
            flows=self._count(Flow),
            rows=[shown for row in rows if isinstance(shown := view(row), _Shown)],
            timeline=self._timeline,
        )

    def _note(self, resource: str) -> None:
        """Keep the row that the last record was about; a schedule's new task is one, too."""
        row = self._fold.row(resource)
        rows: list[Row | None] = [row]
        if isinstance(row, Schedule) and row.last is not None:
            rows.append(self._fold.row(row.last))
        for found in rows:
            if found is None or isinstance(found, CommandRow):
                continue
            if self._tenant in (None, found.tenant):
                self._rows[found.id] = found

    def _concerns(self, resource: str) -> bool:
        if not resource:
            return False
        about = self._about
        return about is None or resource == about or resource.startswith(f"{about}.")

    def _tell(self, record: Record, reading: Reading, about: str, verdict: Verdict) -> None:
        self._timeline.append(
            Moment(
                record.seq,
                record.at_ns // 1_000_000,
                reading.address.kind,
                about,
                reading.actor,
                in_words(reading),
                verdict,
            )
        )

    def _count(self, kind: type[Task | Flow]) -> dict[TaskState, int]:
        counts = self._given[kind].copy()
        counts.update(row.state for row in self._rows.values() if type(row) is kind)
        return dict(counts)

    def _forget(self) -> None:
        """Nothing can change what the fold drops: this gives it away."""
        changes = self._fold.changes()
        gone = set(changes.gone)
        final = self._fold.saved(changes)
        if gone:
            self._rows = {name: row for name, row in self._rows.items() if row.seq not in gone}
        if self._give is None:
            return
        for row in final:
            if self._rows.pop(row.id, None) is None or isinstance(row, CommandRow):
                continue
            if not isinstance(row, Schedule):
                self._given[type(row)][row.state] += 1
            shown = view(row)
            if isinstance(shown, _Shown):
                self._give(shown)


async def replay(connection: Connection, topology: Topology, replaying: Replay) -> Replayed:
    """Feed the journal to `replaying`. Raises what reading raises."""
    await scan(connection, topology.journal, replaying.feed)
    return replaying.result()
