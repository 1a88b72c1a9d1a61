"""What a projector makes of rows and events before any database sees them."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard_broker.record import Record
from callboard_config import SettingsError, describe, load_settings
from callboard_ledger.aggregate import Aggregator
from callboard_ledger.projection.batch import Gathering
from callboard_ledger.projection.documents import (
    command_of,
    document_of,
    flow_of,
    schedule_of,
    task_of,
    without_nul,
)
from callboard_ledger.projection.events import event_document
from callboard_ledger.projection.window import Window
from callboard_ledger.reading import read
from callboard_ledger.rows import CommandRow, Flow, Schedule, Task
from tests.ledger_journal import SUBJECTS, Scribe, plain_row, random_journal

_BACK = {Task: task_of, Flow: flow_of, Schedule: schedule_of, CommandRow: command_of}


@pytest.mark.parametrize("seed", range(3))
def test_a_row_comes_back_from_its_columns_as_it_was(seed: int):
    fold = Aggregator(SUBJECTS)
    for record in random_journal(seed, 1500):
        fold.apply(record)
    changes = fold.changes()
    rows = [*changes.tasks, *changes.flows, *changes.schedules, *changes.commands]
    assert len(rows) > 200
    for row in rows:
        columns = msgspec.json.decode(document_of(row))
        assert plain_row(_BACK[type(row)](columns)) == plain_row(row)


@given(st.text(st.sampled_from('a\\"\0u0é'), max_size=12))
def test_a_text_loses_its_nul_and_nothing_else(text: str):
    document = json.dumps({"text": text}).encode()
    assert json.loads(without_nul(document)) == {"text": text.replace("\0", "")}


def test_an_event_keeps_its_numbers_and_loses_the_secret_of_its_attempt():
    scribe = Scribe()
    scribe.begin_epoch()
    scribe.dispatch(scribe.post())
    scribe.spawn("2")
    body = b'{"secret":"x","n":1.500,"big":98765432109876543210,"deep":{"secret":"kept"}}'
    scribe.write(SUBJECTS.task("acme", "work"), body)
    documents = [
        event_document(record, read(SUBJECTS, record), "accepted", most=4096)
        for record in scribe.records
    ]
    assert b"s1" not in b"".join(documents[2:4])
    assert b'"n":1.500,"big":98765432109876543210' in documents[-1]
    assert b'"x"' not in documents[-1]
    assert b"kept" in documents[-1]  # a payload's own fields are its owner's


@pytest.mark.parametrize(
    "data", [b"", b"[1]", b"{", b'{"a":"\xff"}', b"[" * 9999, b'{"parent":1}', b"null"]
)
def test_a_body_that_is_no_object_is_left_out_and_its_hash_is_not(data: bytes):
    record = Record(7, 1_700_000_000_000_000_000, "cb.task.acme.work", b"", data)
    document = event_document(record, read(SUBJECTS, record), "malformed", most=100_000)
    found = json.loads(document)
    assert "data" not in found
    assert (found["seq"], found["bytes"], len(found["payload_hash"])) == (7, len(data), 64)


def test_what_is_read_ahead_is_bounded_and_goes_on_behind_the_last_that_was_taken():
    window = Window()
    records = [Record(seq, 0, "x", b"", b"") for seq in range(1, 30_000)]
    for start in range(0, len(records), 256):
        window.take(records[start : start + 256])
    assert window.full
    assert len(window) == 10_000
    assert [window.next().seq for _ in range(10_000)] == list(range(1, 10_001))
    assert not window.stirred.is_set()
    large = Window()
    large.take([Record(seq, 0, "x", b"", bytes(1_000_000)) for seq in range(100)])
    assert large.full
    assert len(large) == 17


def test_what_a_chunk_brings_until_a_window_is_full_is_told_too():
    window = Window()
    records = [Record(seq, 0, "cb.x", b"", b"") for seq in range(1, 10_010)]
    window.take(records[:9_990])
    while len(window):
        window.next()
    window.take(records[9_990:])
    assert window.full
    assert len(window) == 10
    assert window.stirred.is_set()
    while len(window):
        window.next()
    window.take(records[-1:])
    assert not window.stirred.is_set()


def test_sums_of_performance_count_what_was_accepted_and_nothing_else():
    scribe = Scribe()
    scribe.begin_epoch()
    task = scribe.post()
    scribe.dispatch(task)
    scribe.lost(task)
    scribe.outcome(task)  # too late
    scribe.dispatch(task, 2)
    scribe.outcome(task, 2, used={"tokens": 3.0})
    fold, gathering = Aggregator(SUBJECTS), Gathering("J t", "cb", 0, event_bytes=100)
    for record in scribe.records:
        reading = read(SUBJECTS, record)
        gathering.add(record, reading, fold.fold(record, reading))
    batch = json.loads(gathering.take(fold.changes()).document())
    (sums,) = batch["performance"]
    assert (sums["succeeded"], sums["failed"], sums["lost"]) == (1, 0, 1)
    assert (sums["hour"], sums["capability"]) == (1_700_000_000 // 3600, "review.python")
    assert (sums["run"], sums["used"]) == ({"1": 1}, {"tokens": 3.0})
    assert (batch["after"], batch["position"]) == (0, 7)


@pytest.mark.parametrize(
    "address",
    [
        "mysql://h/db",
        "postgres://",
        "postgres://h/db?password=hunter2",
        "postgres://u:hunter2 @h/db",
        "postgres://u:hunter2@[h/db",
        "hunter2",
    ],
)
def test_an_address_that_is_none_is_refused_and_not_repeated(address: str):
    with pytest.raises(SettingsError) as refused:
        load_settings(overrides={"projection.to": address})
    assert "hunter2" not in str(refused.value)


def test_settings_show_a_database_without_its_password():
    settings = load_settings(overrides={"projection.to": "postgres://u:hunter2@h:5/db"})
    shown = {line.key: line.value for line in describe(settings)}
    assert shown["projection.to"] == "postgres://u:***@h:5/db"
    assert "hunter2" not in repr(settings)
