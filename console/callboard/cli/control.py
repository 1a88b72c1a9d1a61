"""`callboard cancel|pause|resume`: how a task, a workflow or a schedule goes on, or does not."""

from __future__ import annotations

from typing import Annotated

import typer

from callboard.cli.giving import Shared, give
from callboard.cli.options import Json, Nats, Owner, Prefix, Reason, document, new_app
from callboard.cli.reading import read_json
from callboard_broker.commanding import CommandDetails

__all__ = ["cancel_app", "pause_app", "resume_app"]

cancel_app = new_app()
pause_app = new_app()
resume_app = new_app()

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="As `callboard list` has it.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `callboard list` has it.")]


@cancel_app.command(
    epilog="callboard cancel 17\n\ncallboard cancel 17 18 --reason 'wrong branch'\n\n"
    "callboard cancel 12.review.3\n\n"
    "Handlers that run are told to stop; a task has ended when `callboard status` says so. What a "
    "task spawned is cancelled with it."
)
def cancel(
    ids: Ids,
    *,
    reason: Reason = "",
    tenant: Owner = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """End tasks, workflows, steps or schedules."""
    shared = Shared(tenant, nats, prefix, json=json)
    give("cancel", ids, CommandDetails(reason=reason), said="to be cancelled", shared=shared)


@pause_app.command(
    epilog="callboard pause 17\n\ncallboard pause 17 --reason 'the API is down'\n\n"
    "What runs already goes on to its end; `callboard resume 17` lets the rest go on."
)
def pause(
    ids: Ids,
    *,
    reason: Reason = "",
    tenant: Owner = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Start nothing new of a task, a workflow or a schedule."""
    shared = Shared(tenant, nats, prefix, json=json)
    give("pause", ids, CommandDetails(reason=reason), said="paused", shared=shared)


@resume_app.command(
    epilog="callboard resume 17\n\ncallboard resume 17 --from build\n\n"
    'callboard resume 17 --inputs \'{"branch": "main"}\'\n\n'
    "After a failure only what failed and what depends on it runs again; results of the others are "
    "kept. A single task that failed is run again by `callboard dead redrive`."
)
def resume(  # noqa: PLR0913  each is an option of the command
    task: Id,
    *,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STEP",
            help="Run this step and what follows it again, although it succeeded.",
            show_default=False,
        ),
    ] = None,
    inputs: Annotated[str | None, document("Replace inputs of these names.")] = None,
    reason: Reason = "",
    tenant: Owner = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Go on after a pause, or run what failed in a workflow again."""
    details = CommandDetails(reason=reason)
    if source is not None:
        details["source"] = source
    if inputs is not None:
        details["payload"] = read_json(inputs, "inputs")
    shared = Shared(tenant, nats, prefix, json=json)
    give("resume", [task], details, said="resumed", shared=shared)
