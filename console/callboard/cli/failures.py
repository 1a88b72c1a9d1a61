"""`callboard failures`: what fails alike, how often, since when, and an example of it."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from callboard.cli.asking import ask_failures, ask_history
from callboard.cli.history import show_history
from callboard.cli.loop import run
from callboard.cli.options import Capability, Json, Nats, Prefix, Rows, Since, Whose, new_app
from callboard.cli.reaching import reach
from callboard.cli.screen import Cell, Screen, clock_time
from callboard_broker.errors import UnknownTask
from callboard_ledger.figures import FailureView
from callboard_ledger.views import HistoryView

__all__ = ["app"]

app = new_app()

_EPILOG = """callboard failures

callboard failures --since 1d --capability review.python

callboard failures --type TimedOut --example

callboard failures --json | jq -r '.items[] | "\\(.count) \\(.type) \\(.example)"'

Tasks that failed or expired are put together by error, capability, agent and version, without the \
numbers and names in their messages. A task that was started again and failed again counts twice."""


@app.command(epilog=_EPILOG)
def failures(  # noqa: PLR0913  each is an option of the command
    *,
    since: Since = None,
    capability: Capability = None,
    error: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="NAME", help="Only errors of this type.", show_default=False
        ),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Also the history of each example.")
    ] = False,
    limit: Rows = 20,
    tenant: Whose = "all",
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Group what failed by error, capability, agent and version, the most frequent first."""
    question: dict[str, Any] = {"limit": min(limit, 1000)}
    given = {"capability": capability, "type": error}
    question.update({name: value for name, value in given.items() if value is not None})
    if since is not None:
        question["since"] = int((time.time() - since) * 1000)

    async def work() -> None:
        histories: dict[str, HistoryView] = {}
        async with reach(nats, prefix, name="callboard failures") as board:
            found = (await ask_failures(board, question, tenant)).items
            for item in found if example else ():
                try:
                    histories[item.example] = await ask_history(board, item.example, item.tenant)
                except UnknownTask:
                    continue  # the ledger was built anew from a journal that no longer has it
        screen = Screen(json=json)
        if json:
            screen.document({"items": found, "histories": histories})
        elif found:
            _show(screen, found, histories)
        else:
            screen.note(
                "nothing has failed" if not given and since is None else "nothing like that"
            )

    run(work())


def _show(screen: Screen, found: list[FailureView], histories: dict[str, HistoryView]) -> None:
    screen.table(_COLUMNS, [_row(item) for item in found], fold="error")
    for item in found:
        history = histories.get(item.example)
        if history is not None:
            screen.line()
            screen.line(f"{item.example} ({item.type}, {item.capability})", "bold")
            show_history(screen, history)


_COLUMNS = ("count#", "first", "last", "capability", "agent", "tenant", "example", "error")


def _row(item: FailureView) -> list[Cell]:
    agent = f"{item.agent} {item.version}".rstrip()
    return [
        item.count,
        clock_time(item.first_at),
        clock_time(item.last_at),
        item.capability,
        agent,
        item.tenant,
        item.example,
        f"{item.type}: {item.message}",
    ]
