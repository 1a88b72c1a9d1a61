"""A message of a stream, and what JetStream says of it in its reply subject."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

__all__ = ["Delivered", "Record", "read_ack_subject", "read_time_ns"]


class Record(msgspec.Struct, frozen=True, gc=False):
    """One stored message.

    at_ns: the server's timestamp, Unix nanoseconds. headers: the raw block, or b"".
    subject: bytes that are not UTF-8 are replaced. pending: messages behind it at that moment.
    """

    seq: int
    at_ns: int
    subject: str
    headers: bytes
    data: bytes
    pending: int = 0


class Delivered(NamedTuple):
    """What the acknowledgement subject of a delivered message says."""

    num_delivered: int
    seq: int
    consumer_seq: int
    at_ns: int
    pending: int


def read_ack_subject(reply: str) -> Delivered:
    """Read `$JS.ACK.[domain.account.]stream.consumer.count.seq.cseq.time.pending[.token]`.

    Raises `ValueError` for anything else.
    """
    words = reply.split(".")
    if len(words) == 9:
        _, _, _, _, count, seq, consumer_seq, at_ns, pending = words
    else:
        count, seq, consumer_seq, at_ns, pending = words[6:11]
    return Delivered(int(count), int(seq), int(consumer_seq), int(at_ns), int(pending))


def read_time_ns(text: str) -> int:
    """Unix nanoseconds of an RFC 3339 time, such as `2026-01-02T03:04:05.123456789Z`."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)
