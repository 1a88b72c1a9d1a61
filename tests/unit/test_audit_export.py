"""Exports, offline, with the public key alone: each thing that is done to one is named."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from callboard_broker.errors import BadInput
from callboard_broker.outcome_signature import OutcomeSignature, sign_outcome
from callboard_broker.record import Record
from callboard_broker.signing import SigningKey
from callboard_ledger.check_export import ExportReport, check_export
from callboard_ledger.notes import sign_note
from callboard_ledger.records import HostKey
from callboard_ledger.skeleton import Choice
from callboard_ledger.trust import Trust
from tests.audit_files import KEY, checkpoint_of, export_to
from tests.ledger_journal import SUBJECTS, Scribe, random_journal

_SIZE = 100
_TARGET = 50  # a line, and since the head is one, the event before it
TRUST = Trust(keys=[KEY.public])

Lines = list[bytes]


def check(path: Path, lines: Lines, trust: Trust = TRUST) -> ExportReport:
    path.write_bytes(b"".join(lines))
    return check_export(path, trust)


def named(report: ExportReport) -> list[tuple[str, int, int]]:
    return [(finding.kind, finding.first, finding.last) for finding in report.findings]


def test_an_export_of_everything_verifies_also_compressed(tmp_path: Path) -> None:
    path, journal = tmp_path / "all", random_journal(1, _SIZE)
    lines = export_to(path, journal, every=20)
    report = check_export(path, Trust(keys=[KEY.public], checkpoints=[checkpoint_of(journal, 64)]))
    assert report.ok
    assert (report.events, report.first, report.last, report.size) == (_SIZE, 1, _SIZE, _SIZE)
    assert (report.signed, report.anchored, report.uncompared) == (True, True, [])
    path.write_bytes(gzip.compress(b"".join(lines)))
    assert check_export(path, TRUST).ok


@pytest.mark.parametrize(
    "choice", [Choice(tenant="acme"), Choice(tenant="nobody"), Choice(since=1_700_000_000_040)]
)
def test_what_was_chosen_verifies_without_the_rest(tmp_path: Path, choice: Choice) -> None:
    path, journal = tmp_path / "some", random_journal(2, 400)
    lines = export_to(path, journal, choice, splits=[100, 177])
    old = [checkpoint_of(journal, size) for size in (100, 177)]
    report = check_export(path, Trust(keys=[KEY.public], checkpoints=old))
    assert report.ok
    assert report.anchored
    assert report.events < 400
    assert all(b"globex.review" not in line for line in lines) or choice.tenant is None
    other = checkpoint_of(random_journal(3, 400), 100)
    report = check_export(path, Trust(keys=[KEY.public], checkpoints=[other]))
    assert named(report) == [("audit-rewritten", 100, 100)]
    inside = checkpoint_of(journal, 101)
    report = check_export(path, Trust(keys=[KEY.public], checkpoints=[inside]))
    assert report.ok
    assert report.anchored or report.uncompared == [101]


def test_a_workflow_is_chosen_with_its_steps_and_the_commands_to_it(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    task = scribe.run_task()
    scribe.run_task()
    command = scribe.command("cancel", task)
    scribe.answered(command)
    path = tmp_path / "one"
    export_to(path, scribe.records, Choice(about=task))
    report = check_export(path, TRUST)
    assert report.ok
    assert report.events == 5


def flip(lines: Lines) -> Lines:
    """One bit of the event's data."""
    place = lines[_TARGET].rindex(b"a.py")
    line = bytearray(lines[_TARGET])
    line[place] ^= 1
    return [*lines[:_TARGET], bytes(line), *lines[_TARGET + 1 :]]


def swap(lines: Lines) -> Lines:
    return [
        *lines[:_TARGET],
        lines[_TARGET + 1],
        lines[_TARGET],
        *lines[_TARGET + 2 :],
    ]


@pytest.mark.parametrize(
    ("change", "kind", "first", "last"),
    [
        (flip, "event-changed", _TARGET, _TARGET),
        (lambda ls: ls[:_TARGET] + ls[_TARGET + 1 :], "event-missing", _TARGET, _TARGET),
        (lambda ls: ls[:_TARGET] + ls[_TARGET + 9 :], "event-missing", _TARGET, _TARGET + 8),
        (swap, "event-moved", _TARGET, _TARGET),
        (
            lambda ls: ls[: _TARGET + 1] + ls[_TARGET:],
            "event-inserted",
            _TARGET,
            _TARGET,
        ),
        (lambda ls: ls[:-7], "tail-cut", _SIZE - 6, _SIZE),
        (lambda ls: ls[:1], "tail-cut", 1, _SIZE),
        (lambda ls: [*ls[:_TARGET], b"{}\n", *ls[_TARGET + 1 :]], "leaf-changed", _TARGET, _TARGET),
    ],
    ids=["bit", "deleted", "several deleted", "reordered", "inserted", "cut", "emptied", "rubbish"],
)
def test_what_was_done_to_a_line_is_named(
    tmp_path: Path, change: Callable[[Lines], Lines], kind: str, first: int, last: int
) -> None:
    path, journal = tmp_path / "all", clean_journal()
    report = check(path, change(export_to(path, journal)))
    assert not report.ok
    assert (kind, first, last) in named(report)


def clean_journal() -> list[Record]:
    scribe = Scribe()
    scribe.begin_epoch()
    while len(scribe.records) < _SIZE:
        scribe.run_task()
    return scribe.records[:_SIZE]


def forged(journal: list[Record], seq: int) -> list[Record]:
    changed = journal.copy()
    changed[seq - 1] = msgspec.structs.replace(changed[seq - 1], data=b'{"payload":"evil"}')
    return changed


def test_an_event_that_was_forged_with_its_leaf_lies_between_two_signed_checkpoints(
    tmp_path: Path,
) -> None:
    path, journal = tmp_path / "all", clean_journal()
    true = export_to(path, journal, every=10)
    false = export_to(path, forged(journal, 34), every=10)
    mixed = [a if b'"kind":"event"' not in a else b for a, b in zip(true, false, strict=True)]
    assert named(check(path, mixed)) == [("events-replaced", 31, 40)]


def test_lines_that_were_renumbered_to_hide_a_gap_are_found(tmp_path: Path) -> None:
    path, journal = tmp_path / "all", clean_journal()
    lines = export_to(path, journal)
    del lines[_TARGET]
    for at in range(_TARGET, len(lines)):
        old, new = b'"index":%d,' % at, b'"index":%d,' % (at - 1)
        assert old in lines[at]
        lines[at] = lines[at].replace(old, new)
    report = check(path, lines)
    assert {kind for kind, _, _ in named(report)} == {"tail-cut"}


def test_another_journal_under_a_key_of_its_own_is_not_taken_for_this_one(tmp_path: Path) -> None:
    path, journal = tmp_path / "all", clean_journal()
    export_to(path, journal)
    stranger = Trust(keys=[SigningKey.new("test/log").public])
    assert named(check_export(path, stranger)) == [("checkpoint-forged", _SIZE, _SIZE)]
    other = random_journal(9, _SIZE)
    trust = Trust(keys=[KEY.public], checkpoints=[checkpoint_of(other, 40), checkpoint_of(other)])
    report = check_export(path, trust)
    assert ("audit-rewritten", 40, 40) in named(report)
    longer = Trust(keys=[KEY.public], checkpoints=[checkpoint_of(random_journal(1, 120))])
    assert named(check_export(path, longer)) == [("tail-cut", 101, 120)]


def test_bytes_that_are_no_text_come_through_an_export(tmp_path: Path) -> None:
    scribe = Scribe()
    scribe.begin_epoch()
    scribe.write("cb.task.acme.\udcff", b"\xff\x00", b"NATS/1.0\r\nA: \xfe\r\n\r\n")
    path = tmp_path / "odd"
    export_to(path, scribe.records)
    assert check_export(path, TRUST).ok


@pytest.mark.parametrize("data", [b"", b"{}\n", b"\x1f\x8bnothing", b'{"kind":"event"}\n'])
def test_what_is_no_export_is_bad_input(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "none"
    path.write_bytes(data)
    with pytest.raises(BadInput, match="file: "):
        check_export(path, TRUST)


HOST = SigningKey.new("shared/host-1")


def outcome(key: SigningKey | None, *, pool: str = "shared") -> list[Record]:
    """A journal with one outcome that says it is of host-1, signed with `key`."""
    scribe = Scribe()
    scribe.begin_epoch()
    scribe.run_task()
    last = scribe.records[-1]
    if key is not None:
        headers = sign_outcome(key, last.subject, pool, "review.python", last.data)
        scribe.records[-1] = msgspec.structs.replace(last, headers=headers)
    return scribe.records


def record_note(host: str, key: SigningKey | None, pool: str = "shared") -> str:
    raw = None if key is None else key.public.raw
    return sign_note(HostKey(pool=pool, host=host, key=raw, at=0).text(), KEY)


@pytest.mark.parametrize(
    ("journal", "known", "kinds"),
    [
        (outcome(HOST), [("host-1", HOST)], []),
        (outcome(SigningKey.new("shared/host-1")), [("host-1", HOST)], ["outcome-forged"]),
        (outcome(HOST.named("acme/host-1"), pool="acme"), [("host-1", HOST)], ["outcome-forged"]),
        (outcome(None), [("host-1", HOST)], ["outcome-unsigned"]),
        (outcome(None), [("host-1", HOST), ("host-1", None)], []),
        (outcome(None), [("host-2", HOST)], []),
        (outcome(HOST), [("host-2", HOST)], []),
    ],
    ids=["its own", "another key", "another pool", "none", "no longer", "no signer", "unknown"],
)
def test_an_outcome_is_held_to_the_key_of_the_host_that_it_names(
    tmp_path: Path,
    journal: list[Record],
    known: list[tuple[str, SigningKey | None]],
    kinds: list[str],
) -> None:
    path = tmp_path / "signed"
    export_to(path, journal, notes=[record_note(host, key) for host, key in known])
    report = check_export(path, TRUST)
    assert [finding.kind for finding in report.findings] == kinds
    assert report.outcomes_signed + report.outcomes_unattested + len(kinds) == 1


def test_a_signature_covers_subject_capability_and_every_byte() -> None:
    subject, data = SUBJECTS.run("acme", "outcome", 7), b'{"task":"1"}'
    headers = sign_outcome(HOST, subject, "shared", "review.python", data)
    signature = OutcomeSignature.read(headers)
    assert signature is not None
    assert signature.holds(HOST.public, subject, data)
    assert not signature.holds(HOST.public, SUBJECTS.run("globex", "outcome", 7), data)
    assert not signature.holds(HOST.public, subject, data + b" ")
    assert not signature._replace(capability="other").holds(HOST.public, subject, data)
    assert not signature.holds(SigningKey.new("shared/host-1").public, subject, data)


def test_the_verifier_of_the_documentation_agrees(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "audit.md"
    code = page.read_text().partition("```python\n")[2].partition("```")[0]
    found: dict[str, Callable[[Lines, bytes], bool]] = {}
    exec(code, found)  # noqa: S102  our own page
    journal = random_journal(12, 77)
    for choice in (Choice(), Choice(tenant="acme")):
        lines = export_to(tmp_path / "export", journal, choice)
        assert found["verify_all"](lines, checkpoint_of(journal).root)
        assert not found["verify_all"](lines[:-1], checkpoint_of(journal).root)
