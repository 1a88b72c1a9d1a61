"""`callboard projector`: writes the journal into Postgres or Supabase, and what belongs to that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from callboard.board_note import FOLDER
from callboard.cli.loop import run
from callboard.cli.options import Json, Metrics, Nats, Prefix, Rows, new_app
from callboard.cli.reaching import link_to
from callboard.cli.ready import ReadyTo, teller
from callboard.cli.screen import Cell, Screen
from callboard.connecting import Place, locate
from callboard.targets import address_of, open_target
from callboard_broker.bookmarks import remove_bookmark
from callboard_broker.collecting import collect_rarely
from callboard_broker.errors import BadInput
from callboard_broker.logs import start_logging
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_config import load_settings
from callboard_ledger.projection.projector import run_projector
from callboard_ledger.projection.reader import TargetReader
from callboard_ledger.projection.restoring import restore as restore_ledger
from callboard_ledger.projection.schema import Migration, copy_migrations
from callboard_ledger.projection.session import ProjectorOptions
from callboard_ledger.projection.target import Target

__all__ = ["To", "Write", "app", "migrate_target", "projector_options", "stream_of"]

app = new_app()

To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="TARGET",
        help="postgres://user@host/database, or supabase.",
        show_default="projection.to in the settings",
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TARGET",
        help="postgres://user@host/database, or supabase.",
        show_default="projection.to in the settings",
    ),
]
Write = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Only copy the SQL files there.", show_default=False),
]
Journal = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Of several that were written there.",
        show_default="the one written last",
    ),
]

_EPILOG = """callboard projector migrate --to postgres://callboard@db/callboard

callboard projector --to postgres://callboard@db/callboard

CALLBOARD_SUPABASE_URL=https://....supabase.co CALLBOARD_SUPABASE_KEY=... \\
callboard projector --to supabase

Passwords come from PGPASSWORD, ~/.pgpass or CALLBOARD_PROJECTION__TO, the key of a project from \
CALLBOARD_SUPABASE_KEY or a file. Ends on SIGTERM; whatever kills it, it goes on where the \
database is."""


@app.callback(invoke_without_command=True, epilog=_EPILOG)
def projector(  # noqa: PLR0913  each is an option of the command
    ctx: typer.Context,
    *,
    to: To = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of its bookmark in the journal.", show_default=False),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A ledger here, for what left the journal before an empty database is filled.",
            show_default=False,
        ),
    ] = None,
    nats: Nats = None,
    prefix: Prefix = None,
    metrics: Metrics = None,
    ready_fd: ReadyTo = None,
) -> None:
    """Write tasks, workflows, events, audit and performance into Postgres or Supabase."""
    if ctx.invoked_subcommand is not None:
        return
    place = locate(nats, prefix, overrides={"metrics.port": metrics})
    start_logging("projector", form=place.settings.log.format, level=place.settings.log.level)
    address = address_of(to, place.settings)
    target = open_target(address, place.settings)
    options = projector_options(place, name, ledger)
    if address != "supabase":  # whose client leaves each request, body and all, to the collector
        collect_rarely()
    run(run_projector(options, target, ready=teller(ready_fd)))


def projector_options(
    place: Place, name: str | None = None, ledger: Path | None = None
) -> ProjectorOptions:
    """A projector of this board. ledger: the directory of one, instead of what the settings say."""
    settings = place.settings.projection
    own = ledger or place.settings.ledger.store or Path(FOLDER, "ledger")
    if ledger is not None and not (ledger / "ledger.db").exists():
        raise BadInput("ledger", f"{ledger} holds no ledger.db")
    return ProjectorOptions(
        url=place.url,
        prefix=place.prefix,
        replicas=place.settings.journal.replicas,
        name=name or settings.name,
        batch=settings.batch,
        flush_seconds=settings.flush_seconds,
        event_bytes=settings.event_bytes,
        ledger=own if (own / "ledger.db").exists() else None,
        metrics=place.metrics,
    )


@app.command(
    epilog="callboard projector migrate --to postgres://callboard@db/callboard\n\n"
    "callboard projector migrate --write supabase/migrations\n\n"
    "Migrations can be applied again, also by psql or `supabase db push`."
)
def migrate(
    *,
    to: To = None,
    write: Write = None,
    json: Json = False,
) -> None:
    """Make the tables in a Postgres, or copy the SQL for `supabase db push`."""
    migrate_target(to, write, Screen(json=json))


def migrate_target(
    to: str | None, write: Path | None, screen: Screen, more: Sequence[Migration] = ()
) -> None:
    """Apply the projector's migrations and `more`, or only write them into a directory."""
    if write is not None:
        files = [str(path) for path in copy_migrations(write, more)]
        if screen.json:
            screen.document({"written": files})
        for file in [] if screen.json else files:
            screen.line(file)
        return
    address = address_of(to, load_settings())
    if address == "supabase":
        raise BadInput(
            "to",
            "a Supabase project takes its tables from `supabase db push`: copy the files with "
            "--write supabase/migrations, or name the address of the project's database here",
        )
    from callboard_ledger.projection.postgres import migrate as apply  # noqa: PLC0415  an extra

    applied = run(apply(address, more))
    if screen.json:
        screen.document({"applied": applied})
    else:
        for said in [f"applied {v}" for v in applied] or ["everything is there already"]:
            screen.line(said)


@app.command(
    epilog="callboard projector restore --from postgres://callboard@db/callboard "
    "--store .callboard/ledger\n\n"
    "For a ledger whose directory is gone: start it afterwards, and it reads on from there."
)
def restore(
    *,
    source: From = None,
    store: Annotated[
        Path, typer.Option(metavar="DIR", help="The ledger's directory; it must be empty.")
    ] = Path(FOLDER, "ledger"),
    journal: Journal = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Build a ledger's database anew from what was projected."""

    async def work(target: Target, board: str) -> None:
        stream = await stream_of(target, board, journal)
        done = await restore_ledger(target, stream, store)
        if json:
            Screen(json=True).document(done)
        else:
            what = f"{done.rows} rows of {done.journal}, at event {done.position}"
            Screen(json=False).line(f"{store}: {what}")

    _with_target(source, "--from", prefix, work)


@app.command(
    epilog="callboard projector parked --from postgres://callboard@db/callboard\n\n"
    "callboard projector parked --json | jq -r .reason"
)
def parked(
    *,
    source: From = None,
    journal: Journal = None,
    limit: Rows = 20,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """List the rows that the database refused, and why."""

    async def work(target: Target, board: str) -> None:
        screen = Screen(json=json)
        stream = await stream_of(target, board, journal)
        rows = await TargetReader(target, stream).parked(limit)
        if json:
            for row in rows:
                screen.document({name: row[name] for name in _PARKED})
        elif rows:
            cells: list[list[Cell]] = [[row[name] for name in _PARKED] for row in rows]
            screen.table(_PARKED, cells, fold="reason")
        else:
            screen.note("nothing was refused")

    _with_target(source, "--from", prefix, work)


_PARKED = ("kind", "id", "sqlstate", "reason")


@app.command(epilog="callboard projector forget old-database")
def forget(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `callboard status` shows it.")],
    *,
    nats: Nats = None,
    prefix: Prefix = None,
) -> None:
    """Give a projector up: the journal no longer keeps what it has not written."""
    place = locate(nats, prefix)

    async def work() -> bool:
        async with link_to(place, name="callboard projector") as connection:
            return await remove_bookmark(connection, Topology(Subjects(place.prefix)), name)

    if not run(work()):
        raise BadInput("name", f"there is no projector {name}; `callboard status` shows them")
    Screen(json=False).line(f"{name} is forgotten; stop it, or it comes back")


def _with_target(
    source: str | None,
    option: str,
    prefix: str | None,
    work: Callable[[Target, str], Awaitable[Any]],
) -> None:
    settings = load_settings(overrides={"board.prefix": prefix})
    target = open_target(address_of(source, settings, option), settings)

    async def closing() -> None:
        try:
            await work(target, settings.board.prefix)
        finally:
            await asyncio.shield(target.close())

    run(closing())


async def stream_of(target: Target, board: str, journal: str | None = None) -> str:
    """The journal of a board that was projected last, or the one that is named.

    Raises `BadInput` if there is none.
    """
    there = [str(row["stream"]) for row in await TargetReader.streams(target, board)]
    if not there:
        raise BadInput("from", f"{target.name} holds nothing of the board {board}")
    if journal is None:
        return there[0]
    if journal not in there:
        raise BadInput("journal", f"is none of {', '.join(repr(name) for name in there)}")
    return journal
