"""What the commands of `callboard audit` do: verify, export, prove, show the audit checkpoint.

The public key and the checkpoints are those that are named, else those of the ledger that this
project runs itself: another server's board is none of this folder's business.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from rich.text import Text

from callboard.board_note import FOLDER
from callboard.cli.reaching import link_to
from callboard.cli.screen import Screen
from callboard.connecting import Place
from callboard_broker.errors import BadInput
from callboard_broker.record import Record
from callboard_broker.signing import PublicKey
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_ledger.archiving import ArchiveFolder, archived_events
from callboard_ledger.check_export import ExportReport, check_export
from callboard_ledger.checkpoints import own_keys, read_checkpoints
from callboard_ledger.exporting import Exported, export_board
from callboard_ledger.findings import Finding
from callboard_ledger.proofs import MAGIC, ProofReport, check_proof, prove
from callboard_ledger.proving import latest_checkpoint
from callboard_ledger.skeleton import Choice
from callboard_ledger.trust import Trust
from callboard_ledger.verify import VerifyReport, verify_board

__all__ = [
    "export_place",
    "prove_place",
    "show_checkpoint",
    "time_ms",
    "told_export",
    "trusted",
    "trusted_offline",
    "verify_file",
    "verify_place",
]

Progress = Callable[[str, int], None]

_PROOF_BYTES = 4 << 20


def trusted(place: Place, key: str | None, checkpoints: Sequence[Path] | None) -> Trust:
    """The key and the checkpoints to verify with. checkpoints: None for those of the ledger here.

    Raises `BadInput`.
    """
    own = _own_directory(place)
    keys = [PublicKey.read(key)] if key is not None else []
    if key is None and own is not None:
        keys = own_keys(own)
    if checkpoints is not None:
        found = [one for path in checkpoints for one in read_checkpoints(path, keys)]
    elif place.settings.audit.checkpoints is not None and own is not None:
        path = place.settings.audit.checkpoints
        found = read_checkpoints(path, keys) if path.exists() else []
    else:
        found = [] if own is None else read_checkpoints(own, keys)
    return Trust(keys=keys, checkpoints=found)


def trusted_offline(key: str | None, checkpoints: Sequence[Path] | None) -> Trust:
    """The same for a file, which may be of any board. Raises `BadInput` without a key."""
    if key is None:
        raise BadInput("key", "a file proves nothing without the log's public key: --key PUB")
    keys = [PublicKey.read(key)]
    found = [one for path in checkpoints or () for one in read_checkpoints(path, keys)]
    return Trust(keys=keys, checkpoints=found)


async def verify_place(place: Place, screen: Screen, trust: Trust, *, archive: Path | None) -> bool:
    """Verify a board and say what was found; returns whether all is as it was."""
    events = _archived(archive)
    async with link_to(place, name="callboard audit") as connection:
        with _progress(screen) as progress:
            report = await verify_board(
                connection, _topology(place), trust, archive=events, progress=progress
            )
    _show(screen, report, report.findings, "the audit log", _facts(report))
    return report.ok


def verify_file(screen: Screen, path: Path, trust: Trust) -> bool:
    """Verify an export or a proof and say what was found; returns whether all is as it was."""
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise BadInput("file", f"{path} cannot be read: {error.strerror}") from error
    if start == MAGIC.encode():
        proof = check_proof(_read(path), tuple(trust.keys))
        _show(screen, proof, proof.findings, "the proof", _proof_facts(proof))
        return proof.ok
    with _progress(screen) as progress:
        report = check_export(path, trust, progress=progress)
    _show(screen, report, report.findings, "the export", _export_facts(report))
    return report.ok


async def export_place(
    place: Place,
    screen: Screen,
    choice: Choice,
    trust: Trust,
    *,
    output: Path,
    archive: Path | None,
) -> None:
    """Write an export of a board to `output`; nothing stays there if it fails."""
    events = _archived(archive)
    async with link_to(place, name="callboard audit") as connection:
        with _output(output) as file, _progress(screen) as progress:
            done = await export_board(
                connection,
                _topology(place),
                choice,
                file.write,
                trust,
                archive=events,
                progress=progress,
            )
    if str(output) == "-":
        return
    if screen.json:
        told = {"events": done.events, "hashes_only": done.absent}
        screen.document({"output": str(output), **told})
    else:
        screen.line(f"{told_export(done)}: {output}")


def told_export(done: Exported) -> str:
    """How many events have their content, and how many do not."""
    content = done.events - done.absent
    if not done.absent:
        return f"{content} events"
    return (
        f"{done.events} events, {content} with their content and {done.absent} as hashes only, "
        "which have left the journal (--archive FOLDER adds what was archived)"
    )


async def prove_place(place: Place, screen: Screen, seq: int, trust: Trust) -> None:
    """Print the proof of one event."""
    async with link_to(place, name="callboard audit") as connection:
        proof = await prove(connection, _topology(place), seq, tuple(trust.keys))
    if screen.json:
        screen.document({"event": seq, "index": proof.index, "proof": proof.text()})
    else:
        sys.stdout.write(proof.text())  # byte for byte: a file of it must verify


async def show_checkpoint(place: Place, screen: Screen, trust: Trust) -> None:
    """Print the latest checkpoint in AUDIT. Raises `BadInput` if there is none."""
    async with link_to(place, name="callboard audit") as connection:
        found = await latest_checkpoint(connection, _topology(place), trust.keys)
    if found is None:
        raise BadInput("checkpoint", "AUDIT holds none of this log yet: the ledger signs them")
    if screen.json:
        said = {"origin": found.origin, "size": found.size, "root": found.root.hex()}
        screen.document({**said, "signed": found.signed, "note": found.note})
    else:
        sys.stdout.write(f"{found.note}\n")  # with an empty line, so that they can be appended


def time_ms(name: str, text: str | None) -> int | None:
    """Unix milliseconds of an ISO time; local if it has no zone. Raises `BadInput`."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        said = "is neither an event's number nor a time" if name == "until" else "is no time"
        raise BadInput(name, f"{text!r} {said}") from error
    return int(when.timestamp() * 1000)


def _own_directory(place: Place) -> Path | None:
    """That of the ledger of this project, if one has run here."""
    if place.note is not None:
        path = Path(place.note.ledger)
    elif place.settings.ledger.store is not None:
        path = place.settings.ledger.store
    elif place.origin.startswith("default"):
        path = Path(FOLDER, "ledger")
    else:
        return None
    return path if path.is_dir() else None


def _archived(folder: Path | None) -> Iterator[Record]:
    return iter(()) if folder is None else archived_events(ArchiveFolder(folder))


def _topology(place: Place) -> Topology:
    return Topology(Subjects(place.prefix))


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        if len(data) > _PROOF_BYTES:
            raise BadInput("file", f"{path} is too long to be a proof")
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput("file", f"{path} is no proof: {error}") from error


@contextmanager
def _output(path: Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdout.buffer
        return
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise BadInput("output", f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _progress(screen: Screen) -> Iterator[Progress | None]:
    """On a terminal, a line that says what is read."""
    if not screen.terminal:
        yield None
        return
    with screen.errors.status("reading ...") as line:

        def told(what: str, number: int) -> None:
            line.update(f"{what} {number:,}")

        yield told


def _show(
    screen: Screen,
    report: VerifyReport | ExportReport | ProofReport,
    findings: list[Finding],
    what: str,
    facts: dict[str, object],
) -> None:
    if screen.json:
        screen.document(report)
        return
    if report.ok:
        screen.line(f"{what} verifies", "bold green")
    else:
        screen.line(f"{what} does not verify", "bold red")
        for finding in findings:
            screen.line(f"  {finding.text}", "red")
    for name, value in facts.items():
        screen.line(Text(f"  {name:<16}", style="dim") + Text(str(value)))


_UNSIGNED = "no: give --key PUB to check who signed it"


def _facts(report: VerifyReport) -> dict[str, object]:
    return {
        "events": report.events,
        "audited": report.audited,
        "batches": report.batches,
        "checkpoints": report.checkpoints,
        "not yet audited": report.unaudited_tail,
        "archived": report.archived,
        "outcomes": _outcomes(report.outcomes_signed, report.outcomes_unattested),
        "signed": "yes" if report.signed else _UNSIGNED,
        "anchored": "yes" if report.anchored else "no: give --checkpoint FILE to see a cut end",
    }


def _export_facts(report: ExportReport) -> dict[str, object]:
    facts: dict[str, object] = {
        "log": report.origin,
        "chosen": ", ".join(f"{k} {v}" for k, v in report.chosen.items()) or "everything",
        "events": f"{report.events} ({report.first} to {report.last}) of {report.size}",
        "outcomes": _outcomes(report.outcomes_signed, report.outcomes_unattested),
        "anchored": "yes" if report.anchored else "no: give --checkpoint FILE, one kept before",
    }
    if report.absent:
        facts["purged"] = f"{report.absent} events are here as hashes only"
    if report.uncompared:
        facts["not compared"] = (
            f"{len(report.uncompared)} audit checkpoints end inside what was not chosen: export "
            "with --checkpoint FILE"
        )
    return facts


def _proof_facts(report: ProofReport) -> dict[str, object]:
    leaf = report.leaf
    facts: dict[str, object] = {"log": report.origin, "leaf": f"{report.index} of {report.size}"}
    for name in ("seq", "action", "tenant", "actor", "resource", "subject"):
        facts["event" if name == "seq" else name] = leaf.get(name, "?")
    return facts


def _outcomes(signed: int, unattested: int) -> str:
    return f"{signed} signed by their hosts, {unattested} not"
