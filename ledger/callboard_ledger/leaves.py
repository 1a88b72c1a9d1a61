"""What the AUDIT stream holds: batches of leaves, one leaf an event of the journal, chained.

A leaf's event hash is the SHA-256 of everything that the server stored of the event (sequence,
time, subject, headers as they are, and the payload by its own hash), each part with its length, so
that no two events have one encoding. A batch's head is the SHA-256 of the head before it and of the
bytes of its leaves: who changes, removes or reorders one, changes every head after it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from callboard_broker.errors import BadInput
from callboard_broker.record import Record
from callboard_ledger.reading import Reading

__all__ = [
    "GENESIS",
    "Batch",
    "Leaf",
    "chain",
    "decode_batch",
    "encode_batch",
    "encode_leaf",
    "event_hash",
    "hashes",
]

GENESIS = bytes(32)
"""What stands before the first batch."""

_EVENT = b"callboard.event.1\0"
_CHAIN = b"callboard.audit.1\0"
_SHOWN = 200  # an id or a host's name is what somebody claimed: only so much of it is repeated
_numbers = struct.Struct(">QQII")
_json = msgspec.json.Encoder()


class Leaf(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event. event, payload: SHA-256, base64 without padding. actor, resource: as claimed."""

    seq: int
    event: str
    payload: str
    subject: str
    action: str
    tenant: str
    actor: str
    resource: str


class Batch(msgspec.Struct, frozen=True):
    """One message of AUDIT. first, last: the sequences of its leaves. previous, head: hex."""

    first: int
    last: int
    previous: str
    leaves: Raw
    head: str
    v: int = 1

    def unpack(self) -> list[Leaf]:
        """Its leaves. Raises `BadInput`."""
        try:
            return _leaves.decode(self.leaves)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadInput("leaves", str(error)) from error


_batch = msgspec.json.Decoder(Batch)
_leaves = msgspec.json.Decoder(list[Leaf])


def hashes(record: Record) -> tuple[bytes, bytes]:
    """The event's hash and its payload's: 32 bytes each."""
    payload = hashlib.sha256(record.data).digest()
    subject = record.subject.encode("utf-8", "surrogateescape")
    headers = record.headers
    numbers = _numbers.pack(record.seq, record.at_ns, len(subject), len(headers))
    return hashlib.sha256(b"".join((_EVENT, numbers, subject, headers, payload))).digest(), payload


def encode_leaf(record: Record, reading: Reading) -> bytes:
    """The JSON of the leaf of `record`."""
    event, payload = hashes(record)
    address = reading.address
    return _json.encode(
        (
            record.seq,
            _base64(event),
            _base64(payload),
            _printable(record.subject),
            address.kind if address.kind != "flow" else f"flow.{address.rest}",
            address.tenant,
            _printable(reading.actor[:_SHOWN]),
            _printable(reading.resource[:_SHOWN]),
        )
    )


def chain(previous: bytes, leaves: bytes | memoryview) -> bytes:
    """The head of a batch with these leaves (their JSON, byte for byte) after `previous`."""
    return hashlib.sha256(_CHAIN + previous + hashlib.sha256(leaves).digest()).digest()


def encode_batch(
    previous: bytes, leaves: Sequence[bytes], first: int, last: int
) -> tuple[bytes, bytes]:
    """The message for these leaves, and its head."""
    body = b"[" + b",".join(leaves) + b"]"
    head = chain(previous, body)
    data = b'{"v":1,"first":%d,"last":%d,"previous":"%s","leaves":%s,"head":"%s"}' % (
        first,
        last,
        previous.hex().encode(),
        body,
        head.hex().encode(),
    )
    return data, head


def decode_batch(data: bytes) -> Batch:
    """Read a message of AUDIT. Raises `BadInput` that says what is wrong with it."""
    try:
        batch = _batch.decode(data)
        heads = bytes.fromhex(batch.previous), bytes.fromhex(batch.head)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadInput("batch", str(error)) from error
    if [len(head) for head in heads] != [32, 32] or batch.v != 1:
        raise BadInput("batch", "not a batch of this version")
    return batch


def event_hash(leaf: Leaf) -> bytes:
    """The event's hash out of a leaf. Raises `BadInput`."""
    try:
        return base64.b64decode(leaf.event + "=", validate=True)
    except ValueError as error:
        raise BadInput("event", str(error)) from error


def _base64(digest: bytes) -> str:
    return binascii.b2a_base64(digest, newline=False)[:43].decode("ascii")


def _printable(text: str) -> str:
    """`text` as JSON can hold it: a subject or a name may be bytes that are no text."""
    return text if text.isascii() else text.encode("ascii", "backslashreplace").decode("ascii")
