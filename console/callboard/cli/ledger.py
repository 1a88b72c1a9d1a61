"""`callboard ledger`: the part that answers `status` and `list`, and writes the audit log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from callboard.board_note import FOLDER
from callboard.cli.loop import run
from callboard.cli.options import Metrics, Nats, Prefix, new_app
from callboard.cli.ready import ReadyTo, teller
from callboard.connecting import Place, locate
from callboard_broker.collecting import collect_rarely
from callboard_broker.log_lines import LogBounds
from callboard_broker.logs import start_logging
from callboard_ledger.audit_upkeep import CheckpointOptions
from callboard_ledger.serve import LedgerOptions, run_ledger

__all__ = ["app", "ledger_options"]

app = new_app()


@app.command(
    epilog="callboard ledger --nats nats://nats:4222 --store /var/lib/callboard/ledger\n\n"
    "callboard ledger --store /var/lib/callboard/ledger --rebuild\n\n"
    "The directory holds its database, and the audit log's key, audit checkpoints and archive; "
    "keep the audit checkpoints on another disk (the setting audit.checkpoints), or copy them away."
)
def ledger(
    *,
    nats: Nats = None,
    prefix: Prefix = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Its own directory.", show_default=False),
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Forget its rows first, and fold the whole journal again."),
    ] = False,
    metrics: Metrics = None,
    ready_fd: ReadyTo = None,
) -> None:
    """Run the ledger: it answers `status` and `list` and writes the audit log. Ends on SIGTERM."""
    place = locate(nats, prefix, overrides={"metrics.port": metrics})
    start_logging("ledger", form=place.settings.log.format, level=place.settings.log.level)
    options = replace(ledger_options(place, store), rebuild=rebuild)
    collect_rarely()
    run(run_ledger(options, ready=teller(ready_fd)))


def ledger_options(place: Place, store: Path | None = None) -> LedgerOptions:
    """A ledger of this board. store: its own directory, instead of what the settings say."""
    settings, audit = place.settings.ledger, place.settings.audit
    return LedgerOptions(
        url=place.url,
        prefix=place.prefix,
        replicas=place.settings.journal.replicas,
        store=store or settings.store or Path(FOLDER, "ledger"),
        flush_seconds=settings.flush_seconds,
        batch=settings.batch,
        metrics=place.metrics,
        key=audit.key,
        checkpoints=audit.checkpoints,
        checkpoint=CheckpointOptions(
            seconds=audit.checkpoint_seconds,
            events=audit.checkpoint_events,
            url=audit.checkpoint_url,
        ),
        archive=audit.archive,
        archiving=audit.archive_purged,
        log_bounds=LogBounds(
            max_mb=place.settings.log.max_mb, max_days=place.settings.log.max_days
        ),
    )
