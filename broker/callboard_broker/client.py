"""The client: posts tasks, workflows and commands, and hears what becomes of them.

A post carries a nonce, so that the client may repeat it until it is acknowledged: the repeats fold
into one task. What happens afterwards arrives by the journal's republish on the client's shard;
what was missed while the connection was down is asked of the ledger. Where a post was refused
because its tenant has too much waiting, the tenant's door stays closed here for as long as the
router said: further posts are refused at once and cost the board nothing.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar, Unpack

import msgspec

from callboard_broker.blobs import Blobs
from callboard_broker.bounds import check_size
from callboard_broker.commanding import Asked, CommandDetails, Commanding, read_command
from callboard_broker.connection import Connection, open_link
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import (
    BadInput,
    CommandRefused,
    CommandUnanswered,
    UnknownTask,
)
from callboard_broker.graph import chart
from callboard_broker.handle import Handle
from callboard_broker.hearing import Hearing
from callboard_broker.inputs import check_inputs
from callboard_broker.log_following import LogsWanted, read_logs
from callboard_broker.log_lines import Level, LoggedLine
from callboard_broker.options import (
    TaskOptions,
    check_key,
    check_priority,
    check_timeout,
    check_trace,
    read_options,
)
from callboard_broker.posting import Posting
from callboard_broker.publisher import Publisher
from callboard_broker.streams import Topology
from callboard_broker.subjects import SHARDS, Subjects, check_tenant
from callboard_broker.submission import Submission, SubmitMiddleware, check_chain, composed
from callboard_broker.wire import (
    BlobRef,
    FlowRun,
    Post,
    encode,
)
from callboard_broker.workflow import Workflow

__all__ = ["Board", "BoardOptions", "connect"]

_REMEMBERED = 4096
_MAX_PATIENCE = 45.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardOptions:
    """tenant: of posts that name none. patience: seconds in which a post is repeated until it is
    acknowledged. post_bytes: above it, a payload goes to the blob store. by: who gives commands,
    as the journal records it; else `name`. middleware: around each `submit`, the first
    outermost."""

    tenant: str = "default"
    prefix: str = "cb"
    name: str = "callboard client"
    by: str = ""
    patience: float = 30.0
    post_bytes: int = 262_144
    payload_bytes: int = 64 * 1024 * 1024
    middleware: tuple[SubmitMiddleware, ...] = ()


_Posted = TypeVar("_Posted", Handle, Asked)


class Board(Commanding):
    """A connection to a board. Made by `connect`, and closed by it."""

    def __init__(
        self, connection: Connection, options: BoardOptions, group: asyncio.TaskGroup
    ) -> None:
        self.connection = connection
        self.options = options
        self.subjects = Subjects(options.prefix)
        self._publisher = Publisher(connection)
        self._posting = Posting(connection, self._publisher, options.patience)
        self._blobs = Blobs(connection, Topology(self.subjects))
        self._shard = random.randrange(SHARDS)  # noqa: S311  spreads load, keeps no secret
        self._nonce = secrets.token_hex(8)
        self._posts = 0
        self._subjects_of: dict[tuple[str, str], str] = {}
        self._hearing = Hearing(connection, self.subjects, group)
        self._through = composed(options.middleware, self._submit_last)

    async def __aenter__(self) -> Self:
        await self._publisher.__aenter__()
        self._forget = self.connection.at_restore(self._hearing.ask_about_all)
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._forget()
        self._hearing.close()
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
        **options: Unpack[TaskOptions],
    ) -> Handle:
        """Post a task; returns when it is stored. timeout: seconds that its handler may run.

        options: retry, timeouts, needs, budgets, units, delay, cron, trace: see `TaskOptions`.
        Raises `BadInput` that names the field, `Overloaded` while the tenant has too much waiting,
        `BoardUnreachable`, `WriteUnresolved`.
        """
        tenant = self.options.tenant if tenant is None else tenant
        if self._through is None:
            terms = {"key": key, "priority": priority, "timeout": timeout}
            return await self._submit(tenant, capability, payload, terms, options)
        return await self._through(
            Submission(
                capability=capability,
                payload=payload,
                tenant=tenant,
                priority=priority,
                key=key,
                timeout=timeout,
                options=options,
            )
        )

    async def _submit_last(self, said: Submission, /) -> Handle:
        """The end of the chain."""
        terms = {"key": said.key, "priority": said.priority, "timeout": said.timeout}
        return await self._submit(said.tenant, said.capability, said.payload, terms, said.options)

    async def _submit(
        self,
        tenant: str,
        capability: str,
        payload: Any,
        terms: dict[str, Any],
        options: TaskOptions,
    ) -> Handle:
        if self._hearing.closed:
            self._hearing.check_door(tenant)
        subject = self._subject(tenant, capability)
        data = encode_payload(payload)
        blob = None
        if len(data) > self.options.post_bytes:
            check_size(data, self.options.payload_bytes)
            blob, data = await self._blobs.put(data), b"null"
        post = Post(
            payload=msgspec.Raw(data),
            blob=blob,
            key=check_key(terms["key"]),
            nonce=self._new_nonce(),
            shard=self._shard,
            priority=check_priority(terms["priority"]),
            timeout=check_timeout(terms["timeout"]),
        )
        if options:
            post = read_options(options, post)
        return await self._post(subject, tenant, encode(post), Handle)

    async def run(
        self,
        workflow: Workflow | FlowRun,
        inputs: dict[str, Any] | None = None,
        *,
        tenant: str | None = None,
        key: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  the workflow's, not this call's
        trace: str | None = None,
    ) -> Handle:
        """Post a workflow; the router runs it, also when this process is gone.

        timeout: seconds until it expires as a whole. trace: see `TaskOptions`. Raises `BadInput`
        that names the field (a cycle, an unknown step, an input that is not there), `Overloaded`,
        `BoardUnreachable`.
        """
        tenant = self.options.tenant if tenant is None else tenant
        if self._hearing.closed:
            self._hearing.check_door(tenant)
        run = workflow.spec(inputs) if isinstance(workflow, Workflow) else workflow
        check_inputs(run, chart(run))
        run = msgspec.structs.replace(
            run,
            key=check_key(key),
            nonce=self._new_nonce(),
            shard=self._shard,
            timeout=run.timeout if timeout is None else check_timeout(timeout),
            trace=run.trace if trace is None else check_trace(trace),
        )
        data = encode(run)
        check_size(data, 2 * self.options.post_bytes, "workflow")
        return await self._post(self.subjects.flow(tenant, "run"), tenant, data, Handle)

    async def command(
        self,
        verb: str,
        task: str,
        *,
        tenant: str | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109  a promise of this call, with an error of its own
        **details: Unpack[CommandDetails],
    ) -> None:
        """Post a command (`cancel`, `pause`, ...) and wait for the router's word on it.

        timeout: seconds to wait for that. Raises `CommandRefused`, `CommandUnanswered`,
        `BadInput`, `BoardUnreachable`, `WriteUnresolved`.
        """
        tenant = self.options.tenant if tenant is None else tenant
        details.setdefault("by", self.options.by or self.options.name)
        command = msgspec.structs.replace(
            read_command(verb, task, details), nonce=self._new_nonce(), shard=self._shard
        )
        subject = self.subjects.flow(tenant, verb)
        self._hearing.unnamed += 1  # a repeat that is merged goes by the name of the first one
        asked: Asked | None = None
        try:
            asked = await self._post(subject, tenant, encode(command), Asked)
            async with asyncio.timeout(timeout):
                error = await asked.wait()
        except TimeoutError:
            if asked is None:
                raise
            self._hearing.drop(asked)
            raise CommandUnanswered(verb, task, asked.id, timeout) from None
        finally:
            self._hearing.named()
        if error is not None:
            raise CommandRefused(verb, task, error.message, error)

    async def listen(self, *, tenant: str | None = None) -> None:
        """Hear from now on what hosts say of this client's posts without storing it.

        A handle does so when it is followed. Call this before a `submit` whose handler may speak
        (`ctx.output`, `ctx.progress`) before one could follow, and follow the handle at once.
        """
        await self._hearing.follow_shard(tenant or self.options.tenant, self._shard)

    async def handle(self, task: str, *, tenant: str | None = None) -> Handle:
        """The handle of a task or workflow that was posted earlier. Raises `UnknownTask`."""
        tenant = check_tenant(self.options.tenant if tenant is None else tenant)
        view = await self._hearing.ask_about(task, tenant)
        if view is None:
            raise UnknownTask(task, tenant)
        handle = Handle(self, view.id, tenant, view.shard if view.shard is not None else 0)
        await self._hearing.listen(tenant, handle.shard)
        self._hearing.add(handle)
        await self._hearing.learn(handle)
        return handle

    async def ask(
        self,
        verb: str,
        question: object,
        *,
        tenant: str | None = None,
        timeout: float = 10.0,  # noqa: ASYNC109  of the request below
    ) -> bytes:
        """Ask the ledger (`status`, `list`, ...) or the router (`explain`, `budget`).

        tenant: `all` asks for every tenant. timeout: seconds to wait for the answer.
        Raises `NoResponder` if the component does not run, `TimeoutError`, `BoardUnreachable`.
        """
        subject = self.subjects.ask(tenant or self.options.tenant, verb)
        reply = await self.connection.request(subject, encode(question), timeout=timeout)
        return reply.data

    def logs(
        self,
        task: str,
        *,
        tenant: str | None = None,
        level: Level = "debug",
        last: int | None = None,
        follow: bool = False,
    ) -> AsyncGenerator[LoggedLine]:
        """What the handlers of a task have logged, and of all that is below it; iterate over it.

        In the order in which it reached the board. last: only so many of the newest, up to 1000.
        follow: go on until the task has ended. Raises `UnknownTask`, `BadInput`, `NoResponder`.
        """
        owner = check_tenant(self.options.tenant if tenant is None else tenant)
        return read_logs(self, LogsWanted(task, owner, level, last, follow=follow))

    # -- what a handle needs

    async def follow(self, handle: Handle) -> None:
        """Hear also what hosts say of this handle's shard without storing it."""
        await self._hearing.follow(handle)

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

    async def _post(self, subject: str, tenant: str, data: bytes, kind: type[_Posted]) -> _Posted:
        hearing = self._hearing
        await hearing.listen(tenant, self._shard)
        hearing.unnamed += 1
        try:
            seq = await self._posting.stored(subject, data)
            handle = kind(self, str(seq), tenant, self._shard)
            hearing.add(handle)
        finally:
            hearing.named()
        return handle


@asynccontextmanager
async def connect(
    url: str, options: BoardOptions | None = None, *, tries_seconds: float = 5.0
) -> AsyncIterator[Board]:
    """Open a board at `url` and close it at the end. Raises `BoardUnreachable`, `BadInput`."""
    options = options or BoardOptions()
    check_tenant(options.tenant)
    check_chain(options.middleware)
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
