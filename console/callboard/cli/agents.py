"""`callboard agents`: runs agent hosts, and lists those that are there."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from callboard.census import Census, take_census
from callboard.cli.loop import run
from callboard.cli.options import Follow, Json, Metrics, Nats, Prefix, new_app
from callboard.cli.reaching import link_to
from callboard.cli.screen import Cell, Screen
from callboard.cli.watching import watch
from callboard.connecting import locate
from callboard.hosting import host_options, scaling_policy
from callboard_agents import LocalPool, load, run_host
from callboard_broker.errors import BadInput
from callboard_broker.logs import start_logging
from callboard_broker.streams import Topology
from callboard_broker.subjects import SHARED_POOL, Subjects

__all__ = ["app", "show_census"]

_BLOCKED_SECONDS = 1.0  # that a loop does not answer for less, is nothing to be told

app = new_app("Run agent hosts, and see which are there.")

_RUN_EPILOG = """callboard agents run my_agents.py

callboard agents run company.reviewers company.writers --processes 4

callboard agents run my_agents.py --min 0 --max auto

callboard agents run my_agents.yaml my_agents.py --middleware company.tracing:spans

callboard agents run gpu_agents.py --pool gpu --nats nats://nats:4222

SIGHUP to a supervisor of processes replaces them one after the other, with the modules loaded anew.
Ctrl-C or SIGTERM lets what runs finish; a second one ends it at once."""


@app.command("run", epilog=_RUN_EPILOG)
def run_agents(  # noqa: PLR0913  each is an option of the command
    modules: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE...",
            help="package.module, path/to/file.py, or either with :name; file.yaml for commands.",
            show_default=False,
        ),
    ],
    *,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            "-n",
            min=1,
            max=1000,
            help="That many processes, each started again when it ends. Else this one works.",
            show_default=False,
        ),
    ] = None,
    least: Annotated[
        int | None,
        typer.Option(
            "--min",
            min=0,
            max=1000,
            help="Never fewer processes; 0: none while nothing is to do. Default 1.",
            show_default=False,
        ),
    ] = None,
    most: Annotated[
        str | None,
        typer.Option(
            "--max",
            metavar="N|auto",
            help="As many processes as the waiting tasks ask for, at most N; auto: one per CPU.",
            show_default=False,
        ),
    ] = None,
    pool: Annotated[str, typer.Option(metavar="NAME", help="Whose work they do.")] = SHARED_POOL,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Unlike any other host's.", show_default=False),
    ] = None,
    middleware: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="Around every attempt, the first outermost; may be repeated.",
        ),
    ] = None,
    nats: Nats = None,
    prefix: Prefix = None,
    metrics: Metrics = None,
) -> None:
    """Work on tasks with the agents of MODULE..., until told to stop."""
    place = locate(nats, prefix, overrides={"metrics.port": metrics})
    options = host_options(place, pool=pool, name=name)
    options = replace(options, middleware=tuple(middleware or ()))
    scaling = scaling_policy(place, least, most)
    if scaling is not None and processes is not None:
        raise BadInput("--processes", "give either their number or its bounds, --min and --max")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` has it, and so the processes of a pool
    alone = processes is None and scaling is None
    log = place.settings.log
    start_logging("host" if alone else "supervisor", form=log.format, level=log.level)
    if alone:
        run_host(load(modules), options, places=modules)
    else:
        run(_keep(LocalPool(modules, options, hosts=processes or 1, scaling=scaling)))


@app.command(
    "list",
    epilog="callboard agents list --json | jq -r '.hosts[].host'\n\n"
    "A host that has been silent for 20 seconds is not listed. It is blocked while a "
    "handler holds up its event loop.",
)
def list_agents(
    *, follow: Follow = False, nats: Nats = None, prefix: Prefix = None, json: Json = False
) -> None:
    """List the hosts that are there: what they offer, and how busy they are."""

    async def work() -> None:
        place = locate(nats, prefix)
        screen = Screen(json=json)
        async with link_to(place, name="callboard agents") as connection:

            async def show() -> bool:
                census = await take_census(connection, Topology(Subjects(place.prefix)))
                show_census(screen, census)
                return True

            await watch(screen, show, follow=follow)

    run(work())


def show_census(screen: Screen, census: Census) -> None:
    """The table of hosts."""
    if screen.json:
        hosts = [
            {
                "host": seen.beat.host,
                "pool": seen.beat.pool,
                "node": seen.beat.node,
                "pid": seen.beat.pid,
                "running": len(seen.beat.holds),
                "cpu": round(seen.beat.cpu, 3),
                "memory_mb": round(seen.beat.memory_mb, 1),
                "allocated_cpu": round(seen.beat.allocated_cpu, 3),
                "allocated_mb": round(seen.beat.allocated_mb, 1),
                "blocked_seconds": round(seen.beat.blocked, 3),
                "layers": sorted(seen.beat.layers),
                "silent_seconds": round(seen.age, 3),
                "offers": seen.beat.offers,
            }
            for seen in census.hosts
        ]
        screen.document({"hosts": hosts})
        return
    if not census.hosts:
        screen.note("no host is there: start one with `callboard agents run MODULE`")
        return
    rows: list[list[Cell]] = [
        [
            seen.beat.host,
            seen.beat.pool,
            seen.beat.pid,
            len(seen.beat.holds),
            f"{seen.beat.memory_mb:.0f} MiB",
            f"{seen.age:.1f} s",
            f"{seen.beat.blocked:.0f} s" if seen.beat.blocked >= _BLOCKED_SECONDS else "",
            " ".join(sorted(offer.capability for offer in seen.beat.offers)),
        ]
        for seen in census.hosts
    ]
    columns = ("host", "pool", "pid#", "running#", "memory#", "silent#", "blocked#", "capabilities")
    screen.table(columns, rows, fold="capabilities")


async def _keep(pool: LocalPool) -> None:
    """Run the pool; the first signal drains it, a second one ends it at once."""
    loop = asyncio.get_running_loop()
    running = asyncio.current_task()
    told: list[int] = []

    def tell(number: int) -> None:
        told.append(number)
        if len(told) == 1:
            pool.stop()
        elif running is not None:
            running.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tell, number)
    loop.add_signal_handler(signal.SIGHUP, pool.restart)
    try:
        await pool.run()
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
