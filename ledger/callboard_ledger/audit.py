"""Writes the audit log: hashes of every event of the journal, in chained batches.

At most one batch is in flight, and each is written on condition that the last message of AUDIT is
still the one it continues: of two ledgers only one can extend the log, and the other one goes on
behind it. After a failure, a refusal or a restart the truth is the last message in AUDIT; leaves
stay here until it is known to hold them. It does not depend on the store of rows.
"""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from callboard_broker.connection import ApiError, Connection
from callboard_broker.errors import AuditBroken, BadInput
from callboard_broker.link import raw_headers
from callboard_broker.publisher import Done
from callboard_broker.record import Record
from callboard_broker.streams import Topology
from callboard_ledger.heads import Head
from callboard_ledger.leaves import GENESIS, decode_batch, encode_batch, encode_leaf
from callboard_ledger.reading import Reading

__all__ = ["Auditor", "Tail", "check_tail", "read_tail"]

_NO_MESSAGE = 10037
_MOST_LEAVES = 2_000
_MOST_BYTES = 400 * 1024
_MOST_WAITING = 200_000  # leaves, about 300 bytes each: beyond it they are read again later

Publish = Callable[[bytes, bytes, Done], None]
"""Called with the data and the headers of a message for AUDIT, and what to call afterwards."""


class Tail(NamedTuple):
    """The end of AUDIT. batch: its last message's sequence. last: the last event it covers."""

    batch: int = 0
    last: int = 0
    head: bytes = GENESIS


class Auditor:
    """Gathers leaves and writes them in batches. `flush` now and then; `resume` when `unsure`.

    batch: so many leaves are written without waiting for `flush`. most_bytes: of one message.
    """

    def __init__(
        self, publish: Publish, tail: Tail, *, batch: int = 500, most_bytes: int = _MOST_BYTES
    ) -> None:
        self._publish = publish
        self._batch = batch
        self._most_bytes = min(most_bytes, _MOST_BYTES)
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._in_flight = 0
        self._added = tail.last
        self.tail = tail
        """The end of AUDIT, as far as it is known."""
        self.unsure = asyncio.Event()
        """Set when a write failed: read the tail and `resume`."""
        self.changed = asyncio.Event()
        """Set when a write was stored, and at a failure."""
        self.behind = False
        """Leaves were dropped: once `idle`, the journal must be read again from `tail.last`."""
        self.problem: str | None = None
        """Why nothing is audited any more, if so: the log must not hide a break by going on."""

    @property
    def waiting(self) -> int:
        """How many leaves are not known to be stored."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self.unsure.is_set()

    def add(self, record: Record, reading: Reading) -> None:
        """Take in the next event of the journal; one that was taken in before is passed over."""
        if record.seq <= self._added or self.behind or self.problem is not None:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self._drop()
            return
        self._added = record.seq
        self._waiting.append((record.seq, encode_leaf(record, reading)))
        if not self._in_flight and len(self._waiting) >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Write what waits, unless a batch is in flight or the tail is in doubt."""
        if self._in_flight or not self._waiting or self.unsure.is_set() or self.problem is not None:
            return
        leaves: list[bytes] = []
        size = 0
        for _, leaf in islice(self._waiting, _MOST_LEAVES):
            size += len(leaf) + 1
            if size > self._most_bytes and leaves:
                break
            leaves.append(leaf)
        self._in_flight = len(leaves)
        first, last = self._waiting[0][0], self._waiting[len(leaves) - 1][0]
        data, head = encode_batch(self.tail.head, leaves, first, last)

        def done(seq: int | None, error: Exception | None) -> None:
            self._in_flight = 0
            if seq is None or error is not None:
                self.unsure.set()
            else:
                self._extend(Tail(seq, last, head))
            self.changed.set()

        self._publish(data, _guard(self.tail.batch), done)

    def resume(self, tail: Tail) -> None:
        """Go on from what AUDIT really ends with. Raises `AuditBroken` if it has been shortened."""
        if tail.batch < self.tail.batch or (tail.batch == self.tail.batch and tail != self.tail):
            self.problem = (
                f"AUDIT ended with batch {self.tail.batch}, now it ends with batch {tail.batch}: "
                "it was cut or written anew"
            )
            raise AuditBroken([self.problem])
        self.unsure.clear()
        self._extend(tail)

    def reread(self) -> int:
        """The journal is about to be read again: return the sequence from which it must be."""
        self.behind = False
        self._added = self._waiting[-1][0] if self._waiting else self.tail.last
        return self._added + 1

    def _extend(self, tail: Tail) -> None:
        self.tail = tail
        while self._waiting and self._waiting[0][0] <= tail.last:
            self._waiting.popleft()
        self._added = max(self._added, tail.last)
        if len(self._waiting) >= self._batch:
            self.flush()

    def _drop(self) -> None:
        """AUDIT cannot be written for long: keep what may be in flight, read the rest again."""
        self.flush()
        while len(self._waiting) > self._in_flight:
            self._waiting.pop()
        self.behind = True
        self.changed.set()


async def read_tail(connection: Connection, topology: Topology, batch: int | None = None) -> Tail:
    """The last message of AUDIT, or message `batch`, as the stream's leader has it.

    Raises `AuditBroken` if it cannot be read or is not there, and what `Connection.api` raises.
    """
    subject = topology.subjects.audit
    asked = {"last_by_subj": subject} if batch is None else {"seq": batch}
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{topology.audit}", asked)
    except ApiError as error:
        if error.err_code != _NO_MESSAGE:
            raise
        if batch is not None:
            raise AuditBroken([f"batch {batch} is missing in AUDIT"]) from None
        return Tail()
    message = answer["message"]
    try:
        last = decode_batch(base64.b64decode(message.get("data", "")))
    except BadInput as error:
        raise AuditBroken([f"batch {message['seq']} in AUDIT cannot be read: {error}"]) from error
    return Tail(message["seq"], last.last, bytes.fromhex(last.head))


async def check_tail(
    connection: Connection, topology: Topology, kept: Head | None, *, journal: tuple[str, int]
) -> Tail:
    """The tail to go on from, if it agrees with the head kept outside and with the journal.

    journal: when it was created, as the server tells it, and its last sequence.
    Raises `AuditBroken` (the log must not go on as if nothing had happened).
    """
    tail = await read_tail(connection, topology)
    created, last = journal
    if kept is not None and kept.journal and kept.journal != created:
        raise AuditBroken([f"the journal of {kept.journal} was replaced by one of {created}"])
    if tail.last > last:
        raise AuditBroken([f"the journal ends at {last}, and was audited up to {tail.last}"])
    if kept is None or not kept.batch:
        return tail
    if tail.batch < kept.batch:
        raise AuditBroken([f"AUDIT ends with batch {tail.batch}; it had {kept.batch}: it was cut"])
    same = await read_tail(connection, topology, kept.batch)
    if same.head.hex() != kept.head:
        raise AuditBroken([f"batch {kept.batch} in AUDIT is not the one it was: written anew"])
    return tail


def _guard(batch: int) -> bytes:
    return raw_headers({"Nats-Expected-Last-Subject-Sequence": str(batch)})
