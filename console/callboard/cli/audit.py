"""`callboard audit`: proves that the journal is what it was, and replays it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from callboard.cli.auditing import (
    export_place,
    prove_place,
    show_checkpoint,
    time_ms,
    trusted,
    trusted_offline,
    verify_file,
    verify_place,
)
from callboard.cli.loop import run
from callboard.cli.options import Json, Nats, Prefix, Thing, new_app
from callboard.cli.replaying import Until, replay_board
from callboard.cli.screen import Screen
from callboard.cli.timing import show_timeline
from callboard.connecting import locate
from callboard_broker.errors import BadInput
from callboard_ledger.skeleton import Choice

__all__ = ["app"]

app = new_app("Prove what happened, and replay it.")

PublicKeyOption = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="PUB",
        help="The log's public key, or a file with it.",
        show_default="that of the ledger here",
    ),
]
ArchiveOption = Annotated[
    Path | None,
    typer.Option(
        "--archive", metavar="DIR", help="Where purged events are archived.", show_default=False
    ),
]


@app.command(
    epilog="callboard audit verify\n\n"
    "callboard audit verify --checkpoint /backup/checkpoints --key /backup/audit.pub --json\n\n"
    "callboard audit verify events.jsonl --key 'callboard/cb/1f2e3d4c+...'\n\n"
    "Exit code 1: something was altered, deleted, reordered, inserted or cut off. Without an "
    "audit checkpoint that was kept outside the server nobody can tell that the end of the audit "
    "log was cut off."
)
def verify(
    *,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help="An export, a proof, or a segment of an archive; it needs no board.",
            show_default="the board itself",
        ),
    ] = None,
    key: PublicKeyOption = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Audit checkpoints kept outside, or a ledger's directory. May be repeated.",
            show_default="those of the ledger here",
        ),
    ] = None,
    archive: ArchiveOption = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Prove that what is there is what was audited: a board, or a file offline."""
    screen = Screen(json=json)
    if file is None:
        place = locate(nats, prefix)
        ok = run(verify_place(place, screen, trusted(place, key, checkpoint), archive=archive))
    elif archive is not None:
        raise BadInput("archive", "says nothing with a file; name one of its segments instead")
    else:
        ok = verify_file(screen, file, trusted_offline(key, checkpoint))
    raise typer.Exit(0 if ok else 1)


@app.command(
    epilog="callboard audit export --output events.jsonl\n\n"
    "callboard audit export --output acme.jsonl --tenant acme --since 2026-03-01\n\n"
    "callboard audit export --output 17.jsonl --workflow 17\n\n"
    "The file verifies offline (`callboard audit verify FILE --key PUB`), also where not all was "
    "chosen."
)
def export(  # noqa: PLR0913  each is an option of the command
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; `-`: stdout.")
    ],
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", "-t", metavar="NAME", help="Only its.", show_default=False),
    ] = None,
    workflow: Annotated[
        str | None, typer.Option(metavar="ID", help="Only it and its steps.", show_default=False)
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="ID", help="Only it.", show_default=False)
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From that time on.", show_default=False),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Before that time.", show_default=False)
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Older audit checkpoints that the export shall be comparable with.",
            show_default=False,
        ),
    ] = None,
    key: PublicKeyOption = None,
    archive: ArchiveOption = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Write events with what proves them, as JSON lines."""
    if workflow and task:
        raise BadInput("task", "name a task or a workflow, not both")
    choice = Choice(
        tenant=tenant,
        about=task or workflow,
        since=time_ms("since", since),
        until=time_ms("until", until),
    )
    place = locate(nats, prefix)
    trust = trusted(place, key, checkpoint or [])
    run(export_place(place, Screen(json=json), choice, trust, output=output, archive=archive))


@app.command(
    epilog="callboard audit prove 17 > 17.tlog-proof\n\n"
    "callboard audit verify 17.tlog-proof --key audit.pub"
)
def prove(
    event: Annotated[int, typer.Argument(metavar="SEQ", min=1, help="The event's number.")],
    *,
    key: PublicKeyOption = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Print a proof that an event is in the audit log; it verifies offline."""
    place = locate(nats, prefix)
    run(prove_place(place, Screen(json=json), event, trusted(place, key, [])))


@app.command(
    epilog="callboard audit checkpoint >> /backup/checkpoints\n\n"
    "callboard audit checkpoint --json | jq .size"
)
def checkpoint(
    *,
    key: PublicKeyOption = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Print the latest audit checkpoint: the signed head of the tree (a C2SP tlog-checkpoint)."""
    place = locate(nats, prefix)
    run(show_checkpoint(place, Screen(json=json), trusted(place, key, [])))


@app.command(
    epilog="callboard audit replay\n\ncallboard audit replay --until 1200\n\n"
    "callboard audit replay --until 2026-03-01T12:00 --workflow 17\n\n"
    "callboard audit replay --json | jq -r 'select(.state == \"failed\") | .id'"
)
def replay(
    *,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="SEQ|TIME",
            help="Up to that event, or that time (2026-03-01T12:00; local if without a zone).",
            show_default="now",
        ),
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(metavar="ID", help="What happened to it and its steps.", show_default=False),
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="ID", help="What happened to it.", show_default=False)
    ] = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Work the state out anew from the journal, as it was at any event or time."""
    if workflow and task:
        raise BadInput("task", "name a task or a workflow, not both")
    place = locate(nats, prefix)
    run(replay_board(place, Screen(json=json), _until(until), about=task or workflow))


@app.command(
    epilog="callboard audit timeline 17\n\ncallboard audit timeline 17 --svg 17.svg\n\n"
    "callboard audit timeline 17 --json | jq '.lanes[].bars'"
)
def timeline(
    thing: Thing,
    *,
    svg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw it into this file.", show_default=False),
    ] = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Draw when each attempt of a task, or of the steps of a workflow, waited and ran."""
    run(show_timeline(locate(nats, prefix), Screen(json=json), thing, svg=svg))


def _until(text: str | None) -> Until:
    if text is not None and text.isascii() and text.isdecimal():
        return Until(seq=int(text))
    return Until(at_ms=time_ms("until", text))
