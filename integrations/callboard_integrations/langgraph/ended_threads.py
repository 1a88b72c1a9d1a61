"""Deletes threads in which nothing can go on: their graph has ended, and its task has succeeded.

A graph's attempt notes that its thread is at its end, before its outcome is stored; whoever sweeps
later asks the ledger what became of the task. Only what the journal holds as succeeded is deleted,
so that no attempt that is still to come finds its checkpoints gone. If nobody answers, all stays.
"""

from __future__ import annotations

from typing import Any

import msgspec

from callboard_broker.answers import NoResponder
from callboard_broker.subjects import Subjects
from callboard_integrations.langgraph.addresses import ThreadAddress, all_ended
from callboard_integrations.langgraph.table import Table

__all__ = ["EndedThreads"]

_MOST = 16  # threads of one sweep; each task leaves one, so that what has gathered gets less
_SECONDS = 1.0  # for the ledger's answer
_LIVE = frozenset({"waiting", "running"})


class _Ended(msgspec.Struct):
    """By which task a thread has come to its end."""

    tenant: str
    task: str


class EndedThreads:
    """Those of one board: its ledger answers on the connection of `table`."""

    def __init__(self, table: Table, prefix: str) -> None:
        self._table = table
        self._prefix = prefix

    @staticmethod
    def note(tenant: str, task: str) -> bytes:
        """The row at `ThreadAddress.ended`."""
        return msgspec.json.encode(_Ended(tenant, task))

    async def sweep(self) -> int:
        """Delete some, the oldest first; how many. Raises as `Table` and `Connection.request`."""
        deleted = seq = 0
        for _ in range(_MOST):
            row = await self._table.next(all_ended(self._prefix), seq=seq + 1)
            if row is None:
                break
            seq = row.seq
            state = await self._state(msgspec.json.decode(row.data, type=_Ended))
            if state == "succeeded":
                address = ThreadAddress(row.subject.removesuffix(".e"), self._table.stream)
                await self._table.purge(address.everything)
                deleted += 1
            elif state not in _LIVE:  # a redrive may want to go on; then it notes its end anew
                await self._table.purge(row.subject)
        return deleted

    async def _state(self, ended: _Ended) -> str:
        """What the journal holds of the task now; nothing if the ledger does not know it."""
        subject = Subjects(self._prefix).ask(ended.tenant, "status")
        question = msgspec.json.encode({"id": ended.task, "fresh": True})
        reply = await self._table.connection.request(subject, question, timeout=_SECONDS)
        found: dict[str, Any] = msgspec.json.decode(reply.data)
        if "state" in found:
            return str(found["state"])
        complaint = found.get("error") or {}
        if complaint.get("type") == "UnknownTask":
            return ""
        raise NoResponder(f"{subject} ({complaint.get('message', 'no answer')})")
