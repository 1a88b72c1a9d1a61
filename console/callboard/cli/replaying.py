"""Replays the journal: the same fold as the ledger's, from its first event, without the ledger.

Rows that have ended leave memory as they come; so a journal of any length is replayed in the
memory of what was open at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from callboard.cli.reaching import link_to
from callboard.cli.screen import STATES, Cell, Screen, clock_time, state_text
from callboard.connecting import Place
from callboard_broker.errors import BadInput
from callboard_broker.reader import Reader
from callboard_broker.record import Record
from callboard_broker.streams import Topology, last_sequence
from callboard_broker.subjects import Subjects
from callboard_broker.wire import (
    Dispatch,
    Expanded,
    Lost,
    Merged,
    Outcome,
    Quarantined,
    Settled,
)
from callboard_ledger.aggregate import Aggregator, Verdict
from callboard_ledger.reading import Reading, read
from callboard_ledger.rows import Flow, Task
from callboard_ledger.views import FlowView, TaskView, view

__all__ = ["Until", "replay_board"]

_SHOWN_OPEN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """Where a replay ends: with an event, or before the first one after a time (Unix ns)."""

    seq: int | None = None
    at_ns: int | None = None

    def passed(self, record: Record) -> bool:
        """Whether `record` comes too late."""
        if self.seq is not None and record.seq > self.seq:
            return True
        return self.at_ns is not None and record.at_ns > self.at_ns


async def replay_board(
    place: Place, screen: Screen, until: Until, chosen: str | None, *, steps: bool
) -> None:
    """Fold the journal and show the result. chosen: the task or workflow to tell the story of.

    Raises `BadInput` if there is none of that id, `StreamMissing`, `BoardUnreachable`.
    """
    topology = Topology(Subjects(place.prefix))
    replay = _Replay(screen, topology.subjects, until, chosen, steps=steps)
    async with link_to(place, name="callboard replay") as connection:
        last, _ = await last_sequence(connection, topology.journal)
        if until.seq is not None:
            last = min(last, until.seq)
        async with Reader(connection, topology.journal, start=1, callback=replay.take) as reader:
            waits = (reader.reached(last), replay.over.wait())
            ends = [asyncio.ensure_future(wait) for wait in waits]
            try:
                done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for end in done:
                    end.result()
            finally:
                for end in ends:
                    end.cancel()
    replay.show()


class _Replay:
    def __init__(
        self, screen: Screen, subjects: Subjects, until: Until, chosen: str | None, *, steps: bool
    ) -> None:
        self.over = asyncio.Event()
        self._screen = screen
        self._subjects = subjects
        self._until = until
        self._chosen = chosen
        self._steps = steps
        self._fold = Aggregator(subjects)
        self._ended: Counter[tuple[str, str]] = Counter()
        self._found: TaskView | FlowView | None = None
        self._story: list[list[Cell]] = []
        self._at_ns = 0

    def take(self, records: list[Record]) -> None:
        """Fold what comes before the end."""
        for record in records:
            if self.over.is_set():
                return
            if self._until.passed(record):
                self.over.set()
                return
            reading = read(self._subjects, record)
            verdict = self._fold.fold(record, reading)
            self._at_ns = record.at_ns
            if self._concerns(reading.resource):
                self._tell(record, reading, verdict)
        self._let_go()

    def show(self) -> None:
        """The state at the end."""
        self._let_go()
        for row in self._open():
            if row.id == self._chosen:
                self._found = view(row)
        if self._chosen is not None:
            self._show_story()
        elif self._screen.json:
            for row in self._open():
                self._screen.document(view(row))
            self._screen.document(self._summary())
        else:
            self._show_state()

    def _open(self) -> list[Task | Flow]:
        return [*self._fold.flows.values(), *self._fold.tasks.values()]

    def _concerns(self, resource: str) -> bool:
        if self._chosen is None or not resource:
            return False
        return resource == self._chosen or (self._steps and resource.startswith(f"{self._chosen}."))

    def _let_go(self) -> None:
        changes = self._fold.changes()
        ended: list[Task | Flow] = [*changes.tasks, *changes.flows]
        for row in ended:
            if not row.ended:
                continue
            self._ended["task" if isinstance(row, Task) else "workflow", row.state] += 1
            if row.id == self._chosen:
                self._found = view(row)
            elif self._chosen is None and self._screen.json:
                self._screen.document(view(row))
        self._fold.saved(changes)

    def _tell(self, record: Record, reading: Reading, verdict: Verdict) -> None:
        what = _what(reading)
        if self._screen.json:
            self._screen.document(
                {
                    "kind": "event",
                    "seq": record.seq,
                    "at": record.at_ns // 1_000_000,
                    "event": reading.address.kind,
                    "id": reading.resource,
                    "actor": reading.actor,
                    "verdict": verdict,
                    "what": what,
                }
            )
        else:
            time = clock_time(record.at_ns // 1_000_000)
            told = what if verdict == "accepted" else f"{what} ({verdict})".strip()
            kind = reading.address.kind
            self._story.append([record.seq, time, kind, reading.resource, reading.actor, told])

    def _show_story(self) -> None:
        if not self._screen.json and self._story:
            columns = ("event#", "time", "kind", "id", "by", "what")
            self._screen.table(columns, self._story, fold="what")
        if self._found is None:
            where = "" if self._until == Until() else " up to there"
            raise BadInput("id", f"the journal{where} has no task or workflow {self._chosen}")
        if self._screen.json:
            self._screen.document(self._found)

    def _counts(self) -> dict[str, dict[str, int]]:
        counts = Counter(self._ended)
        counts.update(("task", row.state) for row in self._fold.tasks.values())
        counts.update(("workflow", row.state) for row in self._fold.flows.values())
        return {
            f"{kind}s": {state: counts[kind, state] for state in STATES}
            for kind in ("task", "workflow")
        }

    def _summary(self) -> dict[str, Any]:
        fold = self._fold
        return {
            "kind": "state",
            "position": fold.position,
            "at": self._at_ns // 1_000_000,
            "void": fold.void,
            "malformed": fold.malformed,
            **self._counts(),
        }

    def _show_state(self) -> None:
        screen, fold = self._screen, self._fold
        when = clock_time(self._at_ns // 1_000_000)
        screen.line(f"state at event {fold.position}, {when}", "bold")
        counts = self._counts()
        rows: list[list[Cell]] = [
            [state_text(state), counts["tasks"][state], counts["workflows"][state]]
            for state in STATES
        ]
        screen.table(("state", "tasks#", "workflows#"), rows)
        if fold.void or fold.malformed:
            screen.line(f"{fold.void} events void, {fold.malformed} not to be read")
        live = list(fold.tasks.values())
        if live:
            screen.line()
            rows = [
                [task.id, state_text(task.state), task.capability, task.tenant, task.attempt]
                for task in live[:_SHOWN_OPEN]
            ]
            screen.table(("open", "state", "capability", "tenant", "attempt#"), rows)
            if len(live) > _SHOWN_OPEN:
                screen.line(f"and {len(live) - _SHOWN_OPEN} more; --json has them all")


def _what(reading: Reading) -> str:
    event = reading.event
    if reading.problem is not None:
        return f"{reading.problem.field}: {reading.problem.message}"
    if isinstance(event, Dispatch):
        return f"attempt {event.attempt} to {reading.address.rest} in pool {reading.address.pool}"
    if isinstance(event, Outcome):
        error = event.error
        ended = "done" if error is None else f"{error.type}: {error.message}"
        return f"attempt {event.attempt}: {ended}, ran {event.ended_at - event.started_at} ms"
    if isinstance(event, Lost):
        return f"attempt {event.attempt} of host {event.host}: {event.reason}"
    if isinstance(event, Settled):
        return event.state if event.error is None else f"{event.state}: {event.error.message}"
    if isinstance(event, Expanded):
        return f"{event.step}: {event.items} items"
    if isinstance(event, Merged):
        return f"the same as {event.same_as}"
    return event.reason if isinstance(event, Quarantined) else reading.address.rest
