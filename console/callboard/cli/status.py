"""`callboard status`: one task or workflow, or without an id the board as a whole."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer
from msgspec import UNSET
from rich.text import Text

from callboard.census import take_census
from callboard.cli.agents import show_census
from callboard.cli.asking import ask_list, ask_position, ask_status
from callboard.cli.following import show_result
from callboard.cli.listing import lasted, why
from callboard.cli.loop import run
from callboard.cli.options import Json, Nats, Prefix, new_app
from callboard.cli.reaching import reach
from callboard.cli.screen import Cell, Screen, clock_time, state_text, visible
from callboard.connecting import locate
from callboard_broker.client import Board
from callboard_broker.connection import NoResponder
from callboard_broker.direct import get_last
from callboard_broker.streams import Topology
from callboard_broker.subjects import ALL_TENANTS
from callboard_broker.wire import Budget, decode_event
from callboard_config import mask_nats_url
from callboard_ledger.views import FlowView, TaskView

__all__ = ["app"]

app = new_app()

_COUNTED = 1000

_EPILOG = """callboard status

callboard status 17 --tenant acme

callboard status 17.review.3

callboard status 17 --json | jq .result

Exit code 1: the task or workflow has failed."""


@app.command(epilog=_EPILOG)
def status(
    task: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A task, a step or a workflow.")
    ] = None,
    *,
    tenant: Annotated[str, typer.Option("--tenant", "-t", help="Whose; `all` for each.")] = "all",
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Show a task or workflow; without ID, the whole board."""

    async def work() -> int:
        screen = Screen(json=json)
        async with reach(nats, prefix, name="callboard status") as board:
            if task is None:
                await _show_board(board, screen, locate(nats, prefix).origin)
                return 0
            view = await ask_status(board, task, tenant)
            if view.result is UNSET and view.result_blob is not None:
                view.result = msgspec.Raw(await board.blob(view.result_blob))
        if json:
            screen.document(view)
        elif isinstance(view, FlowView):
            _show_flow(screen, view)
        else:
            _show_task(screen, view)
        return 1 if view.state in ("failed", "cancelled", "expired") else 0

    raise typer.Exit(run(work()))


def _show_task(screen: Screen, task: TaskView) -> None:
    _head(screen, "task", task)
    facts: list[tuple[str, Cell]] = [
        ("capability", task.capability),
        ("tenant", task.tenant),
        ("priority", task.priority),
        ("posted", clock_time(task.posted_at)),
        ("dispatched", clock_time(task.dispatched_at)),
        ("ended", clock_time(task.ended_at)),
        ("took", lasted(task.posted_at or task.dispatched_at, task.ended_at)),
        ("attempts", f"{task.attempt}, {task.lost} of them lost" if task.lost else task.attempt),
        ("host", task.host),
        ("workflow", None if task.flow is None else f"{task.flow} (step {task.step})"),
        ("same as", task.same_as),
        ("payload", _short(task.payload)),
    ]
    _facts(screen, facts)
    _result(screen, task)


def _show_flow(screen: Screen, flow: FlowView) -> None:
    _head(screen, f"workflow {flow.name}", flow)
    _facts(
        screen,
        [
            ("tenant", flow.tenant),
            ("posted", clock_time(flow.posted_at)),
            ("ended", clock_time(flow.ended_at)),
            ("took", lasted(flow.posted_at, flow.ended_at)),
            ("same as", flow.same_as),
        ],
    )
    if flow.steps:
        screen.line()
        rows: list[list[Cell]] = [
            [
                step.id,
                state_text(step.state),
                step.succeeded,
                step.running,
                step.failed,
                "?" if step.total is None else step.total,
                step.capability,
            ]
            for step in flow.steps
        ]
        screen.table(("step", "state", "done#", "running#", "failed#", "of#", "capability"), rows)
    _result(screen, flow)


def _head(screen: Screen, what: str, view: TaskView | FlowView) -> None:
    head = Text(visible(f"{what} {view.id}  "), style="bold")
    screen.line(head + state_text(view.state))
    if view.error is not None:
        screen.line(f"  {why(view)}", "red")


def _facts(screen: Screen, facts: list[tuple[str, Cell]]) -> None:
    for name, value in facts:
        if value is not None and value != "":
            screen.line(Text(f"  {name:<11}", style="dim") + Text(visible(str(value))))


def _result(screen: Screen, view: TaskView | FlowView) -> None:
    if isinstance(view.result, msgspec.Raw):
        screen.line()
        show_result(screen, msgspec.json.decode(view.result))


def _short(raw: object) -> str | None:
    if not isinstance(raw, msgspec.Raw):
        return None
    text = bytes(raw).decode(errors="replace")
    return text if len(text) <= 120 else f"{text[:117]}..."


async def _show_board(board: Board, screen: Screen, origin: str) -> None:
    topology = Topology(board.subjects)
    census = await take_census(board.connection, topology)
    overview: dict[str, Any] = {
        "url": mask_nats_url(board.connection.url),
        "prefix": board.options.prefix,
        "origin": origin,
        "routers": [seen.beat.host for seen in census.routers],
        "hosts": len(census.hosts),
        "budgets": await _budgets(board, topology),
        "ledger": None,
        "tasks": None,
    }
    try:
        overview["ledger"] = await ask_position(board)
        counts: dict[str, int] = {}
        for state in ("waiting", "running"):
            question = {"state": state, "limit": _COUNTED}
            counts[state] = len((await ask_list(board, question, ALL_TENANTS)).items)
        overview["tasks"] = counts
    except NoResponder:
        screen.note("no ledger answers: `status ID` and `list` need one (`callboard ledger`)")
    if screen.json:
        screen.document(overview)
        return
    ledger, counts = overview["ledger"], overview["tasks"] or {}
    shown = {name: f"{n}+" if n == _COUNTED else str(n) for name, n in counts.items()}
    screen.line(Text("board ", style="bold") + Text(visible(f"{overview['url']} ({origin})")))
    _facts(
        screen,
        [
            ("prefix", overview["prefix"]),
            ("routers", ", ".join(overview["routers"]) or "none: nothing is decided"),
            ("budgets", _told(overview["budgets"])),
            ("at work", ", ".join(f"{n} {name}" for name, n in shown.items())),
            ("journal", None if ledger is None else f"{ledger.last} events"),
            ("ledger", None if ledger is None else f"at {ledger.position}"),
            ("audited", None if ledger is None else ledger.audit_problem or f"to {ledger.audited}"),
        ],
    )
    screen.line()
    show_census(screen, census)


async def _budgets(board: Board, topology: Topology) -> dict[str, int] | None:
    """The limits in force, as the journal has them."""
    subject = board.subjects.run(ALL_TENANTS, "budget", 0)
    try:
        record = await get_last(board.connection, topology.journal, subject)
    except LookupError:
        return None
    event = decode_event("budget", record.data)
    return event.concurrency if isinstance(event, Budget) else None


def _told(budgets: dict[str, int] | None) -> str | None:
    if budgets is None:
        return None
    names = {"global": "in all", "tenant": "each tenant"}
    return ", ".join(f"{n} {names.get(key, key)}" for key, n in budgets.items())
