"""The streams of one board: created with the settings our guarantees rest on, and checked.

Creating is idempotent. A stream that exists with other settings is never changed: `StreamDrift`
names what differs, because a journal that expires, deduplicates or rolls up breaks the promises
of everything that reads it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from callboard_broker.connection import ApiError, Connection, NoResponder
from callboard_broker.errors import BoardUnreachable, StreamDrift, StreamMissing
from callboard_broker.log_lines import LogBounds
from callboard_broker.record import read_time_ns
from callboard_broker.subjects import Subjects

__all__ = [
    "Topology",
    "bound_logs",
    "ensure_stream",
    "ensure_streams",
    "first_sequence",
    "last_sequence",
]

_NANO = 1_000_000_000
_DUPLICATE_WINDOW = 100_000_000  # 100 ms, the least there is; nothing relies on it
_PATIENCE_SECONDS = 30.0
_TRY_SECONDS = 2.0
_PAUSE_SECONDS = 0.2
_TRANSIENT = frozenset({500, 503})  # a fresh cluster has no leader yet
_BOUNDS = ("max_age", "max_bytes")

# What a stream has when nothing else is said; an absent key means the same.
_PLAIN: dict[str, object] = {
    "retention": "limits",
    "storage": "file",
    "max_age": 0,
    "max_bytes": -1,
    "max_msgs": -1,
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "max_consumers": -1,
    "discard": "old",
    "duplicate_window": _DUPLICATE_WINDOW,
    "no_ack": False,
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "allow_direct": True,
    "allow_rollup_hdrs": False,
    "allow_msg_ttl": False,
    "allow_msg_schedules": False,
    "allow_msg_counter": False,
    "mirror": None,
    "sources": None,
    "subject_transform": None,
    "republish": None,
}


@dataclass(frozen=True, slots=True)
class Topology:
    """The names of a board's streams. replicas: copies of each on a cluster, 1 to 5. log_bounds: of
    LOGS, if it has to be created.

    A board with another prefix than `cb` has streams of its own, so that several boards live on
    one server.
    """

    subjects: Subjects = field(default_factory=Subjects)
    replicas: int = 1
    log_bounds: LogBounds = field(default_factory=LogBounds)

    @property
    def journal(self) -> str:
        return self._named("JOURNAL")

    @property
    def beats(self) -> str:
        return self._named("BEATS")

    @property
    def audit(self) -> str:
        return self._named("AUDIT")

    @property
    def blobs(self) -> str:
        return self._named("BLOBS")

    @property
    def logs(self) -> str:
        return self._named("LOGS")

    def blob(self, name: str, part: int) -> str:
        """The subject of one part of a blob."""
        return f"{self.subjects.prefix}.blob.{name}.{part}"

    def _named(self, stream: str) -> str:
        prefix = self.subjects.prefix
        return stream if prefix == "cb" else f"{stream}_{prefix.upper()}"

    def settings(self) -> list[dict[str, Any]]:
        """The wanted configuration of each stream."""
        subjects = self.subjects
        told = {"src": subjects.told_source, "dest": subjects.told_target}
        own: list[dict[str, Any]] = [
            {
                "name": self.journal,
                "subjects": subjects.journal_filters,
                "allow_atomic": True,
                "republish": told,
            },
            {
                "name": self.beats,
                "subjects": [subjects.beats],
                "max_msgs_per_subject": 1,
                "max_age": 60 * _NANO,
            },
            {
                "name": self.audit,
                "subjects": [f"{subjects.prefix}.audit.*"],
                "deny_delete": True,
                "deny_purge": True,
            },
            {
                "name": self.blobs,
                "subjects": [f"{subjects.prefix}.blob.*.*"],
                "max_msgs_per_subject": 1,
            },
            {"name": self.logs, "subjects": [subjects.logs], **_bounds(self.log_bounds)},
        ]
        return [{**_PLAIN, "num_replicas": self.replicas, **settings} for settings in own]


async def ensure_streams(connection: Connection, topology: Topology) -> None:
    """Create what is missing, and check what is there.

    Raises `StreamDrift`, `BoardUnreachable`, `ApiError` (no right, no space). A cluster that has
    just started is given 30 s to elect its leaders.
    """
    for wanted in topology.settings():
        found = await _patiently(connection, wanted)
        _check(_fixed(wanted) if wanted["name"] == topology.logs else wanted, found)


async def bound_logs(connection: Connection, topology: Topology) -> None:
    """Give LOGS the bounds of `topology`: unlike all else, they may change. Raises `ApiError`."""
    info = await connection.api(f"STREAM.INFO.{topology.logs}")
    config, wanted = info["config"], _bounds(topology.log_bounds)
    if any(config.get(name) != value for name, value in wanted.items()):
        await connection.api(f"STREAM.UPDATE.{topology.logs}", {**config, **wanted})


async def ensure_stream(connection: Connection, settings: dict[str, Any]) -> None:
    """Create one stream, or check it; what `settings` leave out is plain.

    Raises as `ensure_streams` does.
    """
    wanted = {**_PLAIN, **settings}
    found = await _patiently(connection, wanted)
    _check(wanted, found)


async def first_sequence(connection: Connection, stream: str) -> int:
    """Return the sequence with which the stream begins, as its leader knows it. Raises as
    `last_sequence` does."""
    info = await connection.api(f"STREAM.INFO.{stream}")
    return int(info["state"]["first_seq"])


async def last_sequence(
    connection: Connection,
    stream: str,
    *,
    timeout: float = 5.0,  # noqa: ASYNC109  as for `Connection.request`
) -> tuple[int, int]:
    """Return the stream's last sequence and the server's time (Unix ms); sets the clock.

    Raises `StreamMissing`, and what `Connection.request` raises.
    """
    info = await connection.api(f"STREAM.INFO.{stream}", timeout=timeout)
    now_ms = read_time_ns(info["ts"]) // 1_000_000
    connection.clock.set_ms(now_ms)
    return int(info["state"]["last_seq"]), now_ms


async def _patiently(connection: Connection, wanted: dict[str, Any]) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _PATIENCE_SECONDS
    while True:
        try:
            return await _found_or_created(connection, wanted)
        except (TimeoutError, NoResponder, BoardUnreachable):
            if loop.time() > deadline or connection.closed:
                raise
        except ApiError as error:
            if error.code not in _TRANSIENT or loop.time() > deadline:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)


async def _found_or_created(connection: Connection, wanted: dict[str, Any]) -> dict[str, Any]:
    name = wanted["name"]
    try:
        info = await connection.api(f"STREAM.INFO.{name}", timeout=_TRY_SECONDS)
    except StreamMissing:
        body = {key: value for key, value in wanted.items() if value is not None}
        info = await connection.api(f"STREAM.CREATE.{name}", body, timeout=_TRY_SECONDS)
    if "ts" in info:
        connection.clock.set_ms(read_time_ns(info["ts"]) / 1_000_000)
    found: dict[str, Any] = info["config"]
    return found


def _check(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    differences: dict[str, tuple[object, object]] = {}
    for name, value in wanted.items():
        actual = found.get(name, _absent(value))
        if name == "num_replicas":
            same = actual >= value  # more copies than asked for keep every promise
        elif name == "subjects":
            same = sorted(actual) == sorted(value)
        else:
            same = actual == value
        if not same:
            differences[name] = (actual, value)
    if differences:
        raise StreamDrift(wanted["name"], differences)


def _bounds(bounds: LogBounds) -> dict[str, Any]:
    return {
        "max_bytes": int(bounds.max_mb * 1024 * 1024),
        "max_age": int(bounds.max_days * 86_400 * _NANO),
    }


def _fixed(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in wanted.items() if name not in _BOUNDS}


def _absent(value: object) -> object:
    """What a setting is when the server does not mention it."""
    if isinstance(value, bool):
        return False
    return 0 if isinstance(value, int) else None
