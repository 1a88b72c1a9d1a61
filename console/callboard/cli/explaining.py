"""`callboard explain`: why a task went where it went, or what exactly it waits for.

Of what is live the router knows; of what has ended, the ledger has what the router knew when it
dispatched it, and what happened to each attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET
from rich.text import Text

from callboard.cli.asking import ask_history, ask_router, ask_status, meant
from callboard.cli.history import show_history
from callboard.cli.loop import run
from callboard.cli.options import Json, Nats, Owner, Prefix, Thing, new_app
from callboard.cli.reaching import reach
from callboard.cli.screen import Cell, Screen, clock_time, reason_of, state_text, visible
from callboard.cli.showing import show_facts
from callboard_broker.client import Board
from callboard_broker.connection import NoResponder
from callboard_broker.errors import UnknownTask
from callboard_ledger.views import HistoryView, RowView, TaskView

__all__ = ["app", "show_why"]

app = new_app()


@app.command(
    epilog="callboard explain 17\n\ncallboard explain 17.review.3 --tenant acme\n\n"
    "callboard explain 17 --json | jq .router\n\n"
    "A waiting task says which budget, which agents, which step, which approval or which time it "
    "waits for; one that was dispatched, which hosts could have had it, and their scores."
)
def explain(
    task: Thing,
    *,
    tenant: Owner = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Say why a task is where it is: its placement, or what it waits for."""

    async def work() -> None:
        screen = Screen(json=json)
        async with reach(nats, prefix, name="callboard explain") as board:
            found, owner = await meant(board, task, tenant)
            live = await _router_says(board, found, owner)
            view, history = await _ledger_says(board, found, owner, needed=live is None)
        if json:
            screen.document({"id": found, "router": live, "task": view, "history": history})
            return
        state: str = "waiting" if view is None else view.state
        if live is not None:
            state = str(live.get("state", state))
        screen.line(Text(visible(f"{found}  "), style="bold") + state_text(state))
        if live is not None:
            _show_live(screen, {name: live[name] for name in live if name not in ("id", "state")})
        elif view is not None:
            _show_past(screen, view)
        if history is not None:
            show_history(screen, history)

    run(work())


async def _router_says(board: Board, task: str, tenant: str) -> dict[str, Any] | None:
    """Its explanation; None if no router is active, or what is meant is not live."""
    try:
        return await ask_router(board, "explain", {"id": task}, tenant) or None
    except (NoResponder, TimeoutError, UnknownTask):
        return None


async def _ledger_says(
    board: Board, task: str, tenant: str, *, needed: bool
) -> tuple[RowView | None, HistoryView | None]:
    """The row without its payload and result, and the history. Raises if `needed` and not there."""
    try:
        view = await ask_status(board, task, tenant, why=True)
    except (NoResponder, TimeoutError, UnknownTask):
        if needed:
            raise
        return None, None
    view.result = UNSET
    if not isinstance(view, TaskView):
        return view, None
    view.payload = UNSET
    try:
        return view, await ask_history(board, view.id, view.tenant)
    except UnknownTask:  # a step of which nothing has happened yet
        return view, None


def _show_past(screen: Screen, view: RowView) -> None:
    if view.error is not None:
        screen.line(f"  {reason_of(view.error)}", "red")
    if isinstance(view, TaskView):
        show_facts(screen, [("dispatched", clock_time(view.dispatched_at)), ("host", view.host)])
        show_why(screen, view.why or {})


_APART = frozenset(
    {"candidates", "dispatch", "error", "history", "message", "steps", "waits_for", "why"}
)
"""What is not shown as a plain fact."""

_IF_ANY = frozenset({"generation", "more_steps"})


def _show_live(screen: Screen, live: dict[str, Any]) -> None:
    """The router's explanation: one sentence, what else stands in the way, and the facts."""
    message = str(live.get("message", ""))
    waits = [str(wait["message"]) for wait in live.get("waits_for", ())]
    screen.line(f"  {message}", "yellow" if waits else "")
    for wait in waits:
        if wait not in message and "steps" not in live:
            screen.line(f"  {wait}", "yellow")
    facts = {name: live[name] for name in live if name not in _APART}
    facts = {name: value for name, value in facts.items() if value or name not in _IF_ANY}
    show_facts(screen, [(_words(name), _told(name, value)) for name, value in facts.items()])
    for wait in live.get("waits_for", ()):
        _show_candidates(screen, wait)
    dispatch = live.get("dispatch") or {}
    found = {**dispatch, **dispatch.get("why", {})}
    show_why(screen, {name: found[name] for name in found if name not in ("why", "attempt")})
    if steps := live.get("steps"):
        rows: list[list[Cell]] = [
            [
                name,
                step["succeeded"],
                step["running"],
                step["failed"],
                "?" if step["total"] is None else step["total"],
                "; ".join(str(wait["message"]) for wait in step["waits_for"][:3]),
            ]
            for name, step in steps.items()
        ]
        screen.line()
        columns = ("step", "done#", "running#", "failed#", "of#", "waits for")
        screen.table(columns, rows, fold="waits for")


def show_why(screen: Screen, why: Mapping[str, Any]) -> None:
    """What a router knew when it dispatched: facts, and the candidates as a table."""
    facts = {name: value for name, value in why.items() if name not in _APART}
    show_facts(screen, [(_words(name), _told(name, value)) for name, value in facts.items()])
    _show_candidates(screen, why)


def _show_candidates(screen: Screen, why: Mapping[str, Any]) -> None:
    candidates = why.get("candidates")
    if isinstance(candidates, list) and candidates:
        columns = list(dict.fromkeys(column for row in candidates for column in row))
        rows: list[list[Cell]] = [
            [_told(column, row.get(column)) for column in columns] for row in candidates
        ]
        screen.line()
        screen.table([_words(column) for column in columns], rows)


def _words(name: str) -> str:
    return name.removesuffix("_at").replace("_", " ")


def _told(name: str, value: Any) -> str:
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, int) and (name.endswith("_at") or name in _TIMES):
        return clock_time(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        parts = ((key, _told(key, item)) for key, item in value.items())
        return ", ".join(f"{_words(key)} {shown}" for key, shown in parts if shown)
    if isinstance(value, list):
        return ", ".join(_told("", item) for item in value)
    return str(value)


_TIMES = frozenset({"at", "since"})
