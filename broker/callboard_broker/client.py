"""The client: posts tasks and workflows, and hears what becomes of them.

A post carries a nonce, so that the client may repeat it until it is acknowledged: the repeats fold
into one task. What happens afterwards arrives by the journal's republish on the client's shard;
what was missed while the connection was down is asked of the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import msgspec

from callboard_broker.blobs import Blobs
from callboard_broker.bounds import check_size
from callboard_broker.connection import Connection, NoResponder, open_link
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import (
    BadInput,
    BoardUnreachable,
    StreamMissing,
    UnknownTask,
    WriteUnresolved,
)
from callboard_broker.graph import chart
from callboard_broker.handle import Handle
from callboard_broker.link import header
from callboard_broker.publisher import Publisher
from callboard_broker.rule import TERMINAL, TaskState
from callboard_broker.streams import Topology
from callboard_broker.subjects import SHARDS, Subjects, check_tenant
from callboard_broker.wire import (
    BlobRef,
    Event,
    Failure,
    FlowRun,
    Merged,
    Post,
    decode_event,
    encode,
)
from callboard_broker.workflow import Workflow

__all__ = ["Board", "BoardOptions", "connect"]

_log = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS = 1.0
_EARLY = 4096
_REMEMBERED = 4096
_MAX_PATIENCE = 45.0
_NEW_BOARD_SECONDS = 5.0
_STREAM_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardOptions:
    """tenant: of posts that name none. patience: seconds in which a post is repeated until it is
    acknowledged. post_bytes: above it, a payload goes to the blob store."""

    tenant: str = "default"
    prefix: str = "cb"
    name: str = "callboard client"
    patience: float = 30.0
    post_bytes: int = 262_144
    payload_bytes: int = 64 * 1024 * 1024


class _View(msgspec.Struct):
    """What the client needs of the ledger's answer."""

    id: str = ""
    state: TaskState = "waiting"
    shard: int | None = None
    same_as: str | None = None
    error: Any = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result_blob: BlobRef | None = None


class _News(msgspec.Struct):
    task: str
    attempt: int = 0
    state: TaskState | None = None
    progress: Any = None
    host: str | None = None


_view = msgspec.json.Decoder(_View)
_news = msgspec.json.Decoder(_News)


class Board:
    """A connection to a board. Made by `connect`, and closed by it."""

    def __init__(
        self, connection: Connection, options: BoardOptions, group: asyncio.TaskGroup
    ) -> None:
        self.connection = connection
        self.options = options
        self.subjects = Subjects(options.prefix)
        self._publisher = Publisher(connection)
        self._blobs = Blobs(connection, Topology(self.subjects))
        self._shard = random.randrange(SHARDS)  # noqa: S311  spreads load, keeps no secret
        self._nonce = secrets.token_hex(8)
        self._posts = 0
        self._handles: dict[str, list[Handle]] = {}
        self._early: OrderedDict[str, list[Event]] = OrderedDict()
        self._posting = 0
        self._stored_before = False
        self._subjects_of: dict[tuple[str, str], str] = {}
        self._heard: set[tuple[str, int]] = set()
        self._followed: set[tuple[str, int]] = set()
        self._group = group
        self._learning: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._publisher.__aenter__()
        self._forget = self.connection.at_restore(self._ask_about_all)
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._forget()
        for task in self._learning:
            task.cancel()
        await self._publisher.__aexit__(None, None, None)

    # -- posting

    async def submit(
        self,
        capability: str,
        payload: Any = None,
        *,
        tenant: str | None = None,
        priority: int = 5,
        key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  the task's, not this call's
    ) -> Handle:
        """Post a task; returns when it is stored. timeout: seconds that its handler may run.

        Raises `BadInput` that names the field, `BoardUnreachable`, `WriteUnresolved`.
        """
        tenant = self.options.tenant if tenant is None else tenant
        subject = self._subject(tenant, capability)
        data = encode_payload(payload)
        blob = None
        if len(data) > self.options.post_bytes:
            check_size(data, self.options.payload_bytes)
            blob, data = await self._blobs.put(data), b"null"
        post = Post(
            payload=msgspec.Raw(data),
            blob=blob,
            key=_checked_key(key),
            nonce=self._new_nonce(),
            shard=self._shard,
            priority=_checked_priority(priority),
            timeout=_checked_seconds(timeout),
        )
        return await self._post(subject, tenant, encode(post))

    async def run(
        self,
        workflow: Workflow | FlowRun,
        inputs: dict[str, Any] | None = None,
        *,
        tenant: str | None = None,
        key: str | None = None,
    ) -> Handle:
        """Post a workflow; the router runs it, also when this process is gone.

        Raises `BadInput` that names the field (a cycle, an unknown step), `BoardUnreachable`.
        """
        tenant = self.options.tenant if tenant is None else tenant
        run = workflow.spec(inputs) if isinstance(workflow, Workflow) else workflow
        chart(run)
        run = msgspec.structs.replace(
            run, key=_checked_key(key), nonce=self._new_nonce(), shard=self._shard
        )
        data = encode(run)
        check_size(data, 2 * self.options.post_bytes, "workflow")
        return await self._post(self.subjects.flow(tenant, "run"), tenant, data)

    async def handle(self, task: str, *, tenant: str | None = None) -> Handle:
        """The handle of a task or workflow that was posted earlier. Raises `UnknownTask`."""
        tenant = check_tenant(self.options.tenant if tenant is None else tenant)
        view = await self._ask(task, tenant)
        if view is None:
            raise UnknownTask(task, tenant)
        handle = Handle(self, view.id, tenant, view.shard if view.shard is not None else 0)
        await self._listen(tenant, handle.shard)
        self._handles.setdefault(handle.id, []).append(handle)
        await self._learn(handle)
        return handle

    async def ask(self, verb: str, question: object, *, tenant: str | None = None) -> bytes:
        """Ask the ledger (`status`, `list`, `position`); tenant `all` asks for every tenant.

        Raises `NoResponder` if no ledger runs, `TimeoutError`, `BoardUnreachable`.
        """
        subject = self.subjects.ask(tenant or self.options.tenant, verb)
        reply = await self.connection.request(subject, encode(question), timeout=10.0)
        return reply.data

    # -- what a handle needs

    async def follow(self, handle: Handle) -> None:
        """Hear also what hosts say of this handle's shard without storing it."""
        place = (handle.tenant, handle.shard)
        if place not in self._followed:
            self._followed.add(place)
            await self.connection.sink(self.subjects.news(*place), self._hear_news)

    async def blob(self, ref: BlobRef) -> bytes:
        """Read a result that was too long for its event."""
        return await self._blobs.get(ref)

    # -- inside

    def _subject(self, tenant: str, capability: str) -> str:
        """Where to post; what has passed the checks once is remembered."""
        subject = self._subjects_of.get((tenant, capability))
        if subject is None:
            subject = self.subjects.task(tenant, capability)
            if len(self._subjects_of) >= _REMEMBERED:
                self._subjects_of.clear()
            self._subjects_of[(tenant, capability)] = subject
        return subject

    def _new_nonce(self) -> str:
        self._posts += 1
        return f"{self._nonce}.{self._posts}"

    async def _post(self, subject: str, tenant: str, data: bytes) -> Handle:
        await self._listen(tenant, self._shard)
        self._posting += 1
        try:
            seq = await self._stored(subject, data)
            handle = Handle(self, str(seq), tenant, self._shard)
            self._handles.setdefault(handle.id, []).append(handle)
            for event in self._early.pop(handle.id, ()):
                self._tell(handle.id, event)
        finally:
            self._posting -= 1
            if not self._posting:
                self._early.clear()
        return handle

    async def _stored(self, subject: str, data: bytes) -> int:
        """Publish until it is acknowledged: the nonce makes a repeat the same task."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        deadline = begun + self.options.patience
        while True:
            stored: asyncio.Future[int] = loop.create_future()

            def done(
                seq: int | None,
                error: Exception | None,
                stored: asyncio.Future[int] = stored,
            ) -> None:
                if stored.done():
                    return
                if seq is not None:
                    stored.set_result(seq)
                else:
                    stored.set_exception(error or WriteUnresolved(subject, 0))

            self._publisher.publish(subject, data, done=done)
            try:
                seq = await stored
            except (WriteUnresolved, BoardUnreachable):
                if loop.time() >= deadline:
                    raise
            except StreamMissing:
                # a cluster that elects a leader has no stream for a while; a new board never had
                if loop.time() >= (deadline if self._stored_before else begun + _NEW_BOARD_SECONDS):
                    raise
                await asyncio.sleep(_STREAM_PAUSE_SECONDS)
            else:
                self._stored_before = True
                return seq
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - loop.time())):
                    await self.connection.reached()

    async def _listen(self, tenant: str, shard: int) -> None:
        if (tenant, shard) not in self._heard:
            self._heard.add((tenant, shard))
            await self.connection.sink(self.subjects.told(tenant, shard), self._hear)

    def _hear(self, _subject: str, _reply: str, headers: bytes, data: bytes) -> None:
        address = self.subjects.parse(header(headers, "Nats-Subject") or "")
        try:
            event = decode_event(address.kind, data)
        except BadInput as error:
            _log.debug("an event that was told cannot be read: %s", error)
            return
        task: str = getattr(event, "task", "")
        name = task.partition(".")[0]
        if name in self._handles:
            self._tell(name, event)
        elif self._posting:
            self._early.setdefault(name, []).append(event)
            if len(self._early) > _EARLY:
                self._early.popitem(last=False)

    def _tell(self, name: str, event: Event) -> None:
        handles = self._handles.get(name, [])
        if isinstance(event, Merged):
            del self._handles[name]
            for handle in handles:
                handle.id = event.same_as
                self._handles.setdefault(handle.id, []).append(handle)
                self._start_learning(handle)
            return
        for handle in handles:
            handle.told(event)
        if handles and handles[0].done:
            self._handles.pop(name, None)

    def _hear_news(self, _subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        try:
            news = _news.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.debug("news that cannot be read: %s", error)
            return
        for handle in self._handles.get(news.task.partition(".")[0], ()):
            handle.news(news.task, news.state, news.progress, news.host)

    def _ask_about_all(self) -> None:
        """After a reconnect: whatever was told meanwhile was missed."""
        for handles in self._handles.values():
            for handle in handles:
                self._start_learning(handle)

    def _start_learning(self, handle: Handle) -> None:
        task = self._group.create_task(self._learn(handle))
        self._learning.add(task)
        task.add_done_callback(self._learning.discard)

    async def _learn(self, handle: Handle) -> None:
        """Ask the ledger until it answers, then leave the rest to what is told."""
        while not handle.done:
            try:
                view = await self._ask(handle.id, handle.tenant)
            except (NoResponder, TimeoutError, BoardUnreachable, msgspec.MsgspecError) as silence:
                _log.debug("no ledger has answered about %s yet: %s", handle.id, silence)
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
                await self.connection.reached()
                continue
            if view is None:
                return
            if view.shard is not None and view.shard != handle.shard:
                handle.shard = view.shard
                await self._listen(handle.tenant, view.shard)
                continue  # what happened before this board listened is in the next answer
            if view.state in TERMINAL:
                error = None if view.error is None else msgspec.convert(view.error, Failure)
                result = view.result if isinstance(view.result, msgspec.Raw) else None
                for same in self._handles.pop(handle.id, [handle]):
                    same.end(view.state, result, view.result_blob, error)
                handle.end(view.state, result, view.result_blob, error)
            return

    async def _ask(self, task: str, tenant: str) -> _View | None:
        """What the ledger knows of a task; None if it knows none of this name."""
        data = await self.ask("status", {"id": task, "fresh": True}, tenant=tenant)
        view = _view.decode(data)
        if view.id:
            return view
        complaint = view.error if isinstance(view.error, dict) else {}
        if complaint.get("type") in ("UnknownTask", "BadInput"):
            return None
        raise NoResponder(f"ask.{tenant}.status ({complaint.get('message', 'no answer')})")


def _checked_key(key: str | None) -> str | None:
    if key is not None and not 1 <= len(key) <= 256:
        raise BadInput("key", "1 to 256 characters")
    return key


def _checked_priority(priority: int) -> int:
    if not isinstance(priority, int) or not 0 <= priority <= 9:
        raise BadInput("priority", f"{priority!r} is not 0 (last) to 9 (first)")
    return priority


def _checked_seconds(timeout: float | None) -> float | None:
    if timeout is not None and not 0 < timeout <= 30 * 86_400:
        raise BadInput("timeout", f"{timeout!r} is not a number of seconds up to 30 days")
    return timeout


@asynccontextmanager
async def connect(
    url: str, options: BoardOptions | None = None, *, tries_seconds: float = 5.0
) -> AsyncIterator[Board]:
    """Open a board at `url` and close it at the end. Raises `BoardUnreachable`, `BadInput`."""
    options = options or BoardOptions()
    check_tenant(options.tenant)
    if not 0 <= options.patience <= _MAX_PATIENCE:
        raise BadInput("patience", f"at most {_MAX_PATIENCE:g} s: nonces are known for 60 s")
    raised: BaseException | None = None
    try:
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(
                open_link(url, name=options.name, tries_seconds=tries_seconds)
            )
            group = await stack.enter_async_context(asyncio.TaskGroup())
            board = await stack.enter_async_context(Board(connection, options, group))
            try:
                yield board
            except BaseException as error:
                raised = error
                raise
    except BaseExceptionGroup as found:
        # The board keeps a task group; what the caller's own block raises shall leave it as it is.
        if raised is not None and found.exceptions == (raised,):
            raise raised from None
        raise
