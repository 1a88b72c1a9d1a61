"""Runs the ledger: reads the journal once and in order, for the state and for the audit log.

The state is saved every `flush_seconds` or `batch` events, rows and position in one transaction;
the audit log has a position of its own, in AUDIT itself. Whatever kills the ledger, it goes on
from both. An error that leaves either in doubt ends it: start it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from callboard_broker.connection import open_link
from callboard_broker.errors import BadInput
from callboard_broker.publisher import Publisher
from callboard_broker.streams import Topology, bound_logs, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_ledger.archiving import ArchiveFolder, Archiver
from callboard_ledger.audit_upkeep import AuditUpkeep, open_audit
from callboard_ledger.checkpoints import CheckpointFile, LogFolder
from callboard_ledger.directory import LedgerDirectory
from callboard_ledger.host_keys import HostKeys
from callboard_ledger.ledger import AuditLog, Ledger
from callboard_ledger.log_reading import LogReading
from callboard_ledger.options import LedgerOptions
from callboard_ledger.sqlite_store import SqliteStore
from callboard_ledger.stopping import stop_event
from callboard_ledger.store import Store

__all__ = ["LedgerOptions", "run_ledger"]

_log = logging.getLogger(__name__)


async def run_ledger(
    options: LedgerOptions,
    *,
    ready: Callable[[], None] | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run until `stop` is set, or without it until SIGTERM or SIGINT; then save everything.

    ready: called once when it reads and answers. Raises `BoardUnreachable`, `StreamDrift`,
    `StoreLocked`, `BadInput` if the rows cannot be built anew, and what the store raises.
    """
    with LedgerDirectory(options.store) as directory:
        async with (
            stop_event(stop) as stopping,
            open_link(options.url, name="callboard-ledger") as connection,
            Publisher(connection) as publisher,
        ):
            topology = Topology(Subjects(options.prefix), options.replicas, options.log_bounds)
            await ensure_streams(connection, topology)
            await bound_logs(connection, topology)
            info = await connection.api(f"STREAM.INFO.{topology.journal}")
            created, last = str(info["created"]), int(info["state"]["last_seq"])
            first = int(info["state"]["first_seq"])
            if options.rebuild and first > 1:
                why = f"the journal begins at {first}: what was before it stands in no other place"
                raise BadInput("rebuild", f"{why} than this store")
            folder = LogFolder(directory.path, options.key, options.checkpoints)
            key = folder.open_key(options.prefix)
            store = _open_store(directory.database, topology, (created, last))
            if options.rebuild:
                store.clear()
            _warn_of_a_gap(store, first)
            try:
                auditor = await open_audit(
                    connection,
                    topology,
                    publisher,
                    folder,
                    key,
                    journal=(created, last),
                    batch=options.batch,
                )
                upkeep = AuditUpkeep(
                    publisher,
                    topology,
                    auditor,
                    key=key,
                    file=CheckpointFile(folder.checkpoint_file),
                    options=options.checkpoint,
                )
                archiver = None
                if options.archiving:
                    archive = ArchiveFolder(options.archive or directory.path / "archive")
                    archiver = Archiver(
                        connection,
                        publisher,
                        topology,
                        archive,
                        key,
                        tail=lambda: auditor.tail,
                    )
                keys = HostKeys(connection, publisher, topology, key)
                ledger = Ledger(
                    options,
                    connection,
                    topology,
                    stores=(store, LogReading(connection, topology, directory.lines)),
                    audit=AuditLog(upkeep=upkeep, archiver=archiver, keys=keys),
                )
                async with ledger.shown():
                    await ledger.run(stopping, ready)
            finally:
                store.close()


def _open_store(path: Path, topology: Topology, journal: tuple[str, int]) -> SqliteStore:
    """The store, emptied if it is of another journal or knows more than this one holds."""
    created, last = journal
    store = SqliteStore(path, stream=topology.journal, created=created)
    position = store.load().position
    if position > last:
        _log.warning("the journal ends at %d, the store at %d: built anew", last, position)
        store.clear()
    return store


def _warn_of_a_gap(store: Store, first: int) -> None:
    position = store.load().position
    if position + 1 < first:
        _log.warning(
            "the journal begins at %d, the store is at %d: what is between is unknown here; if a "
            "projector has it, stop this ledger and run `callboard projector restore`",
            first,
            position,
        )
