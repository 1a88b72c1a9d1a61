"""Reads one stored message by its sequence, without a consumer."""

from __future__ import annotations

from datetime import UTC, datetime

from callboard_broker.connection import Connection, NoResponder
from callboard_broker.errors import StreamMissing
from callboard_broker.link import header, status
from callboard_broker.record import Record, read_time_ns

__all__ = ["get_first_since", "get_last", "get_message", "get_next"]


async def get_message(connection: Connection, stream: str, seq: int) -> Record:
    """Return message `seq`. Raises `LookupError` if it is not there, `StreamMissing`."""
    return await _get(connection, stream, b'{"seq":%d}' % seq, f"no message {seq} in {stream}")


async def get_last(connection: Connection, stream: str, subject: str) -> Record:
    """Return the last message on `subject`. Raises `LookupError` if there is none."""
    body = b'{"last_by_subj":"%b"}' % subject.encode()
    return await _get(connection, stream, body, f"no message on {subject} in {stream}")


async def get_next(connection: Connection, stream: str, subject: str, seq: int) -> Record:
    """Return the first message on `subject` from `seq` on. Raises `LookupError` without one."""
    body = b'{"seq":%d,"next_by_subj":"%b"}' % (seq, subject.encode())
    return await _get(connection, stream, body, f"no message on {subject} from {seq} in {stream}")


async def get_first_since(connection: Connection, stream: str, at_ms: int) -> Record:
    """Return the first message stored at `at_ms` (Unix milliseconds) or later; or `LookupError`."""
    since = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    body = b'{"start_time":"%b"}' % since.encode()
    return await _get(connection, stream, body, f"no message since {since} in {stream}")


async def _get(connection: Connection, stream: str, body: bytes, missing: str) -> Record:
    try:
        reply = await connection.request(f"$JS.API.DIRECT.GET.{stream}", body)
    except NoResponder:
        raise StreamMissing(stream) from None
    line = status(reply.headers)
    if line is not None and not reply.data:
        raise LookupError(f"{missing} ({line[0]} {line[1]})")
    return Record(
        int(header(reply.headers, "Nats-Sequence") or 0),
        read_time_ns(header(reply.headers, "Nats-Time-Stamp") or ""),
        header(reply.headers, "Nats-Subject") or "",
        reply.headers,
        reply.data,
    )
