"""The hosts as their beats show them: a fold of BEATS, idempotent by the sequence of that stream.

Beats are observations and never enter the fold of the journal; of a host only the last one counts.
BEATS lies in the server's memory and forgets after a minute: a stream that was made anew begins
again at 1, so a position belongs to the stream's time of birth, and rows outlive both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from callboard_broker.beats import Beat, decode_beat
from callboard_broker.errors import BadInput
from callboard_broker.record import Record
from callboard_broker.subjects import SHARED_POOL

__all__ = ["SILENT_MS", "HostRow", "HostState", "Hosts", "owner_of"]

SILENT_MS = 20_000
"""A host that was not heard for so long is taken for dead, as its lease has ended."""

_KEPT_MS = 7 * 24 * 3600 * 1000
_MOST = 10_000

HostState = Literal["here", "silent", "gone"]


class HostRow(msgspec.Struct, kw_only=True):
    """A host. seq: of its last beat, in BEATS. seen_at: when the server stored that (Unix
    milliseconds); since: likewise the first one of its incarnation that was heard. gone: the
    incarnation has ended, and somebody said so. beat: the last one that says what it has.
    """

    pool: str
    host: str
    seq: int
    seen_at: int
    since: int
    gone: bool
    beat: Beat

    def state(self, now_ms: int) -> HostState:
        """Whether it is there."""
        if self.gone:
            return "gone"
        return "silent" if now_ms - self.seen_at > SILENT_MS else "here"


class Hosts:
    """rows: by (pool, host); routers beat, too, in a pool of their own. position: the last
    sequence of BEATS. created: whose position it is.

    stray: beats that cannot be read, or that claim to be another host's.
    """

    def __init__(self, prefix: str) -> None:
        self._subjects = f"{prefix}.beat."
        self.created = ""
        self.position = 0
        self.rows: dict[tuple[str, str], HostRow] = {}
        self.stray = 0
        self._changed: set[tuple[str, str]] = set()

    def restore(self, created: str, position: int, rows: Iterable[HostRow]) -> None:
        """Begin where a store left off."""
        self.created, self.position = created, position
        self.rows = {(row.pool, row.host): row for row in rows}

    def begin(self, created: str, last: int) -> int:
        """Where to read on in the BEATS that was made at `created` and ends at `last`."""
        if self.created != created or self.position > last:
            self.created, self.position = created, 0
        return self.position + 1

    def apply(self, record: Record) -> bool:
        """Take one message of BEATS; whether it changed anything. Never raises for its content."""
        if record.seq <= self.position:
            return False
        self.position = record.seq
        try:
            beat = decode_beat(record.data)
        except BadInput:
            self.stray += 1
            return False
        if record.subject != f"{self._subjects}{beat.pool}.{beat.host}":
            self.stray += 1
            return False
        return self._hear(beat, record.seq, record.at_ns // 1_000_000)

    @property
    def unsaved(self) -> bool:
        """Whether anything has changed since the last save."""
        return bool(self._changed)

    def changed(self) -> tuple[list[HostRow], list[tuple[str, str]]]:
        """The rows that changed since the last save, and the names of those that are forgotten."""
        there = [self.rows[key] for key in self._changed if key in self.rows]
        return there, [key for key in self._changed if key not in self.rows]

    def saved(self) -> None:
        """A store has what has changed."""
        self._changed = set()

    def _hear(self, beat: Beat, seq: int, at_ms: int) -> bool:
        key = beat.pool, beat.host
        row = self.rows.get(key)
        if row is None:
            self._make_room(at_ms)
            self.rows[key] = HostRow(
                pool=beat.pool,
                host=beat.host,
                seq=seq,
                seen_at=at_ms,
                since=at_ms,
                gone=beat.gone,
                beat=beat,
            )
        elif beat.gone:  # says nothing of what the host has
            if row.gone or not beat.ends(row.beat.incarnation):
                return False
            row.seq, row.seen_at, row.gone = seq, at_ms, True
        else:
            if beat.incarnation != row.beat.incarnation:
                row.since = at_ms
            row.seq, row.seen_at, row.gone, row.beat = seq, at_ms, False, beat
        self._changed.add(key)
        return True

    def _make_room(self, at_ms: int) -> None:
        """A new host comes: forget who was not heard for a week, and the longest silent beyond."""
        rows = self.rows
        old = [key for key, row in rows.items() if at_ms - row.seen_at > _KEPT_MS]
        if len(rows) - len(old) >= _MOST:
            old.append(min(rows, key=lambda key: rows[key].seen_at))
        for key in old:
            rows.pop(key, None)
            self._changed.add(key)


def owner_of(pool: str) -> str:
    """The tenant whose pool it is; empty for the shared one."""
    return "" if pool == SHARED_POOL else pool
