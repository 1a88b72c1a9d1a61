"""`callboard approve|signal`: what a person says to a workflow that waits for it."""

from __future__ import annotations

from typing import Annotated

import typer

from callboard.cli.giving import Shared, give
from callboard.cli.options import Json, Nats, Owner, Prefix, Reason, new_app
from callboard.cli.reading import read_json
from callboard_broker.commanding import CommandDetails

__all__ = ["approve_app", "signal_app"]

approve_app = new_app()
signal_app = new_app()


@approve_app.command(
    epilog="callboard approve 17\n\ncallboard approve 17.release.0 --reason 'tests are green'\n\n"
    "callboard approve 17 --reject --reason 'not on a Friday'\n\n"
    "`callboard status 17` lists what waits for an approval. Undecided means waiting."
)
def approve(
    gate: Annotated[
        str,
        typer.Argument(metavar="ID", help="The gate; or its workflow, if only one gate is open."),
    ],
    *,
    reject: Annotated[bool, typer.Option("--reject", help="Say no: the gate fails.")] = False,
    reason: Reason = "",
    tenant: Owner = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Approve what a workflow waits for, or reject it."""
    shared = Shared(tenant, nats, prefix, json=json)
    give(
        "approve",
        [gate],
        CommandDetails(reason=reason, approved=not reject),
        said="rejected" if reject else "approved",
        shared=shared,
    )


@signal_app.command(
    epilog="callboard signal 17 payment '{\"amount\": 12}'\n\ncallboard signal 17 go\n\n"
    "callboard signal 17 report @report.json\n\n"
    "A signal that comes before its gate is reached is kept for it."
)
def signal(
    workflow: Annotated[str, typer.Argument(metavar="ID", help="The workflow.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="As its gate names it.")],
    value: Annotated[
        str, typer.Argument(metavar="[JSON|@FILE|-]", help="What the gate's result becomes.")
    ] = "null",
    *,
    tenant: Owner = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Give a workflow the value for which its gate waits."""
    shared = Shared(tenant, nats, prefix, json=json)
    give(
        "signal",
        [workflow],
        CommandDetails(name=name, payload=read_json(value, "value")),
        said=f"has the signal {name}",
        shared=shared,
    )
