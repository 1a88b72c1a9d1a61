"""What Callboard asks of a NATS server, in memory: subjects, four streams, guards, republish.

It stores, numbers, refuses and tells as nats-server does for the calls that a board makes in
production; what it does not know it refuses by name. Messages are handed over in order, each in a
later turn of the event loop than the one in which it was sent. It has no consumers: whoever reads a
stream is told of each message as it is stored.
"""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from callboard.testing.board_clock import BoardClock
from callboard_broker.batch import GUARD_FAILED
from callboard_broker.headers import header, raw_headers
from callboard_broker.protocol_parser import SinkCallback
from callboard_broker.record import Record, read_time_ns

__all__ = ["MemoryServer", "Stream", "Subscription", "matches"]

_API = "$JS.API."
_NO_STREAM = {"code": 404, "err_code": 10059, "description": "stream not found"}
_NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"
_NOT_FOUND = b"NATS/1.0 404 Message Not Found\r\n\r\n"


@dataclass(slots=True, eq=False)
class Subscription:
    """Who hears a subject. queue: of all with this name, one hears each message."""

    words: list[str]
    callback: SinkCallback
    queue: str = ""
    open: bool = True


@dataclass(slots=True)
class Stream:
    """A stream. config: as it was created. heard: told each record that is stored."""

    config: dict[str, Any]
    created: str
    records: list[Record] = field(default_factory=list)
    last: dict[str, Record] = field(default_factory=dict)
    heard: list[Callable[[Record], None]] = field(default_factory=list)
    last_seq: int = 0

    @property
    def keeps_all(self) -> bool:
        return int(self.config.get("max_msgs_per_subject", -1)) != 1


class MemoryServer:
    """The server of one board. rng: chooses among a queue group."""

    def __init__(self, clock: BoardClock, rng: random.Random) -> None:
        self.clock = clock
        self.streams: dict[str, Stream] = {}
        self.durables: dict[str, dict[str, Any]] = {}
        self._rng = rng
        self._loop = asyncio.get_running_loop()
        self._exact: dict[str, list[Subscription]] = {}
        self._patterns: list[Subscription] = []
        self._filters: list[tuple[list[str], Stream]] = []

    # -- subscriptions

    def subscribe(self, subject: str, callback: SinkCallback, queue: str) -> Subscription:
        """Call `callback` for each message on `subject`, which may have wildcards."""
        subscription = Subscription(subject.split("."), callback, queue)
        if "*" in subscription.words or ">" in subscription.words:
            self._patterns.append(subscription)
        else:
            self._exact.setdefault(subject, []).append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """It hears nothing more."""
        subscription.open = False
        subject = ".".join(subscription.words)
        if subscription in self._patterns:
            self._patterns.remove(subscription)
        elif subject in self._exact:
            self._exact[subject].remove(subscription)

    # -- messages

    def take(self, subject: str, reply: str, headers: bytes, data: bytes) -> None:
        """A client has sent this."""
        if subject.startswith(_API):
            self._answer(reply, subject.removeprefix(_API), data)
            return
        words = subject.split(".")
        for pattern, stream in self._filters:
            if matches(pattern, words):
                self._write(stream, subject, reply, headers, data)
                self._hand_over(subject, words, reply, headers, data)
                return
        if not self._hand_over(subject, words, reply, headers, data) and reply:
            self._say(reply, b"", _NO_RESPONDERS)

    def _hand_over(
        self, subject: str, words: list[str], reply: str, headers: bytes, data: bytes
    ) -> bool:
        """Tell who listens; say whether anybody does."""
        heard = [*self._exact.get(subject, ())]
        heard += [one for one in self._patterns if matches(one.words, words)]
        queues: dict[str, list[Subscription]] = {}
        for one in heard:
            if one.queue:
                queues.setdefault(one.queue, []).append(one)
            else:
                self._loop.call_soon(_deliver, one, subject, reply, headers, data)
        for members in queues.values():
            one = self._rng.choice(members)
            self._loop.call_soon(_deliver, one, subject, reply, headers, data)
        return bool(heard)

    def _say(self, subject: str, data: bytes, headers: bytes = b"") -> None:
        if subject:
            self._hand_over(subject, subject.split("."), "", headers, data)

    # -- streams

    def _write(self, stream: Stream, subject: str, reply: str, headers: bytes, data: bytes) -> None:
        name = stream.config["name"]
        if headers:
            expected = header(headers, "Nats-Expected-Last-Subject-Sequence")
            guarded = header(headers, "Nats-Expected-Last-Subject-Sequence-Subject") or subject
            last = stream.last.get(guarded)
            found = 0 if last is None else last.seq
            if expected is not None and int(expected) != found:
                why = f"wrong last sequence: {found}"
                error = {"code": 400, "err_code": GUARD_FAILED, "description": why}
                self._say(reply, _encode({"error": error, "stream": name, "seq": 0}))
                return
        stream.last_seq += 1
        at_ns = self.clock.now_ms() * 1_000_000
        record = Record(stream.last_seq, at_ns, subject, headers, data)
        stream.last[subject] = record
        if stream.keeps_all:
            stream.records.append(record)
        self._say(reply, _encode({"stream": name, "seq": record.seq}))
        self._republish(stream, record)
        for heard in stream.heard:
            self._loop.call_soon(heard, record)

    def _republish(self, stream: Stream, record: Record) -> None:
        told = stream.config.get("republish")
        words = record.subject.split(".")
        if not told or not matches(told["src"].split("."), words):
            return
        stars = [
            word
            for word, pattern in zip(words, told["src"].split("."), strict=True)
            if pattern == "*"
        ]
        subject = told["dest"]
        for number, word in enumerate(stars, 1):
            subject = subject.replace(f"{{{{wildcard({number})}}}}", word)
        self._say(subject, record.data, self._headers_of(stream, record))

    def _headers_of(self, stream: Stream, record: Record) -> bytes:
        return raw_headers(
            {
                "Nats-Stream": stream.config["name"],
                "Nats-Subject": record.subject,
                "Nats-Sequence": str(record.seq),
                "Nats-Time-Stamp": _time(record.at_ns // 1_000_000),
            }
        )

    # -- the API

    def _answer(self, reply: str, verb: str, data: bytes) -> None:
        kind, _, name = verb.partition(".")
        action, _, name = name.partition(".")
        if (kind, action) == ("DIRECT", "GET"):
            self._get(reply, name, data)
            return
        body: dict[str, Any] = msgspec.json.decode(data) if data else {}
        if (kind, action) == ("STREAM", "CREATE"):
            answer = self._create(body)
        elif (kind, action) == ("STREAM", "NAMES"):
            words = str(body.get("subject", ">")).split(".")
            names = [
                one.config["name"] for pattern, one in self._filters if matches(pattern, words)
            ]
            answer = {"streams": sorted(set(names))}
        elif (kind, action) == ("STREAM", "INFO"):
            answer = self._info(name)
        elif (kind, action) == ("CONSUMER", "CREATE"):
            self.durables.setdefault(body["config"]["name"], body["config"])
            answer = {"config": body["config"]}
        else:
            why = f"the board in memory does not know the call {verb}"
            answer = {"error": {"code": 400, "err_code": 0, "description": why}}
        self._say(reply, _encode(answer))

    def _create(self, config: dict[str, Any]) -> dict[str, Any]:
        stream = Stream(config, _time(self.clock.now_ms()))
        self.streams[config["name"]] = stream
        self._filters += [(subject.split("."), stream) for subject in config["subjects"]]
        return self._info(config["name"])

    def _info(self, name: str) -> dict[str, Any]:
        stream = self.streams.get(name)
        if stream is None:
            return {"error": _NO_STREAM}
        state = {"first_seq": 1, "last_seq": stream.last_seq, "messages": len(stream.records)}
        return {
            "config": stream.config,
            "created": stream.created,
            "state": state,
            "ts": _time(self.clock.now_ms()),
        }

    def _get(self, reply: str, name: str, data: bytes) -> None:
        stream = self.streams.get(name)
        if stream is None:
            self._say(reply, b"", _NO_RESPONDERS)
            return
        record = _find(stream, msgspec.json.decode(data))
        if record is None:
            self._say(reply, b"", _NOT_FOUND)
        else:
            self._say(reply, record.data, self._headers_of(stream, record))


def _find(stream: Stream, body: dict[str, Any]) -> Record | None:
    if "last_by_subj" in body:
        return stream.last.get(body["last_by_subj"])
    if "start_time" in body:
        moment = datetime.fromisoformat(body["start_time"]).astimezone(UTC)
        since_ns = read_time_ns(moment.replace(tzinfo=None).isoformat() + "Z")
        place = bisect_left(stream.records, since_ns, key=lambda record: record.at_ns)
        return stream.records[place] if place < len(stream.records) else None
    seq = int(body["seq"])
    return stream.records[seq - 1] if 0 < seq <= len(stream.records) else None


def _deliver(
    subscription: Subscription, subject: str, reply: str, headers: bytes, data: bytes
) -> None:
    if subscription.open:
        subscription.callback(subject, reply, headers, data)


def matches(pattern: list[str], words: list[str]) -> bool:
    """Whether a subject, in words, fits a pattern of NATS (`*` one word, `>` one or more)."""
    for position, word in enumerate(pattern):
        if word == ">":
            return len(words) > position
        if position >= len(words) or word not in ("*", words[position]):
            return False
    return len(pattern) == len(words)


def _time(unix_ms: int) -> str:
    """RFC 3339, as JetStream writes it."""
    moment = datetime.fromtimestamp(unix_ms // 1000, UTC).replace(tzinfo=None)
    return f"{moment.isoformat()}.{unix_ms % 1000:03d}Z"


_encode = msgspec.json.encode
