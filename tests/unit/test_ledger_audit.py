"""The audit log: what it says of an event, how it goes on after a failure, what verifying finds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from callboard_broker.errors import AuditBroken, BadInput, WriteRefused, WriteUnresolved
from callboard_broker.link import header
from callboard_broker.publisher import Done
from callboard_broker.record import Record
from callboard_broker.signing import SigningKey
from callboard_ledger.audit import Auditor, Tail
from callboard_ledger.leaves import decode_batch, hashes
from callboard_ledger.notes import Checkpoint, sign_checkpoint, sign_note
from callboard_ledger.reading import read
from callboard_ledger.records import Archived
from callboard_ledger.trust import Trust
from callboard_ledger.verify import VerifyReport, verify
from tests.ledger_journal import SUBJECTS, Scribe, random_journal

KEY = SigningKey.new("test/log")


class AuditStream:
    """AUDIT as the server keeps it: it stores a message only if the guard holds.

    lose: how many of the next writes are stored without anybody hearing of it.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.lose = 0
        self.refuse = 0

    def publish(self, data: bytes, headers: bytes, done: Done) -> None:
        expected = header(headers, "Nats-Expected-Last-Subject-Sequence")
        if self.refuse or int(expected or -1) != self.tail().batch:
            self.refuse = max(0, self.refuse - 1)
            done(None, WriteRefused(SUBJECTS.audit, 10071, "wrong last sequence"))
            return
        seq = len(self.records) + 1
        self.records.append(Record(seq, seq, SUBJECTS.audit, headers, data))
        if self.lose:
            self.lose -= 1
            done(None, WriteUnresolved(SUBJECTS.audit, 5.0))
        else:
            done(seq, None)

    def tail(self) -> Tail:
        """What `read_tail` makes of it."""
        batches = [r for r in self.records if r.subject == SUBJECTS.audit]
        if not batches:
            return Tail()
        batch = decode_batch(batches[-1].data)
        tree = batch.after(batch.index + len(batch.unpack()[0]))
        seq = batches[-1].seq
        tiled = seq if batch.tiles else batch.tiled
        tiles = decode_batch(self.records[tiled - 1].data).stated_tiles() if tiled else []
        return Tail(seq, batch.last, tree.size, tuple(tree.edge), tuple(map(tuple, tiles)), tiled)

    def checkpoint(self, key: SigningKey | None = None) -> Checkpoint:
        """Of its present end; signed with `key`, and written to it too, if there is one."""
        tail = self.tail()
        note = sign_checkpoint(tail.size, tail.root, key or KEY)
        if key is not None:
            self.add(SUBJECTS.audit_checkpoints, note)
        return Checkpoint.read(note, [(key or KEY).public])

    def add(self, subject: str, note: str) -> None:
        seq = len(self.records) + 1
        self.records.append(Record(seq, seq, subject, b"", note.encode()))

    def trust(self) -> Trust:
        return Trust(checkpoints=[self.checkpoint()])


def audit(stream: AuditStream, journal: list[Record], batch: int = 7) -> Auditor:
    auditor = Auditor(stream.publish, stream.tail(), batch=batch)
    feed(auditor, stream, journal)
    return auditor


def feed(auditor: Auditor, stream: AuditStream, journal: list[Record]) -> None:
    for record in journal:
        auditor.add(record, read(SUBJECTS, record))
        if auditor.unsure.is_set():
            auditor.resume(stream.tail())
    auditor.flush()


def kinds(report: VerifyReport) -> set[str]:
    return {finding.kind for finding in report.findings}


def test_an_untouched_journal_verifies() -> None:
    journal, stream = random_journal(1, 500), AuditStream()
    audit(stream, journal[:450])
    report = verify(journal, stream.records, stream.trust())
    assert report.ok
    assert (report.events, report.audited, report.unaudited_tail) == (500, 450, 50)
    assert report.anchored
    assert not verify(journal, stream.records).anchored


@pytest.mark.parametrize(
    "change",
    [
        lambda r: msgspec.structs.replace(r, data=r.data + b" "),
        lambda r: msgspec.structs.replace(r, subject=r.subject + "x"),
        lambda r: msgspec.structs.replace(r, headers=b"NATS/1.0\r\nA: b\r\n\r\n"),
        lambda r: msgspec.structs.replace(r, at_ns=r.at_ns + 1),
    ],
    ids=["payload", "subject", "headers", "time"],
)
def test_an_event_that_was_changed_is_named(change: Callable[[Record], Record]) -> None:
    journal, stream = random_journal(2, 200), AuditStream()
    audit(stream, journal)
    journal[99] = change(journal[99])
    report = verify(journal, stream.records, stream.trust())
    assert [finding.text for finding in report.findings] == [
        "altered since it was audited: event 100"
    ]


def test_bytes_that_move_between_two_parts_of_an_event_change_its_hash() -> None:
    one = Record(1, 1, "cb.task.acme.ab", b"c", b"d")
    other = Record(1, 1, "cb.task.acme.a", b"bc", b"d")
    assert hashes(one)[0] != hashes(other)[0]
    assert hashes(one)[0] != hashes(Record(1, 1, "cb.task.acme.ab", b"", b"cd"))[0]


def test_events_that_are_gone_or_were_slipped_in_are_named() -> None:
    journal, stream = random_journal(3, 200), AuditStream()
    del journal[149]  # gone before anybody could audit it
    audit(stream, journal)
    slipped = journal[10]
    del journal[20:23]
    report = verify(journal, stream.records)
    assert {(f.kind, f.first, f.last) for f in report.findings} == {
        ("event-unseen", 150, 150),
        ("event-missing", 21, 23),
    }
    journal.insert(146, msgspec.structs.replace(slipped, seq=150))
    assert "event-inserted" in kinds(verify(journal, stream.records))


def test_events_that_changed_places_are_told_from_one_that_was_altered() -> None:
    journal, stream = random_journal(17, 100), AuditStream()
    audit(stream, journal)
    swapped = journal.copy()
    one, two = journal[39], next(r for r in journal[40:] if r.data != journal[39].data)
    swapped[39] = msgspec.structs.replace(two, seq=40)
    swapped[two.seq - 1] = msgspec.structs.replace(one, seq=two.seq)
    swapped[70] = msgspec.structs.replace(swapped[70], data=b"{}")
    found = {(f.kind, f.first) for f in verify(swapped, stream.records).findings}
    assert ("event-changed", 71) in found
    kinds_of = {kind for kind, _ in found}
    assert kinds_of == {"event-changed", "event-moved"}


def test_events_removed_on_purpose_are_not_missed() -> None:
    journal, stream = random_journal(3, 200), AuditStream()
    audit(stream, journal)
    assert kinds(verify(journal[50:], stream.records)) == {"event-missing"}
    assert kinds(verify(journal[50:], stream.records, first=51)) == {"event-missing"}
    note = sign_note(Archived(first=1, last=50, size=50, digest="0" * 64).text(), KEY)
    stream.add(SUBJECTS.audit_records, note)
    report = verify(journal[50:], stream.records, Trust(keys=[KEY.public]), first=51)
    assert (report.ok, report.archived) == (True, 50)
    assert verify(journal[50:], stream.records, archive=journal[:50], first=51).ok
    cut = journal[:20] + journal[21:50]
    report = verify(journal[50:], stream.records, archive=cut, first=51)
    assert [(f.kind, f.first, f.last) for f in report.findings] == [("event-missing", 21, 21)]
    other = SigningKey.new("test/log")
    report = verify(journal[50:], stream.records, Trust(keys=[other.public]), first=51)
    assert kinds(report) == {"event-missing"}
    changed = stream.records.copy()
    forged = changed[-1].data.replace(b"\n50\n", b"\n60\n", 1)
    changed[-1] = msgspec.structs.replace(changed[-1], data=forged)
    report = verify(journal[50:], changed, Trust(keys=[KEY.public]), first=51)
    assert kinds(report) == {"record-forged", "event-missing"}


@pytest.mark.parametrize("journal_now", ["empty", "another"])
def test_a_journal_that_was_emptied_or_replaced_is_named(journal_now: str) -> None:
    stream = AuditStream()
    audit(stream, random_journal(4, 100))
    later = [msgspec.structs.replace(r, at_ns=r.at_ns + 10**9) for r in random_journal(4, 150)]
    journal = [] if journal_now == "empty" else later
    report = verify(journal, stream.records, stream.trust())
    assert kinds(report) == {"journal-replaced"}


def test_a_change_in_the_audit_log_is_named() -> None:
    journal, stream = random_journal(6, 200), AuditStream()
    audit(stream, journal)
    third = stream.records[2]
    for old, new, kind in (
        (b'"acme"', b'"evil"', "tree-broken"),
        (b'"first":15', b'"first":16', "batch-changed"),
        (b'"v":2', b'"v":1', "batch-changed"),
        (b'"edge":"', b'"edge":"AAAA', "batch-changed"),
    ):
        assert old in third.data
        changed = stream.records.copy()
        changed[2] = msgspec.structs.replace(third, data=third.data.replace(old, new, 1))
        report = verify(journal, changed, stream.trust())
        assert (kind, 3) in {(f.kind, f.first) for f in report.findings}
        assert "event-inserted" not in kinds(report)


def test_a_batch_that_is_gone_or_was_exchanged_is_named() -> None:
    journal, stream = random_journal(7, 200), AuditStream()
    audit(stream, journal)
    without = stream.records[:4] + stream.records[6:]
    report = verify(journal, without)
    assert [(f.kind, f.first, f.last) for f in report.findings] == [("batch-missing", 5, 6)]
    forged = AuditStream()
    audit(forged, [*journal[:14], msgspec.structs.replace(journal[14], data=b"{}"), *journal[15:]])
    exchanged = stream.records.copy()
    exchanged[2] = forged.records[2]
    report = verify(journal, exchanged)
    assert {("tree-broken", 4), ("event-changed", 15)} == {
        (f.kind, f.first) for f in report.findings
    }


def test_a_checkpoint_in_the_log_that_states_another_tree_is_named() -> None:
    journal, stream = random_journal(16, 100), AuditStream()
    audit(stream, journal[:50])
    stream.checkpoint(KEY)
    audit(stream, journal)
    trust = Trust(keys=[KEY.public])
    assert verify(journal, stream.records, trust).ok
    forged = stream.records.copy()
    note = sign_checkpoint(50, bytes(32), KEY)
    position = next(i for i, r in enumerate(forged) if r.subject == SUBJECTS.audit_checkpoints)
    forged[position] = msgspec.structs.replace(forged[position], data=note.encode())
    assert kinds(verify(journal, forged, trust)) == {"checkpoint-broken"}
    other = sign_checkpoint(50, bytes(32), SigningKey.new("test/log"))
    forged[position] = msgspec.structs.replace(forged[position], data=other.encode())
    assert kinds(verify(journal, forged, trust)) == {"checkpoint-forged"}


def test_what_another_ledger_of_the_board_has_signed_counts_where_it_is_true() -> None:
    journal, stream = random_journal(18, 100), AuditStream()
    audit(stream, journal)
    trust = Trust(keys=[KEY.public])
    stream.checkpoint(SigningKey.new("other/log"))
    assert kinds(verify(journal, stream.records, trust)) == {"checkpoint-forged"}
    stream.checkpoint(KEY)
    assert verify(journal, stream.records, trust).ok


def test_a_log_that_was_cut_or_written_anew_is_found_by_the_head_kept_outside() -> None:
    journal, stream = random_journal(8, 200), AuditStream()
    audit(stream, journal)
    trust = stream.trust()
    assert verify(journal, stream.records[:-2]).ok
    report = verify(journal, stream.records[:-2], trust)
    assert kinds(report) == {"audit-cut"}
    forged = AuditStream()
    tampered = journal.copy()
    tampered[50] = msgspec.structs.replace(tampered[50], data=b"{}")
    audit(forged, tampered)
    assert verify(tampered, forged.records).ok
    assert kinds(verify(tampered, forged.records, trust)) == {"audit-rewritten"}


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_a_write_that_nobody_heard_of_is_neither_repeated_nor_left_out(batch: int) -> None:
    journal, stream = random_journal(9, 300), AuditStream()
    auditor = Auditor(stream.publish, Tail(), batch=batch)
    for start in range(0, 300, 30):
        stream.lose, stream.refuse = start % 20, start % 3
        feed(auditor, stream, journal[start : start + 30])
    while not auditor.idle:
        stream.lose = 0
        if auditor.unsure.is_set():
            auditor.resume(stream.tail())
        auditor.flush()
    report = verify(journal, stream.records, stream.trust())
    assert report.ok
    assert report.audited == 300


def test_two_ledgers_cannot_both_extend_the_log() -> None:
    journal, stream = random_journal(10, 400), AuditStream()
    auditors = [Auditor(stream.publish, Tail(), batch=size) for size in (5, 8)]
    for record in journal:
        for auditor in auditors:
            feed(auditor, stream, [record])
    report = verify(journal, stream.records, stream.trust())
    assert report.ok
    assert report.audited == 400


def test_a_ledger_that_starts_again_goes_on_where_the_log_ends() -> None:
    journal, stream = random_journal(11, 100), AuditStream()
    audit(stream, journal[:60])
    audit(stream, journal[:90])
    audit(stream, journal)
    assert verify(journal, stream.records, stream.trust()).audited == 100


def test_a_log_that_got_shorter_is_not_extended() -> None:
    journal, stream = random_journal(12, 100), AuditStream()
    auditor = audit(stream, journal)
    with pytest.raises(AuditBroken, match="it was cut"):
        auditor.resume(Tail(1, 7, 7))
    auditor.flush()
    assert auditor.problem is not None


def test_an_outage_of_the_log_costs_bounded_memory_and_loses_no_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("callboard_ledger.audit._MOST_WAITING", 40)
    journal, stream = random_journal(13, 200), AuditStream()
    auditor = Auditor(stream.publish, Tail(), batch=10)
    stream.refuse = 1
    for record in journal:
        auditor.add(record, read(SUBJECTS, record))
    assert auditor.behind
    assert auditor.waiting <= 40
    auditor.resume(stream.tail())
    auditor.flush()
    assert auditor.idle
    start = auditor.reread()
    feed(auditor, stream, journal[start - 1 :])
    auditor.flush()
    assert verify(journal, stream.records, stream.trust()).audited == 200


def test_a_leaf_says_who_did_what_to_which_task() -> None:
    scribe, stream = Scribe(), AuditStream()
    scribe.begin_epoch()
    task = scribe.run_task()
    scribe.write("cb.task.acme.\udcff", b"\xff")
    audit(stream, scribe.records, batch=1)
    leaves = [decode_batch(record.data).unpack()[0][0] for record in stream.records]
    assert [(leaf.action, leaf.tenant, leaf.actor, leaf.resource) for leaf in leaves] == [
        ("epoch", "refused", "router-1", ""),
        ("post", "acme", "client", task),
        ("dispatch", "acme", "router", task),
        ("outcome", "acme", "host-1", task),
        ("malformed", "refused", "client", ""),
    ]
    assert verify(scribe.records, stream.records).ok


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[1]", b'{"v":1,"first":1,"last":1}', b"\xff", b"[" * 9999]
)
def test_what_is_no_batch_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(BadInput):
        decode_batch(data)


def test_a_ledger_that_goes_on_from_a_tail_writes_the_tiles_that_an_uninterrupted_one_does() -> (
    None
):
    journal, whole, resumed = random_journal(14, 1_200), AuditStream(), AuditStream()
    audit(whole, journal, batch=100)
    for start in range(0, 1_200, 100):
        audit(resumed, journal[start : start + 100], batch=100)
    assert whole.tail() == resumed.tail()
    assert [len(tile) for tile in whole.tail().tiles] == [4]
    assert [r.data for r in whole.records] == [r.data for r in resumed.records]


def test_no_batch_reaches_over_a_multiple_of_the_stride(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callboard_ledger.audit.STRIDE", 64)
    journal, stream = random_journal(15, 200), AuditStream()
    audit(stream, journal, batch=50)
    ends = [decode_batch(record.data).index for record in stream.records[1:]]
    assert {64, 128} <= set(ends)
    assert verify(journal, stream.records).ok
