"""What a child process may say to its host of one attempt, and have done by it.

Everything is bytes of a process that is not trusted: each is bounded, and read into a type of its
own, before anything is done. The parent of what is spawned is the attempt, whatever the child says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta, Raw

from callboard_agents.blobs import Asker
from callboard_agents.facts import Attempt
from callboard_agents.log_book import LogBook, Page
from callboard_agents.spawn import Spawn, Spawner
from callboard_agents.spawning import Child
from callboard_agents.task_log import TaskLog
from callboard_broker.bounds import check_document, check_size
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput, TooLarge
from callboard_broker.log_lines import ERROR_BYTES, MESSAGE_BYTES
from callboard_broker.options import TaskOptions
from callboard_broker.posts import Amount, BlobRef, Parent, Unit

__all__ = ["ChildSide"]

_MAX_TOLD = 64 * 1024
_MAX_CHECKPOINT = 16 * 1024 * 1024
_MAX_UNITS = 16
_MAX_CHILDREN = 10_000
_LOG = logging.getLogger("callboard.agent")


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """A child that shall be posted."""

    label: Annotated[str, Meta(max_length=256)]
    capability: Annotated[str, Meta(max_length=256)]
    payload: Raw = Raw(b"null")
    priority: int = 5
    timeout: float | None = None
    options: dict[str, Any] = {}  # read by whoever posts, as those of any poster


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    """A child that was posted."""

    id: Annotated[str, Meta(max_length=256)]
    reason: Annotated[str, Meta(max_length=1000)] = ""


class _Line(msgspec.Struct):
    """What was logged or printed. dropped: instead, how many lines there was no room for."""

    text: Annotated[str, Meta(max_length=2 * MESSAGE_BYTES)] = ""
    level: Annotated[int, Meta(ge=0, le=1000)] = 20
    logger: Annotated[str, Meta(max_length=256)] = ""
    fields: dict[str, Any] | None = None
    error: Annotated[str, Meta(max_length=2 * ERROR_BYTES)] = ""
    dropped: Annotated[int, Meta(ge=0, le=1 << 53)] = 0


_skim = msgspec.json.Decoder(Raw).decode
_units = msgspec.json.Decoder(dict[Unit, Amount]).decode
_wanted = msgspec.json.Decoder(_Wanted).decode
_named = msgspec.json.Decoder(_Named).decode
_ref = msgspec.json.Decoder(BlobRef).decode
_line = msgspec.json.Decoder(_Line).decode


class ChildSide:
    """The host's side of an attempt whose handler is elsewhere. tell, ask: what the host does with
    what was found to be right. spawn: posts a child of `parent`, which is this attempt.
    most_bytes: of a blob that it may read. logs: where its lines are taken.

    heard_at: when it last gave a sign of life, of `time.monotonic()`. used: by unit, so far.
    """

    __slots__ = (
        "_ask",
        "_cancelled",
        "_children",
        "_log",
        "_logs",
        "_most_bytes",
        "_parent",
        "_spawn",
        "_tell",
        "attempt",
        "heard_at",
        "page",
        "used",
    )

    def __init__(
        self,
        parent: Parent,
        attempt: Attempt,
        *,
        tell: Callable[[str, bytes], None],
        ask: Asker,
        spawn: Spawner,
        most_bytes: int,
        logs: LogBook | None = None,
    ) -> None:
        self.heard_at = 0.0
        self.used: dict[str, float] = {}
        self.page: Page | None = None
        self._parent = parent
        self.attempt = attempt
        self._logs = logs
        self._log: TaskLog | None = None
        self._tell = tell
        self._ask = ask
        self._most_bytes = most_bytes
        self._spawn = spawn
        self._children: dict[str, Child] = {}
        self._cancelled = False

    @property
    def level(self) -> int:
        """The least that is worth logging."""
        return logging.INFO if self._logs is None else self._logs.level

    def tell(self, kind: str, data: bytes) -> None:
        """Hear what needs no answer. Raises `BadInput` for what no handler says."""
        check_size(data, _MAX_TOLD, kind)
        if kind == "heartbeat":
            self.heard_at = time.monotonic()
        elif kind == "used":
            self._count(_units(data))
        elif kind in ("progress", "output"):
            _check_json(data, kind)
            self.heard_at = time.monotonic()
            if not self._cancelled:
                self._tell(kind, data)
        elif kind == "log":
            check_document(data, field="log")
            self._pass_on(_line(data))
        else:
            raise BadInput(kind[:40], "is nothing that a handler tells")

    async def ask(self, kind: str, data: bytes) -> bytes:
        """Do what is wanted, and return the answer.

        Raises `BadInput` for what no handler asks, and what `Context.spawn`, `Context.checkpoint`,
        `Context.blob` and `Child` raise.
        """
        if kind == "blob_put":
            return await self._ask(kind, data)
        try:
            if kind == "checkpoint":
                return await self._checkpoint(data)
            check_document(data, field=kind[:40])
            if kind == "spawn":
                return await self._post(_wanted(data))
            if kind == "child_result":
                return encode_payload(await self._child(_named(data)).result(), field="result")
            if kind == "blob_get":
                return await self._read_blob(data)
            if kind == "child_cancel":
                named = _named(data)
                await self._child(named).cancel(named.reason)
                return b"null"
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadInput(kind[:40], str(error)[:300]) from error
        raise BadInput(kind[:40], "is nothing that a host does for a handler")

    async def _checkpoint(self, data: bytes) -> bytes:
        check_size(data, _MAX_CHECKPOINT, "checkpoint")
        _check_json(data, "checkpoint")
        self.heard_at = time.monotonic()
        answer = await self._ask("checkpoint", data)
        self.heard_at = time.monotonic()
        return answer

    async def _read_blob(self, data: bytes) -> bytes:
        size = _ref(data).size
        if size > self._most_bytes:
            raise TooLarge("blob", f"{size:,} bytes; {self._most_bytes:,} are granted")
        return await self._ask("blob_get", data)

    async def _post(self, wanted: _Wanted) -> bytes:
        if len(self._children) >= _MAX_CHILDREN:
            raise BadInput("spawn", f"{_MAX_CHILDREN} children of one attempt are enough")
        child = await self._spawn(
            Spawn(
                parent=self._parent,
                tenant=self.attempt.tenant,
                label=wanted.label,
                capability=wanted.capability,
                payload=wanted.payload,
                priority=wanted.priority,
                timeout=wanted.timeout,
                options=cast("TaskOptions", wanted.options),
            )
        )
        self._children[child.id] = child
        answer: dict[str, Any] = {"id": child.id}
        return msgspec.json.encode(answer)

    def _child(self, named: _Named) -> Child:
        found = self._children.get(named.id)
        if found is None:
            raise BadInput("id", f"{named.id!r} is no child of this attempt")
        return found

    def cancel(self) -> None:
        """Nothing that it says is of interest any more, but for what it used."""
        self._cancelled = True

    def _pass_on(self, line: _Line) -> None:
        """To the host's log and to the board."""
        if self._log is None:
            if self._logs is not None:
                self.page = self._logs.open(self.attempt)
            self._log = TaskLog(_LOG, self.attempt.facts(), self.page)
        if line.dropped:
            if self.page is not None:
                self.page.skip(line.dropped)
            return
        self._log.told(
            line.level, line.text, logger=line.logger, fields=line.fields, error=line.error
        )

    def _count(self, used: dict[str, float]) -> None:
        """All of it so far, as the handler counts."""
        if len(used) > _MAX_UNITS:
            raise BadInput("used", f"{len(used)} units; at most {_MAX_UNITS}")
        self.used = used


def _check_json(data: bytes, field: str) -> None:
    check_document(data, field=field)
    data.decode()
    _skim(data)
