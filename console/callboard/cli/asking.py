"""Questions to ledger and router, decoded; their complaints become the errors that they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from callboard_broker.client import Board
from callboard_broker.errors import BadInput, CallboardError, UnknownTask
from callboard_broker.subjects import ALL_TENANTS
from callboard_broker.wire import Limit
from callboard_ledger.figures import FailuresView, FiguresView
from callboard_ledger.holding_views import AgentsView, AllocationsView, BudgetsView
from callboard_ledger.views import HistoryView, ListView, PositionView, RowView

__all__ = [
    "Budgets",
    "ask_agents",
    "ask_allocations",
    "ask_budgets",
    "ask_failures",
    "ask_figures",
    "ask_history",
    "ask_list",
    "ask_position",
    "ask_router",
    "ask_status",
    "ask_used",
    "at_once",
    "meant",
]

_ROUTER_SECONDS = 5.0


async def ask_status(board: Board, task: str, tenant: str, *, why: bool = False) -> RowView:
    """A task, workflow, schedule or command, with payload and result.

    why: also what the router knew at its last dispatch. Raises `UnknownTask`, `NoResponder`.
    """
    question: dict[str, Any] = {"id": task, "fresh": True, "payload": True}
    if why:
        question["why"] = True
    data = await board.ask("status", question, tenant=tenant)
    _refuse(data, task, tenant)
    view: RowView = msgspec.json.decode(data, type=RowView)
    return view


async def meant(board: Board, task: str, tenant: str | None) -> tuple[str, str]:
    """The id of a task, and whose it is: what was said, else what the ledger knows.

    Of a part, its workflow is looked up: the ledger has no row of a step that has not begun.
    Raises `UnknownTask`; `NoResponder` if nothing was said and no ledger runs.
    """
    if tenant is not None:
        return task, tenant
    root, dot, part = task.partition(".")
    data = await board.ask("status", {"id": root, "fresh": True}, tenant=ALL_TENANTS)
    _refuse(data, root, ALL_TENANTS)
    found = msgspec.json.decode(data, type=_Found)
    return f"{found.id}{dot}{part}", found.tenant


async def ask_history(board: Board, task: str, tenant: str) -> HistoryView:
    """What happened to a task or workflow. Raises `UnknownTask`, `NoResponder`."""
    data = await board.ask("history", {"id": task, "fresh": True}, tenant=tenant)
    _refuse(data, task, tenant)
    return msgspec.json.decode(data, type=HistoryView)


async def ask_router(
    board: Board, verb: str, question: dict[str, Any], tenant: str
) -> dict[str, Any]:
    """What the active router says; while another one takes over, nobody does.

    Raises `UnknownTask`, `BadInput`, `NoResponder`, `TimeoutError`.
    """
    data = await board.ask(verb, question, tenant=tenant, timeout=_ROUTER_SECONDS)
    _refuse(data, str(question.get("id", "")), tenant)
    return msgspec.json.decode(data, type=dict[str, Any])


async def ask_list(board: Board, question: dict[str, Any], tenant: str) -> ListView:
    """Tasks and workflows, the newest first. Raises `BadInput`, `NoResponder`."""
    data = await board.ask("list", {**question, "fresh": True}, tenant=tenant)
    _refuse(data, "", tenant)
    return msgspec.json.decode(data, type=ListView)


async def ask_figures(board: Board, question: dict[str, Any], tenant: str) -> FiguresView:
    """How agents and capabilities perform. Raises `BadInput`, `NoResponder`."""
    data = await board.ask("stats", {**question, "fresh": True}, tenant=tenant)
    _refuse(data, "", tenant)
    return msgspec.json.decode(data, type=FiguresView)


async def ask_failures(board: Board, question: dict[str, Any], tenant: str) -> FailuresView:
    """Which kinds of failures there were. Raises `BadInput`, `NoResponder`."""
    data = await board.ask("failures", {**question, "fresh": True}, tenant=tenant)
    _refuse(data, "", tenant)
    return msgspec.json.decode(data, type=FailuresView)


async def ask_agents(board: Board, question: dict[str, Any]) -> AgentsView:
    """Hosts that were heard. Raises `BadInput`, `NoResponder`."""
    data = await board.ask("agents", {**question, "fresh": True}, tenant=ALL_TENANTS)
    _refuse(data, "", ALL_TENANTS)
    return msgspec.json.decode(data, type=AgentsView)


async def ask_allocations(board: Board, question: dict[str, Any], tenant: str) -> AllocationsView:
    """What attempts hold, the newest first. Raises `BadInput`, `NoResponder`."""
    data = await board.ask("allocations", {**question, "fresh": True}, tenant=tenant)
    _refuse(data, "", tenant)
    return msgspec.json.decode(data, type=AllocationsView)


async def ask_used(board: Board, question: dict[str, Any], tenant: str) -> BudgetsView:
    """What is taken of budgets, as the ledger counts it. Raises `BadInput`, `NoResponder`."""
    data = await board.ask("budgets", {**question, "fresh": True}, tenant=tenant)
    _refuse(data, "", tenant)
    return msgspec.json.decode(data, type=BudgetsView)


async def ask_position(board: Board) -> PositionView:
    """How far the ledger is. Raises `NoResponder`."""
    data = await board.ask("position", {}, tenant="all")
    _refuse(data, "", "all")
    return msgspec.json.decode(data, type=PositionView)


class Budgets(msgspec.Struct):
    """What the router says of budgets. limits: in force. changed: of them, set on the running
    board. in_use: attempts. waiting: tasks of each tenant."""

    limits: dict[str, Limit]
    changed: dict[str, Limit] = {}
    in_use: dict[str, int] = {}
    waiting: dict[str, int] = {}


async def ask_budgets(board: Board) -> Budgets:
    """The budgets in force. Raises `NoResponder` if no router is active, `TimeoutError`."""
    return msgspec.convert(await ask_router(board, "budget", {}, ALL_TENANTS), Budgets)


def at_once(limits: Mapping[str, Limit]) -> dict[str, int]:
    """How many attempts may run at once by each budget that says it."""
    found = {key: limit.concurrency for key, limit in limits.items()}
    return {key: count for key, count in found.items() if count is not None}


class _Complaint(msgspec.Struct):
    type: str
    message: str
    field: str | None = None


class _Found(msgspec.Struct):
    id: str
    tenant: str


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
