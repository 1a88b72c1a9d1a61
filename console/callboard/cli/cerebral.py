"""`callboard cerebral`: mirrors the board into the tracker's tables, and posts its pending rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from callboard.cli.loop import run
from callboard.cli.options import Json, Metrics, Nats, Prefix, new_app
from callboard.cli.projector import To, Write, migrate_target, projector_options
from callboard.cli.reaching import reach
from callboard.cli.ready import ReadyTo, teller
from callboard.cli.screen import Screen
from callboard.connecting import locate
from callboard.targets import address_of, open_target
from callboard_broker.errors import (
    BadInput,
    BoardUnreachable,
    Overloaded,
    TargetAway,
    WriteUnresolved,
)
from callboard_broker.logs import start_logging
from callboard_broker.subjects import check_tenant
from callboard_config import Settings, load_settings
from callboard_integrations.cerebral.mirror import Mirror
from callboard_integrations.cerebral.names import Names
from callboard_integrations.cerebral.pulling import Pulled, Puller
from callboard_integrations.cerebral.target import (
    CerebralTarget,
    Tables,
    cerebral_migrations,
    find_problems,
)
from callboard_ledger.projection.projector import run_projector
from callboard_ledger.projection.target import Target
from callboard_ledger.racing import first_of
from callboard_ledger.stopping import stop_event

__all__ = ["app"]

_EPILOG = """callboard cerebral migrate --to postgres://callboard@db/tracker

callboard cerebral check --to postgres://callboard@db/tracker

callboard cerebral mirror --to postgres://callboard@db/tracker

callboard cerebral pull --follow --to postgres://callboard@db/tracker

Passwords and keys come from where `callboard projector` takes them; tables and tenants from the \
settings (`callboard config show`)."""

app = new_app("Keep a tracker's tables, cerebral_tasks and such, in step with the board.")


@app.callback(epilog=_EPILOG)
def cerebral() -> None: ...


@app.command(
    epilog="callboard cerebral migrate --to postgres://callboard@db/tracker\n\n"
    "callboard cerebral migrate --write supabase/migrations\n\n"
    "The tracker's own tables are neither made nor altered."
)
def migrate(*, to: To = None, write: Write = None, json: Json = False) -> None:
    """Put Callboard's tables and functions beside the tracker's."""
    migrate_target(to, write, Screen(json=json), cerebral_migrations())


@app.command(
    epilog="callboard cerebral check --to postgres://callboard@db/tracker\n\n"
    "callboard cerebral check --json | jq -r '.problems[]'\n\n"
    "Exit codes: 0 it can be mirrored; 1 something is missing; 2 no functions or bad input; 3 no "
    "database answers."
)
def check(*, to: To = None, json: Json = False) -> None:
    """Say whether the tracker's tables and columns are there, and what is missing."""
    settings = load_settings()
    tables = _tables(settings)
    problems = run(_problems(_target(to, settings), tables))
    screen = Screen(json=json)
    if json:
        named = {"tasks": tables.tasks, "activities": tables.activities}
        screen.document({**named, "problems": problems})
    for problem in [] if json else problems:
        screen.line(problem)
    if problems:
        raise typer.Exit(1)
    if not json:
        both = " and ".join(name for name in (tables.tasks, tables.activities) if name)
        screen.line(f"{both} can be mirrored")


@app.command(
    epilog="callboard cerebral mirror --to postgres://callboard@db/tracker\n\n"
    "It is a projector (`callboard projector --help`) that writes the tracker's tables too: run it "
    "instead of one into this database. Ends on SIGTERM; whatever kills it, it goes on where the "
    "database is."
)
def mirror(
    *,
    to: To = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of its bookmark in the journal.", show_default=False),
    ] = None,
    nats: Nats = None,
    prefix: Prefix = None,
    metrics: Metrics = None,
    ready_fd: ReadyTo = None,
) -> None:
    """Write tasks, workflows and what happens to them into the tracker."""
    place = locate(nats, prefix, overrides={"metrics.port": metrics})
    settings = place.settings
    start_logging("cerebral", form=settings.log.format, level=settings.log.level)
    tables, inner = _tables(settings), _target(to, settings)
    target = CerebralTarget(inner, tables, board=place.prefix)
    options, beside = projector_options(place, name), Mirror(_names(settings))

    async def work() -> None:
        try:
            problems = await find_problems(inner, tables)
        except TargetAway:
            problems = []  # it is waited for
        if problems:
            await inner.close()
            raise BadInput("cerebral", f"{'; '.join(problems)} (`callboard cerebral check`)")
        await run_projector(options, target, beside=beside, ready=teller(ready_fd))

    run(work())


@app.command(
    epilog="callboard cerebral pull --to postgres://callboard@db/tracker\n\n"
    "callboard cerebral pull --tenant acme --follow\n\n"
    "callboard cerebral pull --json | jq -r '.refused | keys[]'\n\n"
    "Exit codes: 0 done; 1 a row was refused; 2 bad input; 3 no board or no database answers."
)
def pull(
    *,
    tenant: Annotated[
        list[str] | None,
        typer.Option(
            "--tenant",
            "-t",
            metavar="NAME",
            help="Whose rows; may be repeated.",
            show_default="all of cerebral.tenants",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until SIGTERM, or Ctrl-C.")
    ] = False,
    to: To = None,
    nats: Nats = None,
    prefix: Prefix = None,
    json: Json = False,
) -> None:
    """Post the tracker's pending rows as tasks; the mirror brings back what becomes of them."""
    settings = load_settings()
    tenants = [check_tenant(name) for name in tenant or settings.cerebral.tenants]
    if not tenants:
        raise BadInput("tenant", "whose rows? Give --tenant NAME, or set cerebral.tenants")
    asked = _Asked(tenants, _target(to, settings), settings, nats, prefix, Screen(json=json))
    if follow:
        run(_pull_on(asked))
    elif run(_pull_once(asked)):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a pull was told."""

    tenants: list[str]
    target: Target
    settings: Settings
    nats: str | None
    prefix: str | None
    screen: Screen

    @asynccontextmanager
    async def puller(self) -> AsyncIterator[Puller]:
        """Open the board, and close both at the end."""
        settings = self.settings
        capability = settings.cerebral.capability
        try:
            async with reach(self.nats, self.prefix, name="callboard cerebral pull") as board:
                tables, names = _tables(settings), _names(settings)
                yield Puller(board, self.target, tables, names, capability=capability)
        finally:
            await asyncio.shield(self.target.close())


async def _pull_once(asked: _Asked) -> bool:
    """Whether a row was refused."""
    refused = False
    async with asked.puller() as puller:
        for tenant in asked.tenants:
            pulled = await puller.pull(tenant)
            refused |= bool(pulled.refused)
            _show(pulled, asked.screen)
    return refused


async def _pull_on(asked: _Asked) -> None:
    """Until told to stop; what was refused is said once, and an outage is waited for."""
    told: dict[str, dict[str, str]] = {tenant: {} for tenant in asked.tenants}
    pause = asked.settings.cerebral.poll_seconds
    async with stop_event(None) as stopped, asked.puller() as puller:
        while not stopped.is_set():
            for tenant in asked.tenants:
                try:
                    pulled = await puller.pull(tenant)
                except (TargetAway, BoardUnreachable, Overloaded, WriteUnresolved) as error:
                    asked.screen.note(f"tried again soon: {error}")
                    continue
                new = _news(pulled.refused, told[tenant])
                told[tenant] = pulled.refused
                if pulled.posted or new:
                    _show(replace(pulled, waiting={}, refused=new), asked.screen)
            await first_of(asyncio.sleep(pause), stopped.wait())


def _news(refused: dict[str, str], told: dict[str, str]) -> dict[str, str]:
    return {row: why for row, why in refused.items() if told.get(row) != why}


def _show(pulled: Pulled, screen: Screen) -> None:
    if screen.json:
        screen.document(pulled)
        return
    rows = [(row, "posted", f"as {task}") for row, task in pulled.posted.items()]
    rows += [(row, "waiting", why) for row, why in pulled.waiting.items()]
    rows += [(row, "refused", why) for row, why in pulled.refused.items()]
    if rows:
        screen.table(("row", "what", "why"), rows, title=pulled.tenant, fold="why")
    else:
        screen.note(f"{pulled.tenant}: no pending rows")


def _tables(settings: Settings) -> Tables:
    return Tables(tasks=settings.cerebral.tasks, activities=settings.cerebral.activities)


def _names(settings: Settings) -> Names:
    return Names(tenants=settings.cerebral.tenants, projects=settings.cerebral.projects)


def _target(to: str | None, settings: Settings) -> Target:
    return open_target(address_of(to, settings), settings)


async def _problems(target: Target, tables: Tables) -> list[str]:
    try:
        return await find_problems(target, tables)
    finally:
        await asyncio.shield(target.close())
