"""Leases: one holder of a thread at a time, and what an older one still writes is refused.

To hold is to have written the thread's claim on condition that the last claim was the one seen; its
sequence is the token. Every write of the holder says: store this only if the last claim is mine. So
the server refuses a zombie, whatever it believes and however late it comes. A heartbeat that the
server itself forgets after the lease says that the holder is alive; no clock of ours counts.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from callboard_broker.batch import GUARD_FAILED, GuardedWriter
from callboard_broker.errors import BadInput, CallboardError, WriteRefused
from callboard_broker.headers import raw_headers
from callboard_integrations.langgraph.addresses import ThreadAddress
from callboard_integrations.langgraph.errors import LeaseHeld, LeaseLost
from callboard_integrations.langgraph.table import Table

__all__ = ["Lease", "Leases"]

_MOST_SECONDS = 86_400
_BEATS = 3  # in one lease


class Lease:
    """A thread that is held. lost: a write or a heartbeat was refused; nothing is stored now.

    token: the sequence of its claim. heartbeat: that of its last heartbeat.
    """

    def __init__(self, thread: str, token: int, writer: GuardedWriter) -> None:
        self.thread = thread
        self.token = token
        self.lost = False
        self.heartbeat = 0
        self._writer = writer

    async def write(self, table: Table, subject: str, data: bytes) -> int:
        """Store a row while the thread is held. Raises `LeaseLost`, and as `Table.write`."""
        try:
            return await table.write(subject, data, fence=(self._writer, self.token))
        except WriteRefused as refusal:
            if refusal.code != GUARD_FAILED:
                raise
            self.lost = True
            raise LeaseLost(self.thread) from None


class Leases:
    """The leases that this process holds, by thread."""

    def __init__(self, table: Table, *, batched: bool) -> None:
        self._table = table
        self._batched = batched
        self._held: dict[str, Lease] = {}

    def get(self, thread: str) -> Lease | None:
        """The lease of a thread, if it is held here."""
        return self._held.get(thread)

    @asynccontextmanager
    async def hold(
        self, thread: str, address: ThreadAddress, *, seconds: float, take_over: bool
    ) -> AsyncIterator[Lease]:
        """Hold a thread for the length of the block. Raises `LeaseHeld`, `BadInput`."""
        if not 1 <= seconds <= _MOST_SECONDS:
            raise BadInput("seconds", f"{seconds!r} is not 1 to {_MOST_SECONDS}")
        holder = f"{socket.gethostname()}/{os.getpid()}"
        lease = await self._claim(thread, address, holder, take_over=take_over)
        await self._beat(lease, address, seconds)
        before = self._held.get(thread)
        self._held[thread] = lease
        beating = asyncio.create_task(self._beats(lease, address, seconds), name=f"lease {thread}")
        try:
            yield lease
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating
            if self._held.get(thread) is lease:
                del self._held[thread]
                if before is not None:
                    self._held[thread] = before  # it is lost, and its writes say so
            # ours, and not the heartbeat of whoever has taken over without our noticing
            await self._table.purge(address.heartbeat, before=lease.heartbeat + 1)

    async def _claim(
        self, thread: str, address: ThreadAddress, holder: str, *, take_over: bool
    ) -> Lease:
        last = await self._table.last(address.claim)
        if not take_over and await self._table.last(address.heartbeat) is not None:
            raise LeaseHeld(thread, last.data.decode(errors="replace") if last else "a deleted run")
        seen = 0 if last is None else last.seq
        headers = raw_headers({"Nats-Expected-Last-Subject-Sequence": str(seen)})
        try:
            token = await self._table.publisher.put(address.claim, holder.encode(), headers)
        except WriteRefused as refusal:
            if refusal.code != GUARD_FAILED:
                raise
            raise LeaseHeld(thread, "somebody who was faster") from None
        writer = GuardedWriter(
            self._table.connection, self._table.publisher, address.claim, batched=self._batched
        )
        return Lease(thread, token, writer)

    async def _beat(self, lease: Lease, address: ThreadAddress, seconds: float) -> None:
        headers = raw_headers(
            {
                "Nats-TTL": f"{max(1, round(seconds))}s",
                "Nats-Expected-Last-Subject-Sequence": str(lease.token),
                "Nats-Expected-Last-Subject-Sequence-Subject": address.claim,
            }
        )
        try:
            lease.heartbeat = await self._table.publisher.put(address.heartbeat, b"", headers)
        except WriteRefused as refusal:
            if refusal.code != GUARD_FAILED:
                raise
            lease.lost = True
            raise LeaseLost(lease.thread) from None

    async def _beats(self, lease: Lease, address: ThreadAddress, seconds: float) -> None:
        while not lease.lost:
            await asyncio.sleep(seconds / _BEATS)
            try:
                await self._beat(lease, address, seconds)
            except LeaseLost:
                return  # the next write says so to whoever runs the thread
            except CallboardError as error:
                self._table.connection.report(error)  # the claim still guards every write
