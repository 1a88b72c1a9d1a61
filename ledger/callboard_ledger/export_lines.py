"""The lines of an export: events with their leaves, in the tree that a checkpoint signed.

One JSON object a line. The leaves stand in their order; what was not chosen is there as the hashes
of the complete subtrees that it fills. So whoever reads the lines once, in the memory of one path
of the tree, gets the root, and compares it with the checkpoint.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import msgspec

from callboard_broker.errors import BadInput
from callboard_broker.record import Record

__all__ = [
    "VERSION",
    "CheckpointLine",
    "EventLine",
    "HashLine",
    "Head",
    "Line",
    "RecordLine",
    "encode_line",
    "event_line",
    "read_lines",
    "record_of",
]

VERSION = 1
_LONGEST_LINE = 16 << 20
_GZIP = b"\x1f\x8b"


class Head(msgspec.Struct, frozen=True, tag_field="kind", tag="export", omit_defaults=True):
    """The first line. checkpoint: the note that all is compared with. chosen: by what, in words."""

    size: int
    checkpoint: str
    prefix: str = "cb"
    chosen: dict[str, str] = {}
    v: int = VERSION


class EventLine(msgspec.Struct, frozen=True, tag_field="kind", tag="event", omit_defaults=True):
    """Leaf `index`, and its event as the server stored it. Bytes that are no UTF-8 stand in the
    fields that end in 64, as base64. absent: the event is neither in the journal nor archived."""

    index: int
    leaf: str
    seq: int
    at: int = 0
    subject: str = ""
    headers: str = ""
    data: str = ""
    subject64: str = ""
    headers64: str = ""
    data64: str = ""
    absent: bool = False


class HashLine(msgspec.Struct, frozen=True, tag_field="kind", tag="hash"):
    """The complete subtree `index` of 2^level leaves. hash: base64."""

    level: int
    index: int
    hash: str


class CheckpointLine(msgspec.Struct, frozen=True, tag_field="kind", tag="checkpoint"):
    """A checkpoint of the leaves up to here."""

    note: str


class RecordLine(msgspec.Struct, frozen=True, tag_field="kind", tag="record"):
    """A signed note out of AUDIT: whose key is whose."""

    note: str


Line = Head | EventLine | HashLine | CheckpointLine | RecordLine

_line = msgspec.json.Decoder(Line)
_encoder = msgspec.json.Encoder()


def encode_line(line: Line) -> bytes:
    """The line, with its end."""
    return _encoder.encode(line) + b"\n"


def event_line(index: int, leaf: bytes, seq: int, record: Record | None) -> EventLine:
    """The line of a leaf; record: its event, if it is still there."""
    text = leaf.decode()
    if record is None:
        return EventLine(index, text, seq, absent=True)
    subject, subject64 = _either(record.subject.encode("utf-8", "surrogateescape"))
    headers, headers64 = _either(record.headers)
    data, data64 = _either(record.data)
    return EventLine(
        index, text, seq, record.at_ns, subject, headers, data, subject64, headers64, data64
    )


def record_of(line: EventLine) -> Record:
    """The event as the server stored it. Raises `BadInput`."""
    try:
        subject = line.subject or base64.b64decode(line.subject64).decode(
            "utf-8", "surrogateescape"
        )
        headers = line.headers.encode() or base64.b64decode(line.headers64)
        data = line.data.encode() or base64.b64decode(line.data64)
    except ValueError as error:
        raise BadInput("event", f"event {line.seq} cannot be read: {error}") from error
    return Record(line.seq, line.at, subject, headers, data)


def read_lines(path: Path) -> Iterator[tuple[int, Line | None]]:
    """The lines of a file, also of one in gzip, with their numbers; None: one that cannot be read.

    Raises `BadInput` if the file cannot be read at all, or ends in the middle of compressed data.
    """
    number = 0
    try:
        with path.open("rb") as raw, closing(_plain(raw)) as file:
            while data := file.readline(_LONGEST_LINE):
                number += 1
                try:
                    yield number, _line.decode(data)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    yield number, None
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadInput("file", f"{path} cannot be read behind line {number}: {reason}") from error


def _plain(file: BinaryIO) -> BinaryIO | gzip.GzipFile:
    compressed = file.read(2) == _GZIP
    file.seek(0)
    if not compressed:
        return file
    return gzip.GzipFile(fileobj=file, mode="rb")


def _either(data: bytes) -> tuple[str, str]:
    """As text, or in base64."""
    try:
        return data.decode(), ""
    except UnicodeDecodeError:
        return "", base64.b64encode(data).decode()
