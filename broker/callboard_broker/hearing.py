"""Hears what becomes of what was posted, and tells it to the handles.

What the journal republishes for the client's shard is told as it comes, and likewise what hosts say
there. What came before a post was acknowledged, and so before it had a name, is kept until then.
After a reconnect, and for tasks that somebody else posted, the ledger is asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import Any

import msgspec

from callboard_broker.commanding import Asked
from callboard_broker.connection import Connection, NoResponder
from callboard_broker.errors import BadInput, BoardUnreachable, Overloaded
from callboard_broker.handle import Chunk, Handle
from callboard_broker.link import header
from callboard_broker.rule import TERMINAL, TaskState
from callboard_broker.subjects import Subjects
from callboard_broker.wire import BlobRef, Event, Failure, Merged, Settled, decode_event, encode

__all__ = ["Hearing"]

_log = logging.getLogger(__name__)

_ASK_SECONDS = 10.0
_ASK_AGAIN_SECONDS = 1.0
_EARLY = 4096
_EARLY_NEWS = 100  # of one task
_DOOR_SECONDS = 1.0


class View(msgspec.Struct):
    """What the client needs of the ledger's answer."""

    id: str = ""
    state: TaskState = "waiting"
    shard: int | None = None
    host: str | None = None
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
    number: int = 0
    output: Any = None


_view = msgspec.json.Decoder(View)
_news = msgspec.json.Decoder(_News)


class Hearing:
    """The handles of one board, by the task or workflow whose part they are.

    closed: tenants whose posts are refused, and until when by the loop's clock.
    unnamed: posts and commands under way whose events cannot be told yet.
    """

    def __init__(
        self, connection: Connection, subjects: Subjects, group: asyncio.TaskGroup
    ) -> None:
        self.closed: dict[str, float] = {}
        self.unnamed = 0
        self._connection = connection
        self._subjects = subjects
        self._group = group
        self._handles: dict[str, list[Handle | Asked]] = {}
        self._early: OrderedDict[str, list[Event]] = OrderedDict()
        self._early_news: OrderedDict[str, list[_News]] = OrderedDict()
        self._heard: set[tuple[str, int]] = set()
        self._followed: set[tuple[str, int]] = set()
        self._learning: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Ask nobody any more."""
        for task in self._learning:
            task.cancel()

    def named(self) -> None:
        """A post or command is no longer under way."""
        self.unnamed -= 1
        if not self.unnamed:
            self._early.clear()
            self._early_news.clear()

    def add(self, handle: Handle | Asked) -> None:
        """Tell it what is heard of it, and what was heard before it had a name."""
        root = _root(handle.id)
        self._handles.setdefault(root, []).append(handle)
        if isinstance(handle, Handle):
            handle.keeps = True  # until somebody can follow it
            for news in self._early_news.pop(root, ()):
                _tell_news(handle, news)
            handle.keeps = False
        for event in self._early.pop(root, ()):
            self._tell(root, event)

    def drop(self, handle: Handle | Asked) -> None:
        """Tell it nothing more."""
        root = _root(handle.id)
        left = [each for each in self._handles.pop(root, ()) if each is not handle]
        if left:
            self._handles[root] = left

    def check_door(self, tenant: str) -> None:
        """Refuse a post of a tenant that has too much waiting. Raises `Overloaded`."""
        opens = self.closed.get(tenant)
        if opens is None:
            return
        left = opens - asyncio.get_running_loop().time()
        if left > 0:
            raise Overloaded(tenant, left)
        del self.closed[tenant]

    async def follow(self, handle: Handle) -> None:
        """Hear also what hosts say of this shard without storing it, and what was said before."""
        await self.follow_shard(handle.tenant, handle.shard)
        if handle.state == "waiting":
            self._start_learning(handle)

    async def follow_shard(self, tenant: str, shard: int) -> None:
        """Hear what hosts say of this shard without storing it, from now on."""
        if (tenant, shard) not in self._followed:
            self._followed.add((tenant, shard))
            await self._connection.sink(self._subjects.news(tenant, shard), self._hear_news)

    async def listen(self, tenant: str, shard: int) -> None:
        """Hear what is stored for this shard, from now on."""
        if (tenant, shard) not in self._heard:
            self._heard.add((tenant, shard))
            await self._connection.sink(self._subjects.told(tenant, shard), self._hear)

    def ask_about_all(self) -> None:
        """After a reconnect: whatever was told meanwhile was missed."""
        for handles in self._handles.values():
            for handle in handles:
                self._start_learning(handle)

    async def learn(self, handle: Handle | Asked) -> None:
        """Ask the ledger until it answers, then leave the rest to what is told."""
        while not handle.done:
            try:
                view = await self.ask_about(handle.id, handle.tenant)
            except (NoResponder, TimeoutError, BoardUnreachable, msgspec.MsgspecError) as silence:
                _log.debug("no ledger has answered about %s yet: %s", handle.id, silence)
                await asyncio.sleep(_ASK_AGAIN_SECONDS)
                await self._connection.reached()
                continue
            if view is None:
                return
            if view.shard is not None and view.shard != handle.shard:
                handle.shard = view.shard
                await self.listen(handle.tenant, view.shard)
                continue  # what happened before this board listened is in the next answer
            if view.state in TERMINAL:
                self._end(handle, view)
            elif isinstance(handle, Handle):
                handle.learnt(view.state, view.host)
            return

    async def ask_about(self, task: str, tenant: str) -> View | None:
        """What the ledger knows of a task; None if it knows none of this name.

        Raises `NoResponder`, `TimeoutError`, `BoardUnreachable`.
        """
        subject = self._subjects.ask(tenant, "status")
        question = encode({"id": task, "fresh": True})
        reply = await self._connection.request(subject, question, timeout=_ASK_SECONDS)
        view = _view.decode(reply.data)
        if view.id:
            return view
        complaint = view.error if isinstance(view.error, dict) else {}
        if complaint.get("type") in ("UnknownTask", "BadInput"):
            return None
        raise NoResponder(f"{subject} ({complaint.get('message', 'no answer')})")

    # -- inside

    def _hear(self, _subject: str, _reply: str, headers: bytes, data: bytes) -> None:
        address = self._subjects.parse(header(headers, "Nats-Subject") or "")
        try:
            event = decode_event(address.kind, data)
        except BadInput as error:
            _log.debug("an event that was told cannot be read: %s", error)
            return
        task: str = getattr(event, "task", "")
        name = task.partition(".")[0]
        if name in self._handles:
            self._tell(name, event)
        elif self.unnamed:
            self._early.setdefault(name, []).append(event)
            if len(self._early) > _EARLY:
                self._early.popitem(last=False)

    def _tell(self, name: str, event: Event) -> None:
        handles = self._handles.get(name, [])
        if isinstance(event, Merged):
            self._handles.pop(name, None)
            for handle in handles:
                handle.id = event.same_as
                self._handles.setdefault(handle.id, []).append(handle)
                self._start_learning(handle)
            for early in self._early.pop(event.same_as, ()):
                self._tell(event.same_as, early)
            return
        for handle in handles:
            handle.told(event)
        if isinstance(event, Settled) and event.error is not None and handles:
            self._close_door(handles[0].tenant, event.error)
        if len(handles) == 1:
            if handles[0].done:
                del self._handles[name]
        else:
            left = [handle for handle in handles if not handle.done]
            if left:
                self._handles[name] = left
            else:
                self._handles.pop(name, None)

    def _close_door(self, tenant: str, error: Failure) -> None:
        if error.type == Overloaded.__name__:
            seconds = _DOOR_SECONDS if error.retry_after is None else error.retry_after
            self.closed[tenant] = asyncio.get_running_loop().time() + seconds

    def _hear_news(self, _subject: str, _reply: str, _headers: bytes, data: bytes) -> None:
        try:
            news = _news.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            _log.debug("news that cannot be read: %s", error)
            return
        root = _root(news.task)
        handles = self._handles.get(root, ())
        for handle in handles:
            if isinstance(handle, Handle):
                _tell_news(handle, news)
        if not handles and self.unnamed:
            early = self._early_news.setdefault(root, [])
            if len(early) < _EARLY_NEWS:
                early.append(news)
            if len(self._early_news) > _EARLY:
                self._early_news.popitem(last=False)

    def _start_learning(self, handle: Handle | Asked) -> None:
        task = self._group.create_task(self.learn(handle))
        self._learning.add(task)
        task.add_done_callback(self._learning.discard)

    def _end(self, handle: Handle | Asked, view: View) -> None:
        """The end on the ledger's word; of all handles of the same id."""
        error = None if view.error is None else msgspec.convert(view.error, Failure)
        result = view.result if isinstance(view.result, msgspec.Raw) else None
        root = _root(handle.id)
        left = []
        for each in self._handles.pop(root, ()):
            if each.id != handle.id:
                left.append(each)
            elif isinstance(each, Handle):
                each.end(view.state, result, view.result_blob, error)
            else:
                each.end(error)
        if left:
            self._handles[root] = left
        if isinstance(handle, Handle):
            handle.end(view.state, result, view.result_blob, error)


def _tell_news(handle: Handle, news: _News) -> None:
    if news.number:
        handle.given(Chunk(news.task, news.attempt, news.number, news.output))
    else:
        handle.news(news.task, news.state, news.progress, news.host)


def _root(task: str) -> str:
    """The task or workflow of which this one is a part."""
    return task.partition(".")[0]
