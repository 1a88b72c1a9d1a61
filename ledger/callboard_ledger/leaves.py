"""What `cb.audit.leaves` holds: batches of leaves, one leaf an event of the journal.

A leaf's event hash is the SHA-256 of everything that the server stored of the event (sequence,
time, subject, headers as they are, and the payload by its own hash), each part with its length, so
that no two events have one encoding. The leaf, byte for byte as it stands in its batch, is what the
Merkle tree hashes. A batch ends with the edge of the tree that it leads to, so that a ledger goes
on from the last one alone; it never reaches over a multiple of 65,536 leaves, so that the tiles
that it carries are those of one place.
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
from callboard_ledger.merkle import TILE, Tree
from callboard_ledger.reading import Reading

__all__ = [
    "STRIDE",
    "Batch",
    "Leaf",
    "decode_batch",
    "decode_leaf",
    "encode_batch",
    "encode_leaf",
    "event_hash",
    "event_hashes",
    "hashes",
]

STRIDE = TILE * TILE
"""A batch never holds leaves on both sides of a multiple of this."""

_EVENT = b"callboard.event.1\0"
_VERSION = 2
_SHOWN = 200  # an id or a host's name is what somebody claimed: only so much of it is repeated
_MOST_TILES = 8
_numbers = struct.Struct(">QQII")
_json = msgspec.json.Encoder()


class Leaf(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One event. at: the server's time, Unix nanoseconds. event, payload: SHA-256, base64 without
    padding. actor, resource: as claimed."""

    seq: int
    at: int
    event: str
    payload: str
    subject: str
    action: str
    tenant: str
    actor: str
    resource: str


class Batch(msgspec.Struct, frozen=True):
    """One message. first, last: the sequences of its leaves. index: the first leaf's in the tree.

    edge: the tree after it, hashes as base64 in one string. tiles: if it completes a subtree of 256
    leaves, what `Tree.tiles` is after it; otherwise tiled: the message of AUDIT that has them, or 0
    for none.
    """

    index: int
    first: int
    last: int
    leaves: Raw
    edge: str
    tiles: list[str] = []
    tiled: int = 0
    v: int = _VERSION

    def unpack(self) -> tuple[list[Leaf], list[Raw]]:
        """Its leaves, and each as it stands there. Raises `BadInput`."""
        try:
            return _leaves.decode(self.leaves), _raw.decode(self.leaves)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadInput("leaves", str(error)) from error

    def after(self, size: int) -> Tree:
        """The tree that it states, which has `size` leaves. Raises `BadInput`."""
        edge = _split(self.edge, "edge")
        if len(edge) != size.bit_count():
            raise BadInput("edge", f"{len(edge)} hashes are no tree of {size} leaves")
        return Tree(size, edge, self.stated_tiles())

    def stated_tiles(self) -> list[list[bytes]]:
        """The tiles that it carries. Raises `BadInput`."""
        if len(self.tiles) > _MOST_TILES:
            raise BadInput("tiles", "too many levels")
        return [_split(tile, "tiles") for tile in self.tiles]


_batch = msgspec.json.Decoder(Batch)
_leaf = msgspec.json.Decoder(Leaf)
_leaves = msgspec.json.Decoder(list[Leaf])
_raw = msgspec.json.Decoder(list[Raw])


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
            record.at_ns,
            _base64(event),
            _base64(payload),
            _printable(record.subject),
            address.kind if address.kind != "flow" else f"flow.{address.rest}",
            address.tenant,
            _printable(reading.actor[:_SHOWN]),
            _printable(reading.resource[:_SHOWN]),
        )
    )


def encode_batch(
    tree: Tree, leaves: Sequence[bytes], span: tuple[int, int], *, tiled: int, index: int
) -> bytes:
    """The message for these leaves. tree: after them. span: their first and last sequence."""
    tiles = b""
    if tree.size // TILE > index // TILE:
        tiles = b',"tiles":' + _json.encode([_joined(tile) for tile in tree.tiles])
    elif tiled:
        tiles = b',"tiled":%d' % tiled
    return b'{"v":2,"index":%d,"first":%d,"last":%d,"leaves":[%b],"edge":"%b"%b}' % (
        index,
        *span,
        b",".join(leaves),
        _joined(tree.edge).encode(),
        tiles,
    )


def decode_batch(data: bytes) -> Batch:
    """Read a message of AUDIT. Raises `BadInput` that says what is wrong with it."""
    try:
        batch = _batch.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadInput("batch", str(error)) from error
    if batch.v != _VERSION or batch.index < 0:
        raise BadInput("batch", "not a batch of this version")
    return batch


def decode_leaf(data: bytes | str) -> Leaf:
    """Read one leaf. Raises `BadInput`."""
    try:
        return _leaf.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadInput("leaf", str(error)) from error


def event_hash(leaf: Leaf) -> bytes:
    """The event's hash out of a leaf. Raises `BadInput`."""
    return event_hashes(leaf)[0]


def event_hashes(leaf: Leaf) -> tuple[bytes, bytes]:
    """The event's hash out of a leaf, and the first 9 bytes of its payload's. Raises `BadInput`."""
    try:
        return (
            base64.b64decode(leaf.event + "=", validate=True),
            base64.b64decode(leaf.payload[:12], validate=True),
        )
    except ValueError as error:
        raise BadInput("event", str(error)) from error


def _joined(nodes: Sequence[bytes]) -> str:
    return base64.b64encode(b"".join(nodes)).decode()


def _split(text: str, field: str) -> list[bytes]:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise BadInput(field, str(error)) from error
    if len(data) % 32 or len(data) > 32 * TILE:
        raise BadInput(field, "not hashes of 32 bytes")
    return [data[at : at + 32] for at in range(0, len(data), 32)]


def _base64(digest: bytes) -> str:
    return binascii.b2a_base64(digest, newline=False)[:43].decode("ascii")


def _printable(text: str) -> str:
    """`text` as JSON can hold it: a subject or a name may be bytes that are no text."""
    return text if text.isascii() else text.encode("ascii", "backslashreplace").decode("ascii")
