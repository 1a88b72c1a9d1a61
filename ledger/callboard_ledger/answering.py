"""Answers questions about tasks and workflows: one row from memory, else from the store.

A tenant sees its own rows; what belongs to another one does not exist for it. A bad question gets
an answer that names what is wrong with it, and stops nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from callboard_broker.connection import Connection, NoResponder, Sink
from callboard_broker.errors import BadInput, BoardUnreachable, CallboardError, UnknownTask
from callboard_broker.streams import Topology
from callboard_broker.subjects import ALL_TENANTS
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.contents import Contents
from callboard_ledger.figures import FailuresView, FiguresView, grouped, told
from callboard_ledger.holding_views import (
    AgentsView,
    AllocationsView,
    BudgetsView,
    view_accounts,
    view_allocations,
    view_hosts,
)
from callboard_ledger.host_reading import HostReading
from callboard_ledger.log_reading import LogReading
from callboard_ledger.questions import (
    VERBS,
    AgentsQuestion,
    AllocationsQuestion,
    BudgetsQuestion,
    FailuresQuestion,
    HistoryQuestion,
    ListQuestion,
    LogsQuestion,
    PositionQuestion,
    StatsQuestion,
    StatusQuestion,
)
from callboard_ledger.rows import CommandRow, Row, Task
from callboard_ledger.store import FailuresQuery, FiguresQuery, Query, Store
from callboard_ledger.viewing import view, view_pending
from callboard_ledger.views import (
    Answer,
    CommandView,
    Complaint,
    ErrorView,
    FlowView,
    HistoryView,
    ListView,
    LogsView,
    PositionView,
    RowView,
    ScheduleView,
    TaskView,
)
from callboard_ledger.workflows import number

__all__ = ["Answering"]

_log = logging.getLogger(__name__)

_QUEUE = "ledger"
_MOST_ASKED = 20_000  # questions that may wait; all handles of a big client ask after an outage
_AT_ONCE = 64
_ANSWER_BYTES = 900 * 1024
_COMMANDS_TOLD = 100
_Listing = ListView | FailuresView | AgentsView | AllocationsView | BudgetsView
_HOPS = 8  # a merge names a post that is no merge itself, unless somebody meddled


class Answering:
    """The answers of one ledger.

    flush: saves what the aggregator holds unsaved, so that the store has it. catch_up: returns
    when everything stored in the journal by now is folded. position: how far everything is, given
    up to where the journal shall be archived. rows: of memory and of the store, and the lines of
    handlers and the beats of hosts, where those are read.
    """

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        rows: tuple[Aggregator, Store, LogReading | None, HostReading | None],
        *,
        flush: Callable[[], None],
        catch_up: Callable[[], Awaitable[None]],
        position: Callable[[int], Awaitable[PositionView]],
    ) -> None:
        self._connection = connection
        self._topology = topology
        self._aggregator, self._store, self._logs, self._hosts = rows
        self._flush = flush
        self._catch_up = catch_up
        self._position = position
        self._contents = Contents(connection, topology)
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
        while isinstance(answer, _Listing) and len(data) > _ANSWER_BYTES and len(answer.items) > 1:
            half = answer.items[: len(answer.items) // 2]
            answer = msgspec.structs.replace(answer, items=half)
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
            return await self._position(question.archive)
        if isinstance(question, AgentsQuestion):
            return await self._agents(tenant, question)
        if question.fresh:
            await self._catch_up()
        if isinstance(question, AllocationsQuestion):
            self._flush()
            return view_allocations(self._store, question, tenant, self._aggregator.position)
        if isinstance(question, BudgetsQuestion):
            self._flush()
            return view_accounts(self._store, question, tenant, self._aggregator.position)
        if isinstance(question, ListQuestion):
            return self._list(tenant, question)
        if isinstance(question, HistoryQuestion):
            return await self._history(tenant, question)
        if isinstance(question, StatsQuestion):
            return self._stats(tenant, question)
        if isinstance(question, FailuresQuestion):
            return self._failures(tenant, question)
        if isinstance(question, LogsQuestion):
            return await self._lines(tenant, question)
        return await self._status(tenant, question)

    async def _status(self, tenant: str, question: StatusQuestion) -> RowView:
        row = self._row(question.id)
        if row is None:
            return self._pending(tenant, question.id)
        if tenant not in (row.tenant, ALL_TENANTS):
            raise UnknownTask(question.id, tenant)
        answer = view(row)
        if answer.id != question.id:
            answer.same_as = answer.id
        if isinstance(row, CommandRow) or isinstance(answer, CommandView):
            return answer
        if question.result and answer.state == "succeeded":
            await self._add_result(answer)
        elif question.result and isinstance(answer, TaskView) and isinstance(row, Task):
            await self._contents.add_usage(answer, row)
        if question.payload:
            await self._contents.add_payload(answer, row)
        if question.why and isinstance(answer, TaskView):
            await self._contents.add_why(answer)
        return answer

    async def _add_result(self, answer: TaskView | FlowView | ScheduleView) -> None:
        if not isinstance(answer, ScheduleView):
            await self._contents.add_result(answer)

    def _pending(self, tenant: str, row_id: str) -> TaskView:
        """A step of a live workflow that has no row yet. Raises `UnknownTask`."""
        flow_id, *rest = row_id.rsplit(".", 2)
        flow = self._aggregator.flows.get(flow_id) if len(rest) == 2 else None
        if flow is None or flow.ended or tenant not in (flow.tenant, ALL_TENANTS):
            raise UnknownTask(row_id, tenant)
        step, index = flow.steps.get(rest[0]), number(rest[1])
        if step is None or index is None or index >= (1 if step.total is None else step.total):
            raise UnknownTask(row_id, tenant)
        return view_pending(flow, step, index)

    async def _history(self, tenant: str, question: HistoryQuestion) -> HistoryView:
        row = self._row(question.id)
        if row is None or isinstance(row, CommandRow) or tenant not in (row.tenant, ALL_TENANTS):
            raise UnknownTask(question.id, tenant)
        self._flush()
        words = row.id.split(".")
        around = [".".join(words[:length]) for length in range(len(words), 0, -2)]
        commands = self._store.commands_about(around, _COMMANDS_TOLD)
        own = [command for command in commands if command.tenant == row.tenant]
        return await self._contents.history(row, own)

    async def _lines(self, tenant: str, question: LogsQuestion) -> LogsView:
        row = self._row(question.id)
        if row is None:
            pending = self._pending(tenant, question.id)
            task, owner = pending.id, pending.tenant
        elif tenant in (row.tenant, ALL_TENANTS):
            task, owner = row.id, row.tenant
        else:
            raise UnknownTask(question.id, tenant)
        if self._logs is None:
            raise BadInput(
                "logs", "the lines of handlers are not kept here: see the host's own log"
            )
        found = await self._logs.answer(owner, task, question)
        return LogsView(task, found.lines, found.next, found.more)

    def _list(self, tenant: str, question: ListQuestion) -> ListView:
        self._flush()
        query = Query(
            tenant=_one(tenant),
            state=question.state,
            kind=question.kind,
            capability=question.capability,
            name=question.name,
            flow=question.flow,
            dead=question.dead,
            before=None if question.before is None else self._sequence(question.before),
            limit=question.limit,
        )
        found = [view(row) for row in self._store.find(query)]
        items = [item for item in found if not isinstance(item, CommandView)]
        return ListView(items, self._aggregator.position)

    def _stats(self, tenant: str, question: StatsQuestion) -> FiguresView:
        self._flush()
        query = FiguresQuery(
            tenant=_one(tenant),
            capability=question.capability,
            since=question.since,
            until=question.until,
        )
        items = grouped(self._store.figures(query), question.by)
        return FiguresView(items, self._aggregator.position)

    def _failures(self, tenant: str, question: FailuresQuestion) -> FailuresView:
        self._flush()
        query = FailuresQuery(
            tenant=_one(tenant),
            capability=question.capability,
            type=question.type,
            since=question.since,
            limit=question.limit,
        )
        return FailuresView(told(self._store.failures(query)), self._aggregator.position)

    async def _agents(self, tenant: str, question: AgentsQuestion) -> AgentsView:
        if self._hosts is None:
            raise BadInput("agents", "no beats are read here")
        if question.fresh:
            await self._hosts.catch_up()
        if question.at_once:
            self._flush()
        now_ms = self._connection.server_now_ms()
        return view_hosts(self._hosts.hosts, self._store, question, tenant, now_ms)

    def _row(self, row_id: str) -> Row | None:
        """The row with this id, or the one that it repeats."""
        for _ in range(_HOPS):
            found = self._aggregator.row(row_id)
            if found is not None:
                return found
            self._flush()
            if (task := self._store.task(row_id)) is not None:
                return task
            if (flow := self._store.flow(row_id)) is not None:
                return flow
            seq = number(row_id)
            if seq is None:
                return None
            kept = self._store.schedule(seq) or self._store.command(seq)
            if kept is not None:
                return kept
            merge = self._store.merge(seq)
            if merge is None:
                return None
            row_id = merge.same_as
        return None

    def _sequence(self, row_id: str) -> int:
        """The place of an id in the order of rows."""
        seq = number(row_id)
        if seq is not None:
            return seq
        row = self._row(row_id)
        if row is None:
            raise BadInput("before", f"{row_id!r} is not the id of a task or workflow")
        return row.seq


def _one(tenant: str) -> str | None:
    """None: of every tenant."""
    return None if tenant == ALL_TENANTS else tenant
