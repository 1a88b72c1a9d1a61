"""A message of a stream, and the times that JetStream writes."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["Record", "read_time_ns"]


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


def read_time_ns(text: str) -> int:
    """Unix nanoseconds of an RFC 3339 time, such as `2026-01-02T03:04:05.123456789Z`."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    return seconds * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)
