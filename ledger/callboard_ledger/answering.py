"""Answers questions about tasks and workflows: one row from memory, else from the store.

A tenant sees its own rows; what belongs to another one does not exist for it. A bad question gets
an answer that names what is wrong with it, and stops nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from callboard_broker.connection import Connection, NoResponder, Sink
from callboard_broker.direct import get_message
from callboard_broker.errors import (
    BadInput,
    BoardUnreachable,
    CallboardError,
    StreamMissing,
    UnknownTask,
)
from callboard_broker.rule import TaskState
from callboard_broker.streams import Topology
from callboard_broker.subjects import ALL_TENANTS
from callboard_broker.wire import (
    BlobRef,
    Dispatch,
    Outcome,
    Settled,
    decode_event,
    decode_flow_run,
    decode_post,
)
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.rows import Flow, Task
from callboard_ledger.store import Query, Store
from callboard_ledger.views import (
    Answer,
    Complaint,
    ErrorView,
    FlowView,
    ListView,
    PositionView,
    TaskView,
    view,
)

__all__ = ["VERBS", "Answering", "ListQuestion", "PositionQuestion", "StatusQuestion"]

_log = logging.getLogger(__name__)

_QUEUE = "ledger"
_MOST_ASKED = 20_000  # questions that may wait; all handles of a big client ask after an outage
_AT_ONCE = 64
_ANSWER_BYTES = 900 * 1024
_HOPS = 8  # a merge names a post that is no merge itself, unless somebody meddled

Id = Annotated[str, Meta(min_length=1, max_length=128)]


class StatusQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task or workflow. fresh: answer only when everything stored by now has been folded.
    payload, result: whether to fetch them from the journal."""

    id: Id
    fresh: bool = False
    payload: bool = False
    result: bool = True


class ListQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tasks and workflows, the newest first, below the id `before`."""

    state: TaskState | None = None
    kind: Literal["task", "flow"] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    before: Id | None = None
    fresh: bool = False


class PositionQuestion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the ledger is."""


VERBS: dict[str, type[StatusQuestion | ListQuestion | PositionQuestion]] = {
    "status": StatusQuestion,
    "list": ListQuestion,
    "position": PositionQuestion,
}


class Answering:
    """The answers of one ledger.

    flush: saves what the aggregator holds unsaved, so that the store has it. catch_up: returns
    when everything stored in the journal by now is folded. position: how far everything is.
    """

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        rows: tuple[Aggregator, Store],
        *,
        flush: Callable[[], None],
        catch_up: Callable[[], Awaitable[None]],
        position: Callable[[], Awaitable[PositionView]],
    ) -> None:
        self._connection = connection
        self._topology = topology
        self._aggregator, self._store = rows
        self._flush = flush
        self._catch_up = catch_up
        self._position = position
        self._asked = 0
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def listen(self, group: asyncio.TaskGroup) -> list[Sink]:
        """Answer what is asked, in tasks of `group`, until the sinks are closed."""

        def asked(subject: str, reply: str, _headers: bytes, data: bytes) -> None:
            if not reply:
                return
            if self._asked >= _MOST_ASKED:
                _log.warning("%d questions wait for an answer; one more is dropped", self._asked)
                return
            self._asked += 1
            group.create_task(self._respond(subject, reply, data))

        subjects = self._topology.subjects
        return [
            await self._connection.sink(subjects.ask_filter(verb), asked, queue=_QUEUE)
            for verb in sorted(VERBS)
        ]

    async def _respond(self, subject: str, reply: str, data: bytes) -> None:
        tenant, verb = subject.split(".")[2:4]
        try:
            async with self._turns:
                answer: Answer = await self.answer(tenant, verb, data)
        except (BoardUnreachable, NoResponder, TimeoutError) as error:
            # Like a ledger that is down: the asker will ask again, and must not take "not now"
            # for a statement about the task.
            _log.warning("a question on %s cannot be answered now: %s", subject, error)
            return
        except BadInput as error:
            answer = ErrorView(Complaint(type(error).__name__, error.reason, error.field))
        except CallboardError as error:
            answer = ErrorView(Complaint(type(error).__name__, str(error)))
        except Exception as error:  # noqa: BLE001  one question must not stop the others
            self._connection.report(error)
            answer = ErrorView(Complaint("Internal", f"{type(error).__name__}: see the log"))
        finally:
            self._asked -= 1
        self._send(reply, answer)

    def _send(self, reply: str, answer: Answer) -> None:
        data = msgspec.json.encode(answer)
        while isinstance(answer, ListView) and len(data) > _ANSWER_BYTES and len(answer.items) > 1:
            answer = ListView(answer.items[: len(answer.items) // 2], answer.position)
            data = msgspec.json.encode(answer)
        try:
            self._connection.send(reply, data)
        except BadInput as error:
            complaint = Complaint(type(error).__name__, error.reason, error.field)
            self._connection.send(reply, msgspec.json.encode(ErrorView(complaint)))

    async def answer(self, tenant: str, verb: str, data: bytes) -> Answer:
        """Answer one question. Raises `BadInput`, `UnknownTask`, and what the server raises."""
        asked = VERBS.get(verb)
        if asked is None:
            raise BadInput("verb", f"{verb!r} is none of {', '.join(sorted(VERBS))}")
        try:
            question = msgspec.json.decode(data or b"{}", type=asked)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            text, _, field = str(error).partition(" - at `$.")
            raise BadInput(field.rstrip("`") or "question", text[:200]) from error
        if isinstance(question, PositionQuestion):
            return await self._position()
        if question.fresh:
            await self._catch_up()
        if isinstance(question, ListQuestion):
            return self._list(tenant, question)
        return await self._status(tenant, question)

    async def _status(self, tenant: str, question: StatusQuestion) -> TaskView | FlowView:
        row = self._row(question.id)
        if row is None or tenant not in (row.tenant, ALL_TENANTS):
            raise UnknownTask(question.id, tenant)
        answer = view(row)
        if answer.id != question.id:
            answer.same_as = answer.id
        if question.result and answer.state == "succeeded" and answer.end_seq is not None:
            await self._add_result(answer, answer.end_seq)
        if question.payload:
            await self._add_payload(answer)
        return answer

    def _list(self, tenant: str, question: ListQuestion) -> ListView:
        self._flush()
        query = Query(
            tenant=None if tenant == ALL_TENANTS else tenant,
            state=question.state,
            kind=question.kind,
            before=None if question.before is None else self._sequence(question.before),
            limit=question.limit,
        )
        rows = self._store.find(query)
        return ListView([view(row) for row in rows], self._aggregator.position)

    def _row(self, row_id: str) -> Task | Flow | None:
        """The row with this id, or the one that it repeats."""
        for _ in range(_HOPS):
            task = self._aggregator.tasks.get(row_id)
            if task is not None:
                return task
            seq = int(row_id) if row_id.isascii() and row_id.isdecimal() else None
            if seq is not None and (flow := self._aggregator.flows.get(seq)) is not None:
                return flow
            self._flush()
            row = self._store.task(row_id)
            if row is not None or seq is None or seq >= 2**63:
                return row
            if (flow := self._store.flow(seq)) is not None:
                return flow
            merge = self._store.merge(seq)
            if merge is None:
                return None
            row_id = merge.same_as
        return None

    def _sequence(self, row_id: str) -> int:
        """The place of an id in the order of rows."""
        if row_id.isascii() and row_id.isdecimal() and len(row_id) <= 18:
            return int(row_id)
        row = self._row(row_id)
        if row is None:
            raise BadInput("before", f"{row_id!r} is not the id of a task or workflow")
        return row.seq

    async def _add_result(self, answer: TaskView | FlowView, end_seq: int) -> None:
        kind = "settled" if isinstance(answer, FlowView) else "outcome"
        data = await self._stored(end_seq)
        event = None if data is None else decode_event(kind, data)
        if isinstance(event, Outcome | Settled):
            answer.result_blob = event.blob
            if event.blob is None:
                answer.result = event.result

    async def _add_payload(self, answer: TaskView | FlowView) -> None:
        if isinstance(answer, TaskView) and answer.post_seq is None:
            seq = answer.dispatch_seq
        else:
            seq = answer.post_seq
        data = await self._stored(seq)
        if data is None:
            return
        try:
            payload, answer.payload_blob = _payload(answer, data)
        except BadInput:
            return  # the post cannot be read; the answer's error says why
        if answer.payload_blob is None:
            answer.payload = payload

    async def _stored(self, seq: int | None) -> bytes | None:
        """The data of a journal's message; None if it was removed since."""
        if seq is None:
            return None
        try:
            record = await get_message(self._connection, self._topology.journal, seq)
        except StreamMissing:
            raise
        except LookupError:
            return None
        return record.data


def _payload(answer: TaskView | FlowView, data: bytes) -> tuple[Raw | UnsetType, BlobRef | None]:
    """What the post of `answer`, or a step's dispatch, carries."""
    if isinstance(answer, FlowView):
        return decode_flow_run(data).inputs, None
    if answer.post_seq is not None:
        post = decode_post(data)
        return post.payload, post.blob
    event = decode_event("dispatch", data)
    return (event.payload, event.blob) if isinstance(event, Dispatch) else (UNSET, None)
