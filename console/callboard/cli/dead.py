"""`callboard dead list|show|redrive`: what has failed for good, why, and how to run it again."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from callboard.cli.asking import ask_history, ask_status
from callboard.cli.giving import Shared, give
from callboard.cli.history import show_history
from callboard.cli.listing import list_rows, show_rows
from callboard.cli.loop import run
from callboard.cli.options import (
    Capability,
    Json,
    Nats,
    Owner,
    Prefix,
    Reason,
    Rows,
    Thing,
    Whose,
    document,
    new_app,
)
from callboard.cli.reaching import reach
from callboard.cli.reading import read_json
from callboard.cli.screen import Screen
from callboard.cli.showing import show_view
from callboard_broker.client import Board
from callboard_broker.commanding import CommandDetails
from callboard_broker.errors import BadInput
from callboard_ledger.views import FlowView, TaskView

__all__ = ["app"]

app = new_app("List what has failed for good, look at it, and run it again.")


@app.command(
    "list",
    epilog="callboard dead list\n\ncallboard dead list --tenant acme --capability review.python\n\n"
    "callboard dead list --json | jq -r .id | xargs callboard dead redrive",
)
def list_dead(
    *,
    capability: Capability = None,
    limit: Rows = 20,
    tenant: Whose = "all",
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """List the tasks and workflows that failed or expired, the newest first."""

    async def work() -> None:
        question: dict[str, Any] = {"dead": True}
        if capability is not None:
            question["capability"] = capability
        async with reach(nats, prefix, name="callboard dead") as board:
            rows = await list_rows(board, question, tenant, limit)
        show_rows(Screen(json=json), rows, "there is no dead letter")

    run(work())


@app.command(
    epilog="callboard dead show 17\n\ncallboard dead show 17 --json | jq .payload > edited.json"
)
def show(
    task: Thing,
    *,
    tenant: Whose = "all",
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Show a dead letter with its payload, its reason and its history."""

    async def work() -> None:
        screen = Screen(json=json)
        async with reach(nats, prefix, name="callboard dead") as board:
            view = await ask_status(board, task, tenant)
            if not isinstance(view, TaskView | FlowView) or view.state not in _DEAD:
                raise BadInput("id", f"{task} is {view.state}, and no dead letter")
            history = await ask_history(board, view.id, view.tenant)
        if json:
            screen.document({"letter": view, "history": history})
        else:
            show_view(screen, view)
            show_history(screen, history)

    run(work())


@app.command(
    epilog="callboard dead redrive 17\n\ncallboard dead redrive 17 18 19\n\n"
    'callboard dead redrive 17 --edit \'{"path": "app.py"}\'\n\n'
    "callboard dead redrive 17 --edit @edited.json\n\n"
    "A workflow, or a step of one, is resumed: only what failed and what depends on it runs again, "
    "and --edit replaces its inputs of the same names."
)
def redrive(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="As `dead list` has it.")],
    *,
    edit: Annotated[str | None, document("Instead of the posted payload.")] = None,
    reason: Reason = "",
    tenant: Owner = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Run dead letters again: each gets new attempts, and ends once more."""
    details = CommandDetails(reason=reason)
    if edit is not None:
        details["payload"] = read_json(edit, "edit")
    shared = Shared(tenant, nats, prefix, json=json)
    give("redrive", ids, details, said="runs again", shared=shared, instead=_verb)


_DEAD = ("failed", "expired", "cancelled")


async def _verb(board: Board, task: str, tenant: str) -> str:
    """A workflow, and what is a part of one, is resumed."""
    view = await ask_status(board, task, tenant)
    part = isinstance(view, TaskView) and view.step is not None
    return "resume" if part or isinstance(view, FlowView) else "redrive"
