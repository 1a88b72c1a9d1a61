"""A ledger in this process, and a board on which a test plays posters, router, hosts and askers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from callboard_broker.connection import Connection, open_link
from callboard_broker.publisher import Publisher
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Dispatch, Epoch, Outcome, Post, encode
from callboard_ledger.serve import LedgerOptions, run_ledger
from tests.servers import NatsServer

__all__ = ["AskedBoard", "opened", "options_of", "running"]


class AskedBoard:
    """Writes what posters, a router and a host would write, and asks the ledger."""

    def __init__(self, link: Connection, publisher: Publisher, subjects: Subjects) -> None:
        self.link = link
        self.publisher = publisher
        self.subjects = subjects
        self.epoch = 0

    async def put(self, subject: str, message: object) -> int:
        data = message if isinstance(message, bytes) else encode(message)
        return await self.publisher.put(subject, data)

    async def begin_epoch(self) -> None:
        self.epoch = await self.put(self.subjects.epoch, Epoch("router-1", 1))

    async def post(
        self, tenant: str = "acme", payload: bytes = b'{"file":"a.py"}', **terms: Any
    ) -> str:
        subject = self.subjects.task(tenant, "review")
        return str(await self.put(subject, Post(payload=msgspec.Raw(payload), **terms)))

    async def dispatch(self, task: str, tenant: str = "acme", **carried: Any) -> None:
        subject = self.subjects.dispatch(tenant, "shared", "review")
        await self.put(subject, Dispatch(task, 1, "s", self.epoch, 3, 0, 20.0, **carried))

    async def outcome(self, task: str, tenant: str = "acme", **carried: Any) -> None:
        outcome = Outcome(task, 1, "s", "host-1", 1, 2, **carried)
        await self.put(self.subjects.run(tenant, "outcome", 3), outcome)

    async def run_task(self, tenant: str = "acme") -> str:
        task = await self.post(tenant)
        await self.dispatch(task, tenant)
        await self.outcome(task, tenant, result=msgspec.Raw(b'{"ok":true}'))
        return task

    async def ask(self, verb: str, question: object, tenant: str = "acme") -> Any:
        data = question if isinstance(question, bytes) else encode(question)
        reply = await self.link.request(self.subjects.ask(tenant, verb), data, timeout=15)
        return msgspec.json.decode(reply.data)

    async def status(self, task: str, tenant: str = "acme", **more: object) -> Any:
        return await self.ask("status", {"id": task, "fresh": True, **more}, tenant)

    async def position(self, **wanted: int | bool) -> Any:
        """The ledger's position, once it has audited `audited` events or met a `problem`."""
        while True:
            answer = await self.ask("position", {}, "all")
            problem = "audit_problem" in answer
            if answer["audited"] >= wanted.get("audited", 0) and problem == wanted.get(
                "problem", False
            ):
                return answer


def options_of(nats: NatsServer, directory: Path, **more: Any) -> LedgerOptions:
    return LedgerOptions(url=nats.url, prefix=nats.prefix, store=directory / "ledger", **more)


@asynccontextmanager
async def running(options: LedgerOptions) -> AsyncIterator[None]:
    """A ledger in this process, stopped in order at the end."""
    ready, stop = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run_ledger(options, ready=ready.set, stop=stop))
        await ready.wait()
        yield
        stop.set()


@asynccontextmanager
async def opened(nats: NatsServer) -> AsyncIterator[AskedBoard]:
    async with open_link(nats.url, name="test") as link, Publisher(link) as publisher:
        subjects = Subjects(nats.prefix)
        await ensure_streams(link, Topology(subjects))
        board = AskedBoard(link, publisher, subjects)
        await board.begin_epoch()
        yield board
