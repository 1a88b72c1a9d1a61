"""One message of the journal as a row: what it was, whose, what became of it, and its hashes.

Its body is kept if it is a short JSON object, number by number as it was written, but without the
secret of an attempt: whoever reads the table must not be able to answer for a host.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from callboard_broker.record import Record
from callboard_ledger.aggregate import Verdict
from callboard_ledger.leaves import hashes
from callboard_ledger.projection.documents import without_nul
from callboard_ledger.reading import Reading

__all__ = ["event_document"]

_SHOWN = 512
_encoder = msgspec.json.Encoder()
_fields = msgspec.json.Decoder(dict[str, Raw])


def event_document(record: Record, reading: Reading, verdict: Verdict, *, most: int) -> bytes:
    """The JSON of an event's row. most: bytes of a body that is kept."""
    address = reading.address
    event, payload = hashes(record)
    found: dict[str, Any] = {
        "seq": record.seq,
        "at": record.at_ns // 1_000_000,
        "tenant": _clean(address.tenant),
        "kind": address.kind if address.kind != "flow" else _clean(f"flow.{address.rest}"),
        "task": _clean(reading.resource),
        "actor": _clean(reading.actor),
        "verdict": verdict,
        "bytes": len(record.data),
        "event_hash": event.hex(),
        "payload_hash": payload.hex(),
    }
    if len(record.data) <= most:
        body = _body(record.data)
        if body is not None:
            found["data"] = body
    return without_nul(_encoder.encode(found))


def _body(data: bytes) -> dict[str, Any] | None:
    """The fields of a JSON object; None if it is none."""
    try:
        data.decode()
        found: dict[str, Any] = _fields.decode(data)
        found.pop("secret", None)
        if "parent" in found:
            parent = _fields.decode(found["parent"])
            parent.pop("secret", None)
            found["parent"] = parent
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return found


def _clean(text: str) -> str:
    """What somebody claimed, as JSON can hold it, and no longer than is of use."""
    text = text[:_SHOWN]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
