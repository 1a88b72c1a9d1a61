"""Tables of what the ledger knows of hosts, of what attempts hold and of what budgets are used."""

from __future__ import annotations

from typing import Any

from callboard.cli.asking import ask_agents, ask_allocations, ask_used
from callboard.cli.screen import Cell, Screen, clock_time
from callboard_broker.client import Board
from callboard_broker.limits import Limit
from callboard_ledger.holding_views import AgentView, AllocationView, BudgetView

__all__ = ["show_held", "show_known", "show_used"]

_PAGE = 1000


async def show_known(screen: Screen, board: Board) -> None:
    """Every host that the ledger knows, also those that are silent or gone."""
    question: dict[str, Any] = {"at_once": True}
    items: list[AgentView] = []
    while True:
        page = (await ask_agents(board, question)).items
        items += page
        if len(page) < _PAGE:
            break
        question["after"] = f"{page[-1].pool}/{page[-1].host}"
    if screen.json:
        screen.document({"hosts": items})
    elif items:
        screen.table(_HOSTS, [_host(item) for item in items], fold="capabilities")
        screen.note("at once: the most attempts that the host ran at the same time / its slots")
    else:
        screen.note("no host was ever heard: start one with `callboard agents run MODULE`")


_HOSTS = ("host", "pool", "state", "seen", "since", "running#", "at once#", "capabilities")


def _host(item: AgentView) -> list[Cell]:
    slots: dict[str, int] = {}
    for offer in item.offers:
        slots[offer.capability] = slots.get(offer.capability, 0) + offer.slots
    at_once = item.at_once or {}
    names = sorted(at_once.keys() | slots.keys())
    return [
        item.host,
        item.pool,
        item.state,
        clock_time(item.seen_at),
        clock_time(item.since),
        item.running,
        " ".join(f"{at_once.get(name, 0)}/{slots.get(name, '?')}" for name in names),
        " ".join(names),
    ]


async def show_held(
    screen: Screen, board: Board, question: dict[str, Any], tenant: str, rows: int
) -> None:
    """What attempts hold, the last dispatch first; with JSON one document each."""
    items: list[AllocationView] = []
    while len(items) < rows:
        asked = {**question, "limit": min(_PAGE, rows - len(items))}
        page = (await ask_allocations(board, asked, tenant)).items
        items += page
        if not page:
            break
        question = {**question, "before": page[-1].seq}
    if screen.json:
        for item in items:
            screen.document(item)
    elif items:
        screen.table(_HELD, [_allocation(item) for item in items], fold="task")
    else:
        screen.note("nothing is held" if question.get("held") else "nothing is like that")


_HELD = (
    "dispatch#",
    "task",
    "attempt#",
    "capability",
    "tenant",
    "host",
    "since",
    "returned",
    "how",
)


def _allocation(item: AllocationView) -> list[Cell]:
    return [
        item.seq,
        item.task,
        item.attempt,
        item.capability,
        item.tenant,
        item.host or "",
        clock_time(item.since),
        "" if item.returned_at is None else clock_time(item.returned_at),
        item.ending or "held",
    ]


async def show_used(screen: Screen, board: Board, key: str | None, tenant: str) -> None:
    """What is taken of each budget, by the ledger's count."""
    question: dict[str, Any] = {} if key is None else {"key": key}
    items: list[BudgetView] = []
    while True:
        found = await ask_used(board, question, tenant)
        items += found.items
        if len(found.items) < _PAGE:
            break
        question["after"] = found.items[-1].key
    if screen.json:
        screen.document({"items": items, "position": found.position})
        return
    if items:
        rows = [_budget(item) for item in items]
        used = [place for place in range(len(_USED)) if any(row[place] for row in rows)]
        screen.table([_USED[place] for place in used], [[row[p] for p in used] for row in rows])
    else:
        screen.note("no budget is limited or in use")
    screen.note(f"as of event {found.position} of the journal")


_USED = ("budget", "in use#", "most#", "at once#", "exceeded#", "reserved", "used")


def _budget(item: BudgetView) -> list[Cell]:
    limit = item.limit or Limit()
    return [
        item.key,
        str(item.in_use),
        str(item.most) if item.limit is not None else "",
        "" if limit.concurrency is None else str(limit.concurrency),
        str(item.exceeded) if item.exceeded else "",
        _units(item.reserved),
        _units(item.used),
    ]


def _units(amounts: dict[str, float]) -> str:
    return ", ".join(f"{name} {amount:,.6g}" for name, amount in sorted(amounts.items()))
