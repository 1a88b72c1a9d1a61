"""`callboard up`: a whole board on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Annotated

import typer

from callboard.board_note import FOLDER, leave_note, read_note, remove_note
from callboard.budgets import limits
from callboard.cli.asking import at_once
from callboard.cli.loop import run
from callboard.cli.options import Json, Metrics, Nats, Prefix, new_app
from callboard.cli.screen import Screen
from callboard.connecting import Place, locate
from callboard.stack import Stack, StackOptions
from callboard.targets import address_of
from callboard_broker.errors import BadInput, StoreLocked
from callboard_config import mask_nats_url, usable_cpus

__all__ = ["app"]

app = new_app()

_EPILOG = """callboard up

callboard up --agents my_agents.py --agents company.reviewers --processes 4

callboard up --nats nats://nats:4222

callboard up --to postgres://callboard@db/callboard

Everything it keeps lies in ./.callboard; the other commands find the board through it, from this \
folder or any below. Ctrl-C lets running tasks finish."""


@app.command(epilog=_EPILOG)
def up(  # noqa: PLR0913  each is an option of the command
    *,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65_535, help="Of the server it starts.", show_default="4222"),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="For data and logs.", show_default="./.callboard"),
    ] = None,
    agents: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE", help="Run its agents too (file.yaml: commands); may be repeated."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", "-n", min=1, max=1000, help="Hosts of those agents.")
    ] = 2,
    standby: Annotated[bool, typer.Option("--standby", help="Run a second router.")] = False,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Run a projector too: postgres://user@host/database, or supabase.",
            show_default="projection.to in the settings",
        ),
    ] = None,
    metrics: Metrics = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Start a board here: a NATS server, a router, a ledger and, if named, agents."""
    given: dict[str, object] = {"nats.embedded.port": port, "metrics.port": metrics}
    if store is not None:  # for all data: a directory that the settings name for a part yields
        given |= {"nats.embedded.store": store / "nats", "ledger.store": store / "ledger"}
    place = locate(nats, prefix, overrides=given)
    settings = place.settings
    if settings.nats.url is not None and port is not None:
        raise BadInput("port", f"there is a server already ({place.origin}); leave --port out")
    folder = Path(FOLDER)
    running = read_note(folder)
    if running is not None:
        raise StoreLocked(
            f"a board runs here already: process {running.pid} at {mask_nats_url(running.url)}; "
            "stop it, or work in another folder"
        )
    options = StackOptions(
        folder=store or folder,
        prefix=settings.board.prefix,
        url=settings.nats.url,
        host=settings.nats.embedded.host,
        port=settings.nats.embedded.port,
        sync=settings.nats.embedded.sync,
        server_store=settings.nats.embedded.store,
        ledger_store=settings.ledger.store,
        routers=2 if standby else 1,
        agents=agents or (),
        processes=processes,
        drain_seconds=settings.agents.drain_seconds,
        metrics=place.metrics,
        projection=settings.projection.to if to is None else address_of(to, settings),
        log_format=settings.log.format,
    )
    run(_up(options, place, Screen(json=json)))


async def _up(options: StackOptions, place: Place, screen: Screen) -> None:
    folder = Path(FOLDER)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    this = asyncio.current_task()

    def stop() -> None:
        if told.is_set() and this is not None:
            this.cancel()
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)

    def say(part: str, text: str) -> None:
        if screen.json:
            screen.document({"event": "part", "part": part, "text": text})
        else:
            screen.line(f"{part}: {text}")

    try:
        starting = Stack(options, say)
        with screen.errors.status("starting ...") if screen.terminal else contextlib.nullcontext():
            stack = await _unless(told, starting)
        if stack is None:
            return
        try:
            _make_folder(folder)
            leave_note(folder, url=stack.url, prefix=options.prefix, ledger=options.ledger)
            _greet(screen, stack, place)
            failed = asyncio.ensure_future(stack.wait())
            stopped = asyncio.ensure_future(told.wait())
            try:
                await asyncio.wait([failed, stopped], return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    failed.result()
            finally:
                failed.cancel()
                stopped.cancel()
            if not screen.json:
                screen.line("stopping: agents finish what they do; Ctrl-C again ends them at once")
        finally:
            remove_note(folder)
            await stack.__aexit__(None, None, None)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if screen.json:
        screen.document({"event": "stopped"})
    else:
        screen.line("stopped")


async def _unless(told: asyncio.Event, stack: Stack) -> Stack | None:
    """Start the stack; None if it was told to stop meanwhile."""
    starting = asyncio.ensure_future(stack.__aenter__())
    stopped = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            return starting.result()
        return None
    finally:
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.wait([starting])


def _make_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def _greet(screen: Screen, stack: Stack, place: Place) -> None:
    budgets = at_once(limits(place.settings))
    origin = place.settings.origin("budgets.global_concurrency")
    if place.settings.budgets.global_concurrency == "auto":
        origin = f"from {usable_cpus():g} usable CPUs"
    if screen.json:
        screen.document(
            {
                "event": "started",
                "url": mask_nats_url(stack.url),
                "prefix": stack.options.prefix,
                "parts": stack.parts,
                "budgets": budgets,
                "store": str(stack.options.folder),
                "metrics": stack.options.shown,
            }
        )
        return
    screen.line(f"board at {mask_nats_url(stack.url)}", "bold green")
    for part, pid in stack.parts.items():
        screen.line(f"  {part:<12} process {pid}")
    screen.line(f"  {'at once':<12} {budgets['global']} tasks ({origin})")
    for name, limit in budgets.items():
        if name.startswith("tenant/"):
            screen.line(f"  {'':<12} {limit} of {name.removeprefix('tenant/')}")
    screen.line(f"  {'data, logs':<12} {stack.options.folder}")
    for part, url in stack.options.shown.items():
        screen.line(f"  {'metrics':<12} {url} ({part})")
    screen.line()
    screen.line("go on, in another terminal:")
    if not stack.options.agents:
        screen.line("  callboard agents run my_agents.py")
    screen.line('  callboard submit CAPABILITY \'{"some": "payload"}\' --wait')
    screen.line("  callboard status")
    if stack.options.agents:
        screen.line("  callboard agents list")
    screen.line("Ctrl-C stops it.")
