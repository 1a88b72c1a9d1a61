"""Our parser reads what nats-py's own reads, however the bytes are split; and the header blocks."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser as ReferenceParser

from callboard_broker.errors import BadInput
from callboard_broker.headers import header, raw_headers, status
from callboard_broker.protocol_parser import Parser

Call = tuple[str, Any]


class Recorder:
    """The client behind a parser: writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.calls.append(("message", (sid, subject, reply, data, headers or b"")))

    async def _process_err(self, err_msg: str) -> None:
        self.calls.append(("error", err_msg))

    async def _process_ping(self) -> None:
        self.calls.append(("ping", None))

    async def _process_pong(self) -> None:
        self.calls.append(("pong", None))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.calls.append(("info", info))


def unheard(error: Exception) -> None:
    raise AssertionError("no sink fails here") from error


token = st.text("abcXYZ019_-$éß", min_size=1, max_size=8)
subject = st.lists(token, min_size=1, max_size=5).map(".".join)
payload = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"", b"\r\n", b"MSG a 1 3\r\nabc\r\n", b"PING\r\n", b"x" * 5000]),
)
block = st.dictionaries(token.filter(str.isascii), token, max_size=3).map(raw_headers)
sid = st.integers(1, 4)


def message(subject: str, sid: int, reply: str, data: bytes) -> bytes:
    head = f"MSG {subject} {sid} {reply + ' ' if reply else ''}{len(data)}\r\n"
    return head.encode() + data + b"\r\n"


def with_headers(subject: str, sid: int, reply: str, block: bytes, data: bytes) -> bytes:
    sizes = f"{len(block)} {len(block) + len(data)}"
    head = f"HMSG {subject} {sid} {reply + ' ' if reply else ''}{sizes}\r\n"
    return head.encode() + block + data + b"\r\n"


reply = st.one_of(st.just(""), subject)
piece = st.one_of(
    st.builds(message, subject, sid, reply, payload),
    st.builds(with_headers, subject, sid, reply, block, payload),
    st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Stale Connection'\r\n"]),
    st.builds(
        lambda name: b"INFO " + json.dumps({"server_name": name}).encode() + b"\r\n",
        st.text(max_size=20),
    ),
)


@st.composite
def split_streams(draw: st.DrawFn) -> list[bytes]:
    """A stream of protocol messages, cut at random places."""
    stream = b"".join(draw(st.lists(piece, max_size=8)))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    edges = [0, *cuts, len(stream)]
    return [stream[start:stop] for start, stop in itertools.pairwise(edges)]


async def read_all(parser: Parser | ReferenceParser, chunks: list[bytes]) -> None:
    for chunk in chunks:
        await parser.parse(chunk)


@given(chunks=split_streams())
def test_it_reads_every_stream_as_nats_py_does(chunks: list[bytes]):
    ours, theirs = Recorder(), Recorder()
    asyncio.run(read_all(Parser(ours, {}, unheard), chunks))
    asyncio.run(read_all(ReferenceParser(theirs), chunks))
    assert ours.calls == theirs.calls


@given(chunks=split_streams(), watched=st.sets(sid))
def test_a_sink_gets_exactly_the_messages_of_its_subscription(
    chunks: list[bytes], watched: set[int]
):
    ours, theirs = Recorder(), Recorder()
    heard: list[tuple[int, bytes, bytes, bytes, bytes]] = []

    def sink_of(sid: int) -> Any:
        def sink(subject: str, reply: str, headers: bytes, data: bytes) -> None:
            heard.append((sid, subject.encode(), reply.encode(), data, headers))

        return sink

    sinks = {str(sid): sink_of(sid) for sid in watched}
    asyncio.run(read_all(Parser(ours, sinks, unheard), chunks))
    asyncio.run(read_all(ReferenceParser(theirs), chunks))
    messages = [call[1] for call in theirs.calls if call[0] == "message"]
    assert heard == [found for found in messages if found[0] in watched]
    others = [call for call in theirs.calls if call[0] != "message" or call[1][0] not in watched]
    assert ours.calls == others


@given(junk=st.binary(max_size=200), cut=st.integers(0, 200))
def test_junk_is_refused_or_waited_for_and_nothing_else(junk: bytes, cut: int):
    parser = Parser(Recorder(), {}, unheard)
    try:
        asyncio.run(read_all(parser, [junk[:cut], junk[cut:]]))
    except ProtocolError:
        parser.reset()
    asyncio.run(parser.parse(b"PING\r\n" if not junk else b""))


def test_a_subject_with_a_vertical_tab_stops_nats_py_but_not_us():
    """The server stores it: were it a protocol error, its readers would reconnect for ever."""
    stream = b"MSG cb.task.a\x0bb.\xff\xfe 1 2\r\nhi\r\n"
    with pytest.raises(ProtocolError):
        asyncio.run(read_all(ReferenceParser(Recorder()), [stream]))
    heard: list[str] = []
    sinks = {"1": lambda subject, _reply, _headers, _data: heard.append(subject)}
    asyncio.run(read_all(Parser(Recorder(), sinks, unheard), [stream]))
    assert heard == ["cb.task.a\x0bb.��"]


def test_a_sink_that_raises_is_reported_and_the_next_message_still_arrives():
    errors: list[Exception] = []
    heard: list[bytes] = []

    def sink(_subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        if data == b"1":
            raise ValueError("planted")
        heard.append(data)

    parser = Parser(Recorder(), {"1": sink}, errors.append)
    asyncio.run(parser.parse(b"MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\n"))
    assert [str(error) for error in errors] == ["planted"]
    assert heard == [b"2"]


def test_what_waits_for_the_end_of_a_chunk_is_called_once_after_its_messages():
    seen: list[str] = []
    parser = Parser(Recorder(), {}, unheard)

    def sink(_subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        if not seen:
            parser.after_chunk.append(lambda: seen.append("end"))
        seen.append(data.decode())

    parser = Parser(Recorder(), {"1": sink}, unheard)
    asyncio.run(parser.parse(b"MSG a 1 1\r\n1\r\nMSG a 1 1\r\n2\r\nMSG a 1 5\r\nhal"))
    assert seen == ["1", "2", "end"]
    asyncio.run(parser.parse(b"lo\r\n"))
    assert seen == ["1", "2", "end", "hallo"]


def test_a_reset_forgets_the_half_message_of_the_lost_connection():
    recorder = Recorder()
    parser = Parser(recorder, {}, unheard)
    asyncio.run(parser.parse(b"MSG a 1 100\r\nhalf"))
    parser.reset()
    asyncio.run(parser.parse(b"PING\r\n"))
    assert recorder.calls == [("ping", None)]


def test_a_long_message_in_small_chunks_is_joined_once():
    """The reference moves its whole buffer at each step; 20 MiB must not take minutes."""
    data = b"x" * (20 * 1024 * 1024)
    heard: list[int] = []
    sinks = {"1": lambda _subject, _reply, _headers, data: heard.append(len(data))}
    stream = message("a", 1, "", data)
    chunks = [stream[start : start + 4096] for start in range(0, len(stream), 4096)]
    asyncio.run(read_all(Parser(Recorder(), sinks, unheard), chunks))
    assert heard == [len(data)]


def test_header_blocks_are_written_and_searched():
    raw = raw_headers({"Nats-Msg-Id": "7", "Where": "Zürich: here"})
    assert header(raw, "Nats-Msg-Id") == "7"
    assert header(raw, "Where") == "Zürich: here"
    assert header(raw, "Msg-Id") is None
    assert header(b"", "Where") is None
    assert status(raw) is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"NATS/1.0 503\r\n\r\n", (503, "")),
        (b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Stream: 9\r\n\r\n", (100, "Idle Heartbeat")),
        (b"NATS/1.0 no\r\n\r\n", None),
        (b"", None),
    ],
)
def test_a_status_line_is_read(raw: bytes, expected: tuple[int, str] | None):
    assert status(raw) == expected


@pytest.mark.parametrize("mapping", [{"a": "b\r\nc: d"}, {"a:b": "c"}, {"": "x"}, {"a\n": "x"}])
def test_a_header_that_would_break_its_line_is_refused(mapping: dict[str, str]):
    with pytest.raises(BadInput, match="headers"):
        raw_headers(mapping)
