"""What stands in a journal, as a test reads it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from callboard_broker.record import Record
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Command, Event, FlowRun, Post
from callboard_ledger.reading import read

__all__ = ["JournalEvent", "read_event"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEvent:
    """One message. kind: `post`, `dispatch`, `outcome`, `lost`, `settled`, ...; of workflows and
    commands `run`, `cancel`, `approve`, ... task: which it is about, or empty. capability: of a
    post, and of a dispatch to a queue. event: as it was written; None if it cannot be read."""

    seq: int
    at: datetime
    kind: str
    tenant: str
    task: str
    capability: str
    event: Post | FlowRun | Command | Event | None


def read_event(subjects: Subjects, record: Record) -> JournalEvent:
    """Say what `record` means."""
    reading = read(subjects, record)
    address = reading.address
    return JournalEvent(
        seq=record.seq,
        at=datetime.fromtimestamp(record.at_ns / 1e9, UTC),
        kind=address.rest if address.kind == "flow" else address.kind,
        tenant=address.tenant,
        task=reading.resource,
        capability="" if address.kind == "flow" else address.rest,
        event=reading.event,
    )
