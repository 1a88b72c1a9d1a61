"""What the ledger does not keep is read from the journal when somebody asks: payloads, results,
the router's reasons, and the history of a task.

A row knows the sequences of its events, so each is one read. What has left the journal since is
simply not there.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from callboard_broker.connection import Connection
from callboard_broker.direct import get_message
from callboard_broker.errors import StreamMissing
from callboard_broker.record import Record
from callboard_broker.streams import Topology, first_sequence
from callboard_broker.wire import (
    BlobRef,
    Command,
    Dispatch,
    Entered,
    FlowRun,
    Lost,
    Outcome,
    Post,
    Retrying,
    Settled,
    Skipped,
)
from callboard_ledger.reading import read
from callboard_ledger.rows import MOST_REMEMBERED, CommandRow, Flow, Schedule, Task
from callboard_ledger.viewing import view_command
from callboard_ledger.views import (
    AttemptView,
    EndView,
    FlowView,
    HistoryView,
    ScheduleView,
    TaskView,
)

__all__ = ["Contents"]

_PATIENCE_SECONDS = 2.0
_PAUSE_SECONDS = 0.05

_LAST = 3  # events of an attempt at the most: its outcome, that it is retried, the next dispatch

_Payload = tuple[Raw | UnsetType, BlobRef | None]


class Contents:
    """Reads what the events of a row carry. Raises what reading raises, but for what is gone."""

    def __init__(self, connection: Connection, topology: Topology) -> None:
        self._connection = connection
        self._topology = topology

    async def add_result(self, answer: TaskView | FlowView) -> None:
        """Of what has succeeded; with what the attempt took, if it is a task."""
        found = await self._event(answer.end_seq)
        if isinstance(found, Outcome | Settled):
            answer.result_blob = found.blob
            if found.blob is None:
                answer.result = found.result
        if isinstance(found, Outcome) and isinstance(answer, TaskView):
            _tell_usage(answer, found)

    async def add_usage(self, answer: TaskView, row: Task) -> None:
        """What the last attempt took that had an outcome, of a task that has not succeeded."""
        for seq in (row.past or [])[: -_LAST - 1 : -1]:
            found = await self._event(seq)
            if isinstance(found, Outcome):
                _tell_usage(answer, found)
            if found is None or isinstance(found, Outcome):
                return

    async def add_why(self, answer: TaskView) -> None:
        """What the router knew at the last dispatch."""
        found = await self._event(answer.dispatch_seq)
        if isinstance(found, Dispatch):
            answer.why = found.why

    async def add_payload(
        self, answer: TaskView | FlowView | ScheduleView, row: Task | Flow | Schedule
    ) -> None:
        """A task's payload; a workflow's inputs, with what was edited in them."""
        if isinstance(row, Flow):
            payload, blob = await self._inputs(row)
        elif isinstance(row, Task):
            given = row.payload_seq or row.post_seq or row.dispatch_seq
            payload, blob = _payload(await self._event(given))
        else:
            payload, blob = _payload(await self._event(row.seq))
        answer.payload_blob = blob
        if blob is None:
            answer.payload = payload

    async def history(self, row: Task | Flow | Schedule, commands: list[CommandRow]) -> HistoryView:
        """The attempts of a task, and how it ended each time."""
        past = [] if isinstance(row, Schedule) else row.past or []
        seqs = {*past, row.end_seq}
        if isinstance(row, Task):
            seqs.add(row.dispatch_seq)
        attempts: dict[int, AttemptView] = {}
        ends: list[EndView] = []
        missing = len(past) >= MOST_REMEMBERED
        for seq in sorted(seq for seq in seqs if seq is not None):
            record = await self._record(seq)
            if record is None:
                missing = True
            else:
                self._tell(record, attempts, ends)
        return HistoryView(
            id=row.id,
            state=row.state,
            generation=0 if isinstance(row, Schedule) else row.generation,
            attempts=[attempts[number] for number in sorted(attempts)],
            commands=[view_command(command) for command in commands],
            ends=ends,
            complete=not missing,
        )

    def _tell(self, record: Record, attempts: dict[int, AttemptView], ends: list[EndView]) -> None:
        reading = read(self._topology.subjects, record)
        event, at = reading.event, record.at_ns // 1_000_000
        if isinstance(event, Settled):
            ends.append(EndView(seq=record.seq, at=at, state=event.state, error=event.error))
            return
        if isinstance(event, Skipped):
            ends.append(EndView(seq=record.seq, at=at, state="cancelled", reason=event.reason))
            return
        if not isinstance(event, Dispatch | Outcome | Lost | Retrying):
            return
        found = attempts.setdefault(
            event.attempt, AttemptView(attempt=event.attempt, state="running")
        )
        if isinstance(event, Dispatch):
            found.seq, found.dispatched_at = record.seq, at
            found.pool = event.pool or reading.address.pool
            found.capability = event.capability or reading.address.rest
            found.host, found.why = event.host, event.why
        elif isinstance(event, Outcome):
            found.state = "succeeded" if event.error is None else "failed"
            found.host, found.error = event.host, event.error
            found.started_at, found.ended_at = event.started_at, event.ended_at
            found.used = event.used or None
            _tell_usage(found, event)
        elif isinstance(event, Lost):
            found.state = "lost"
            found.void_at, found.reason = at, event.reason
            found.host = event.host or found.host
        else:
            found.retry_at = event.at

    async def _inputs(self, row: Flow) -> _Payload:
        edits = list(row.edits or ())
        first = row.seq
        if row.flow is not None and edits:
            first = edits.pop()  # it was entered anew
            edits.clear()
        payload, blob = _payload(await self._event(first))
        for seq in edits:
            over, _ = _payload(await self._event(seq))
            if isinstance(payload, Raw) and isinstance(over, Raw):
                payload = Raw(msgspec.json.encode(_merged(payload, over)))
        return payload, blob

    async def _event(self, seq: int | None) -> object:
        record = None if seq is None else await self._record(seq)
        return None if record is None else read(self._topology.subjects, record).event

    async def _record(self, seq: int) -> Record | None:
        """A journal's message; None if it was removed since.

        Any replica may answer, also one that lags behind: what the leader has comes before long.
        """
        stream, loop = self._topology.journal, asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_SECONDS
        while True:
            try:
                return await get_message(self._connection, stream, seq)
            except StreamMissing:
                raise
            except LookupError:
                removed = seq < await first_sequence(self._connection, stream)
                if removed or loop.time() > deadline:
                    return None
            await asyncio.sleep(_PAUSE_SECONDS)


def _tell_usage(answer: TaskView | AttemptView, outcome: Outcome) -> None:
    answer.usage, answer.layers = outcome.usage, list(outcome.layers)


def _payload(event: object) -> _Payload:
    """What an event carries; nothing if it cannot be read (the row's error says why)."""
    if isinstance(event, Post | Dispatch):
        return event.payload, event.blob
    if isinstance(event, FlowRun):
        return event.inputs, None
    if isinstance(event, Entered):
        return event.inputs, event.blob
    return (event.payload, None) if isinstance(event, Command) else (UNSET, None)


def _merged(old: Raw, new: Raw) -> dict[str, Any]:
    before, after = msgspec.json.decode(old), msgspec.json.decode(new)
    return {**(before if isinstance(before, dict) else {}), **after}
