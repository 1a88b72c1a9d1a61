"""What is asked of the active router: may a host start, why does a task wait, what of budgets.

Only the active one answers, once its settings are in force; whoever hears nothing asks again. A
host is told `go` only with the whole journal folded, because an outcome may stand at its very end.
A change of budgets is answered when its event has been read back, so that it holds for whatever is
dispatched after the answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

import msgspec

from callboard_broker.bounds import check_document
from callboard_broker.connection import ApiError, Connection
from callboard_broker.errors import BadInput, TooLarge, UnknownTask
from callboard_broker.reader import Reader
from callboard_broker.streams import Topology, last_sequence
from callboard_broker.subjects import ALL_TENANTS, check_capability, check_tenant
from callboard_broker.wire import Limit, Needs, encode
from callboard_router.engine import Engine
from callboard_router.liveness import Claim
from callboard_router.tenure import Role

__all__ = ["Questions"]

_log = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.1
_DEPTH = 8
_MOST_QUEUES = 2000  # of one answer: some 130 bytes each
_MOST_SAID = 1000

BudgetKey = Annotated[
    str,
    msgspec.Meta(pattern=r"^(global|tenant|(tenant|capability|key)/[^/ ]+|tenant/[^/ ]+/[^/ ]+)$"),
]


class _Confirm(msgspec.Struct):
    """A host asks whether it may start a dispatch that is older than its connection."""

    task: str
    attempt: int
    secret: str
    host: str
    incarnation: str


class _Explain(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class _Candidates(msgspec.Struct, forbid_unknown_fields=True):
    """Where could a task of this capability run?"""

    capability: Annotated[str, msgspec.Meta(max_length=128)]
    needs: Needs | None = None


class _Budgets(msgspec.Struct, forbid_unknown_fields=True):
    """set: what of some budgets shall change; None takes it back. by: who wants it."""

    set: dict[BudgetKey, Limit | None] | None = None
    by: Annotated[str, msgspec.Meta(max_length=256)] = ""


class _NotActive(Exception):
    """This router ceased to be the active one: whoever asked asks the next one."""


class Questions:
    """The answers of one router. start: runs a coroutine in the background, under a name."""

    def __init__(
        self,
        connection: Connection,
        topology: Topology,
        engine: Engine,
        start: Callable[[Coroutine[Any, Any, None], str], None],
    ) -> None:
        self.journal: Reader | None = None
        self.connected_seq: int | None = None
        self._connection = connection
        self._topology = topology
        self._engine = engine
        self._start = start

    async def listen(self) -> None:
        """Begin to answer."""
        subjects = self._topology.subjects
        await self._connection.sink(subjects.ask_filter("confirm"), self._hears(self._confirm))
        await self._connection.sink(subjects.ask_filter("explain"), self._hears(self._explain))
        placing = subjects.ask_filter("candidates")
        await self._connection.sink(placing, self._hears(self._candidates))
        for verb, answer in (("budget", self._budget), ("backlog", self._backlog)):
            asked = subjects.ask(ALL_TENANTS, verb)
            await self._connection.sink(asked, self._hears(answer))

    async def restored(self) -> None:
        """The connection is new: what was stored before it, hosts start only when told so."""
        self.connected_seq = None
        generation = self._connection.generation
        while self._connection.generation == generation and self.connected_seq is None:
            try:
                last, _ = await last_sequence(self._connection, self._topology.journal)
            except (OSError, LookupError, ApiError) as error:
                _log.debug("the journal does not answer yet: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
            else:
                self.connected_seq = last

    def _hears(
        self, answer: Callable[[str, bytes], Awaitable[object]]
    ) -> Callable[[str, str, bytes, bytes], None]:
        def heard(subject: str, reply: str, _headers: bytes, data: bytes) -> None:
            if reply and self._engine.tenure.role is not Role.FOLLOWER:
                self._start(self._reply(answer, subject, reply, data), "answer")

        return heard

    async def _reply(
        self,
        answer: Callable[[str, bytes], Awaitable[object]],
        subject: str,
        reply: str,
        data: bytes,
    ) -> None:
        try:
            check_document(data, depth=_DEPTH)
            found = await answer(subject, data)
        except (OSError, LookupError, ApiError, _NotActive) as error:
            if not isinstance(error, UnknownTask):
                _log.debug("a question is not answered, and will be asked again: %s", error)
                return
            found = _complaint(error)
        except BadInput as error:
            found = _complaint(error)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            found = _complaint(BadInput("question", str(error)[:_MOST_SAID]))
        try:
            self._connection.send(reply, encode(found))
        except TooLarge as error:
            self._connection.send(reply, encode(_complaint(error)))

    async def _confirm(self, subject: str, data: bytes) -> object:
        question = msgspec.json.decode(data, type=_Confirm)
        if self.journal is None:
            raise _NotActive
        last, _ = await last_sequence(self._connection, self._topology.journal)
        await self.journal.reached(last)
        claim = Claim(
            task=question.task,
            attempt=question.attempt,
            host=question.host,
            incarnation=question.incarnation,
            pool=subject.split(".")[2],
        )
        known = last if self.connected_seq is None else self.connected_seq
        word = self._engine.confirm(claim, question.secret, known, time.monotonic())
        if word is None:
            raise _NotActive
        return {"go": word.go, "wait": word.wait, "why": word.why}

    async def _explain(self, subject: str, data: bytes) -> object:
        question = msgspec.json.decode(data, type=_Explain)
        tenant = subject.split(".")[2]
        found = self._engine.explain(tenant, question.id, self._connection.server_now_ms())
        if found is None:
            raise UnknownTask(question.id, tenant)
        return found

    async def _candidates(self, subject: str, data: bytes) -> object:
        question = msgspec.json.decode(data, type=_Candidates)
        tenant = check_tenant(subject.split(".")[2])
        capability = check_capability(question.capability)
        fitting, misfits = self._engine.candidates(tenant, capability, question.needs)
        return {"fitting": fitting, "misfits": misfits}

    async def _backlog(self, _subject: str, _data: bytes) -> object:
        queues = self._engine.backlog(self._connection.server_now_ms())
        return {"queues": sorted(queues, key=lambda queue: -queue.oldest_ms)[:_MOST_QUEUES]}

    async def _budget(self, _subject: str, data: bytes) -> object:
        question = msgspec.json.decode(data or b"{}", type=_Budgets)
        if question.set:
            in_force: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

            def done(changed: bool) -> None:  # noqa: FBT001  the engine's callback
                if not in_force.done():
                    in_force.set_result(changed)

            self._engine.set_budgets(question.set, question.by, done)
            if not await in_force:
                raise _NotActive
        found = self._engine.budgets()
        if found is None:
            raise _NotActive
        return found


def _complaint(error: Exception) -> object:
    said = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, BadInput):
        said |= {"message": error.reason, "field": error.field}
    return {"error": said}
