"""`callboard router`: one router. Any further one stands by and takes over."""

from __future__ import annotations

from typing import Annotated

import typer

from callboard.cli.loop import run_until_told
from callboard.cli.options import Metrics, Nats, Prefix, new_app
from callboard.cli.ready import ReadyTo, teller
from callboard.connecting import Place, locate
from callboard.policy import policy_of
from callboard_agents.options import host_name
from callboard_broker.collecting import collect_rarely
from callboard_broker.logs import start_logging
from callboard_router.shell import RouterOptions, run_router
from callboard_router.upkeep import UpkeepOptions

__all__ = ["app", "router_options"]

app = new_app()


@app.command(
    epilog="callboard router --nats nats://nats:4222\n\nStart a second one on another machine: "
    "it stands by, and takes over when the first falls silent."
)
def router(
    nats: Nats = None,
    prefix: Prefix = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Unlike any other router's.", show_default=False),
    ] = None,
    metrics: Metrics = None,
    ready_fd: ReadyTo = None,
) -> None:
    """Run a router, the part that decides who works on what. Ends on SIGTERM."""
    place = locate(nats, prefix, overrides={"metrics.port": metrics})
    start_logging("router", form=place.settings.log.format, level=place.settings.log.level)
    options = router_options(place, name)
    collect_rarely()
    run_until_told(run_router(options, ready=teller(ready_fd)))


def router_options(place: Place, name: str | None = None) -> RouterOptions:
    """A router of this board. name: unlike any other router's."""
    settings = place.settings
    return RouterOptions(
        url=place.url,
        name=name or f"router-{host_name()}",
        policy=policy_of(settings),
        prefix=place.prefix,
        replicas=settings.journal.replicas,
        upkeep=UpkeepOptions(
            snapshot_events=settings.router.snapshot_events,
            snapshot_seconds=settings.router.snapshot_seconds,
            retention_days=settings.journal.retention_days,
        ),
        metrics=place.metrics,
    )
