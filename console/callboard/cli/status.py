"""`callboard status`: one task or workflow, or without an id the board as a whole."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import msgspec
import typer
from msgspec import UNSET
from rich.text import Text

from callboard.census import take_census
from callboard.cli.asking import ask_budgets, ask_list, ask_position, ask_status, at_once
from callboard.cli.crew import show_census
from callboard.cli.following import follow_to_end, unoffered
from callboard.cli.lagging import told_projectors
from callboard.cli.loop import run
from callboard.cli.options import Follow, Json, Nats, Prefix, Whose, new_app
from callboard.cli.projected import From, overview_projected, status_projected
from callboard.cli.reaching import reach
from callboard.cli.screen import Screen, clock_time, visible
from callboard.cli.showing import show_facts, show_view
from callboard.cli.watching import watch
from callboard.connecting import locate
from callboard_broker.bookmarks import read_bookmarks
from callboard_broker.client import Board
from callboard_broker.connection import NoResponder
from callboard_broker.streams import Topology
from callboard_broker.subjects import ALL_TENANTS
from callboard_config import mask_nats_url
from callboard_ledger.views import CommandView, TaskView

__all__ = ["app"]

app = new_app()

_COUNTED = 1000

_EPILOG = """callboard status

callboard status 17 --tenant acme

callboard status 17.review.3

callboard status 17 --follow

callboard status 17 --json | jq .result

callboard status 17 --from postgres://callboard@db/callboard

Exit code 1: the task or workflow has failed."""


@app.command(epilog=_EPILOG)
def status(
    task: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A task, a step or a workflow.")
    ] = None,
    *,
    follow: Follow = False,
    tenant: Whose = "all",
    source: From = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Show a task, workflow or schedule; without ID, the whole board."""

    async def work() -> int:
        screen = Screen(json=json)
        if task is None and source is not None:
            _show_projected(await overview_projected(source, prefix), screen)
            return 0
        if task is not None and source is not None:
            view = await status_projected(source, prefix, task, tenant)
        else:
            async with reach(nats, prefix, name="callboard status") as board:
                if task is None:
                    origin = locate(nats, prefix).origin

                    async def show() -> bool:
                        await _show_board(board, screen, origin)
                        return True

                    await watch(screen, show, follow=follow)
                    return 0
                view = await ask_status(board, task, tenant)
                if follow and not isinstance(view, CommandView) and view.ended_at is None:
                    await follow_to_end(await board.handle(view.id, tenant=view.tenant), screen)
                    view = await ask_status(board, view.id, view.tenant)
                if view.result is UNSET and view.result_blob is not None:
                    view.result = msgspec.Raw(await board.blob(view.result_blob))
        if json:
            screen.document(view)
        else:
            show_view(screen, view)
        return 1 if view.state in ("failed", "cancelled", "expired") else 0

    raise typer.Exit(run(work()))


async def _show_board(board: Board, screen: Screen, origin: str) -> None:
    topology = Topology(board.subjects)
    census = await take_census(board.connection, topology)
    overview: dict[str, Any] = {
        "url": mask_nats_url(board.connection.url),
        "prefix": board.options.prefix,
        "origin": origin,
        "routers": [seen.beat.host for seen in census.routers],
        "hosts": len(census.hosts),
        "budgets": await _budgets(board),
        "ledger": None,
        "tasks": None,
        "unserved": None,
        "projectors": await read_bookmarks(board.connection, topology),
    }
    try:
        overview["ledger"] = await ask_position(board)
        counts: dict[str, int] = {}
        for state in ("waiting", "running"):
            question = {"state": state, "limit": _COUNTED}
            rows = (await ask_list(board, question, ALL_TENANTS)).items
            counts[state] = len(rows)
            if state == "waiting":
                waiting = Counter(row.capability for row in rows if isinstance(row, TaskView))
                overview["unserved"] = {name: waiting[name] for name in unoffered(census, waiting)}
        overview["tasks"] = counts
    except NoResponder:
        screen.note("no ledger answers: `status ID` and `list` need one (`callboard ledger`)")
    if screen.json:
        screen.document(overview)
        return
    ledger, counts = overview["ledger"], overview["tasks"] or {}
    shown = {name: f"{n}+" if n == _COUNTED else str(n) for name, n in counts.items()}
    screen.line(Text("board ", style="bold") + Text(visible(f"{overview['url']} ({origin})")))
    show_facts(
        screen,
        [
            ("prefix", overview["prefix"]),
            ("routers", ", ".join(overview["routers"]) or "none: nothing is decided"),
            ("budgets", _told(overview["budgets"])),
            ("at work", ", ".join(f"{n} {name}" for name, n in shown.items())),
            ("unserved", _named(overview["unserved"])),
            ("journal", None if ledger is None else f"{ledger.last} events"),
            ("ledger", None if ledger is None else f"at {ledger.position}"),
            ("audited", None if ledger is None else ledger.audit_problem or f"to {ledger.audited}"),
            *told_projectors(overview["projectors"], ledger, board.connection.server_now_ms()),
        ],
    )
    screen.line()
    show_census(screen, census)


def _show_projected(overview: dict[str, Any], screen: Screen) -> None:
    if screen.json:
        screen.document(overview)
        return
    screen.line(Text("projection ", style="bold") + Text(visible(overview["from"])))
    shown = {n: f"{k}+" if k == _COUNTED else str(k) for n, k in overview["tasks"].items()}
    show_facts(
        screen,
        [
            ("journal", overview["journal"]),
            ("written", f"to {overview['position']}, of {clock_time(overview['at'])}"),
            ("at work", ", ".join(f"{n} {name}" for name, n in shown.items())),
            ("parked", overview["parked"] or None),
        ],
    )


async def _budgets(board: Board) -> dict[str, int] | None:
    """How many may run at once by each budget; None if no router says it."""
    try:
        return at_once((await ask_budgets(board)).limits)
    except (NoResponder, TimeoutError):
        return None


def _named(unserved: dict[str, int] | None) -> str:
    """How many tasks wait for capabilities that no agent offers."""
    return ", ".join(
        f"{count} wait for an agent that offers {name}" for name, count in (unserved or {}).items()
    )


def _told(budgets: dict[str, int] | None) -> str | None:
    if budgets is None:
        return None
    names = {"global": "in all", "tenant": "each tenant"}
    return ", ".join(f"{n} {names.get(key, key)}" for key, n in budgets.items())
