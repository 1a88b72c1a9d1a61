"""`callboard audit`: proves that the journal is what it was, and replays it."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from callboard.board_note import FOLDER
from callboard.cli.loop import run
from callboard.cli.options import Json, Nats, Prefix, new_app
from callboard.cli.reaching import link_to
from callboard.cli.replaying import Until, replay_board
from callboard.cli.screen import Screen
from callboard.connecting import Place, locate
from callboard_broker.errors import BadInput
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_ledger.heads import Head, HeadFile, read_heads
from callboard_ledger.verify import VerifyReport, verify_board

__all__ = ["app"]

app = new_app("Prove what happened, and replay it.")


@app.command(
    epilog="callboard audit verify\n\n"
    "callboard audit verify --head /backup/audit-head.json --json\n\n"
    "Exit code 1: something was altered, removed, reordered or cut off. Without a head that was "
    "kept outside the server nobody can tell that the end of the audit log was cut off."
)
def verify(
    *,
    head: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A head that was copied away, or the ledger's directory.",
            show_default="that of the ledger here",
        ),
    ] = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Compare every event of the journal with the audit log."""
    place = locate(nats, prefix)
    heads = read_heads(head) if head is not None else _own_heads(place)

    async def work() -> VerifyReport:
        topology = Topology(Subjects(place.prefix))
        async with link_to(place, name="callboard audit") as connection:
            with screen.errors.status("reading ...") if screen.terminal else nullcontext() as line:

                def progress(seq: int) -> None:
                    if line is not None:
                        line.update(f"event {seq:,}")

                return await verify_board(connection, topology, heads, progress=progress)

    screen = Screen(json=json)
    report = run(work())
    if json:
        screen.document(report)
    else:
        _show(screen, report)
    raise typer.Exit(0 if report.ok else 1)


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


def _until(text: str | None) -> Until:
    if text is None:
        return Until()
    if text.isascii() and text.isdecimal():
        return Until(seq=int(text))
    try:
        when = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise BadInput("until", f"{text!r} is neither an event's number nor a time") from error
    return Until(at_ms=int(when.timestamp() * 1000))


def _own_heads(place: Place) -> list[Head]:
    """Those that the ledger of this project keeps, if it runs here."""
    if place.note is not None:
        store = Path(place.note.ledger)
    elif place.settings.ledger.store is not None:
        store = place.settings.ledger.store
    elif place.origin.startswith("default"):
        store = Path(FOLDER, "ledger")
    else:
        return []  # another server's board: heads of this folder are not its own
    return HeadFile(store).all()


def _show(screen: Screen, report: VerifyReport) -> None:
    if report.ok:
        screen.line("the audit log verifies", "bold green")
    else:
        screen.line("the audit log does not verify", "bold red")
        for finding in report.findings:
            screen.line(f"  {finding.text}", "red")
    facts = {
        "events": report.events,
        "audited": report.audited,
        "batches": report.batches,
        "not yet audited": report.unaudited_tail,
        "anchored": "yes" if report.anchored else "no: give --head FILE to see a cut end",
    }
    for name, value in facts.items():
        screen.line(Text(f"  {name:<16}", style="dim") + Text(str(value)))
