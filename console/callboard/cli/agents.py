"""`callboard agents`: runs agent hosts, and lists those that are there."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from callboard.cli.loop import run
from callboard.cli.options import (
    Capability,
    Follow,
    Json,
    Metrics,
    Nats,
    Prefix,
    Rows,
    Whose,
    new_app,
)
from callboard.cli.screen import Screen
from callboard.connecting import locate
from callboard.hosting import host_options, scaling_policy
from callboard_agents import LocalPool, load, run_host
from callboard_broker.errors import BadInput
from callboard_broker.logs import start_logging
from callboard_broker.subjects import ALL_TENANTS, SHARED_POOL

__all__ = ["app"]

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
    "callboard agents list --all\n\n"
    "A host that has been silent for 20 seconds is not listed, but with --all, by the ledger: who "
    "was heard within a week, and how many attempts each has run at once. It is blocked while a "
    "handler holds up its event loop.",
)
def list_agents(
    *,
    every: Annotated[bool, typer.Option("--all", help="Also who is silent or gone.")] = False,
    follow: Follow = False,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """List the hosts that are there: what they offer, and how busy they are."""

    from callboard.cli.crew import list_hosts  # noqa: PLC0415  a host needs none of it

    run(list_hosts(Screen(json=json), nats, prefix, every=every, follow=follow))


@app.command(
    "held",
    epilog="callboard agents held\n\ncallboard agents held --host node-812-0 --all\n\n"
    "callboard agents held --all --json | jq -c 'select(.ending == \"lost\")'\n\n"
    "A place is held from the dispatch of an attempt to its outcome or loss. Which host has one "
    "that came through a shared queue, the journal says at its end. What was returned is known "
    "for thirty days.",
)
def held(  # noqa: PLR0913  each is an option of the command
    *,
    every: Annotated[bool, typer.Option("--all", help="Also what was returned.")] = False,
    host: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this one.", show_default=False)
    ] = None,
    pool: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only of this one.", show_default=False)
    ] = None,
    capability: Capability = None,
    before: Annotated[
        int | None,
        typer.Option(min=1, metavar="SEQ", help="Only dispatches below it.", show_default=False),
    ] = None,
    rows: Rows = 100,
    follow: Follow = False,
    tenant: Whose = ALL_TENANTS,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Show what attempts hold: who has which since when, and when it was returned."""
    from callboard.cli.crew import Asked, list_held  # noqa: PLC0415  a host needs none of it

    said = {"host": host, "pool": pool, "capability": capability, "before": before}
    question: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    question["held"] = not every

    asked = Asked(question, tenant, rows)
    run(list_held(Screen(json=json), nats, prefix, asked, follow=follow))


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
