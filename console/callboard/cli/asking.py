"""Questions to the ledger, decoded; its complaints become the errors that they name."""

from __future__ import annotations

from typing import Any

import msgspec

from callboard_broker.client import Board
from callboard_broker.errors import BadInput, CallboardError, UnknownTask
from callboard_ledger.views import FlowView, ListView, PositionView, TaskView

__all__ = ["ask_list", "ask_position", "ask_status"]


async def ask_status(board: Board, task: str, tenant: str) -> TaskView | FlowView:
    """One task or workflow, with payload and result. Raises `UnknownTask`, `NoResponder`."""
    question = {"id": task, "fresh": True, "payload": True}
    data = await board.ask("status", question, tenant=tenant)
    _refuse(data, task, tenant)
    view: TaskView | FlowView = msgspec.json.decode(data, type=TaskView | FlowView)
    return view


async def ask_list(board: Board, question: dict[str, Any], tenant: str) -> ListView:
    """Tasks and workflows, the newest first. Raises `BadInput`, `NoResponder`."""
    data = await board.ask("list", {**question, "fresh": True}, tenant=tenant)
    _refuse(data, "", tenant)
    return msgspec.json.decode(data, type=ListView)


async def ask_position(board: Board) -> PositionView:
    """How far the ledger is. Raises `NoResponder`."""
    data = await board.ask("position", {}, tenant="all")
    _refuse(data, "", "all")
    return msgspec.json.decode(data, type=PositionView)


class _Complaint(msgspec.Struct):
    type: str
    message: str
    field: str | None = None


class _Refused(msgspec.Struct):
    error: _Complaint | None = None
    id: str = ""


def _refuse(data: bytes, task: str, tenant: str) -> None:
    """Raise what the ledger complains of; a task's own `error` is none of that."""
    refused = msgspec.json.decode(data, type=_Refused)
    if refused.error is None or refused.id:
        return
    if refused.error.type == "UnknownTask":
        raise UnknownTask(task, tenant)
    if refused.error.type == "BadInput":
        raise BadInput(refused.error.field or "question", refused.error.message)
    raise CallboardError(f"the ledger: {refused.error.message}")
