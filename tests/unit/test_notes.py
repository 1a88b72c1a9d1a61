"""Keys, signed notes and checkpoints: another implementation's vectors, and what is refused."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from callboard_broker.errors import AuditBroken, BadInput
from callboard_broker.signing import PublicKey, SigningKey
from callboard_ledger.checkpoints import CheckpointFile, LogFolder, read_checkpoints
from callboard_ledger.merkle import EMPTY, leaf_hash
from callboard_ledger.notes import (
    Checkpoint,
    NoteBroken,
    open_note,
    read_notes,
    sign_checkpoint,
    sign_note,
)
from callboard_ledger.trust import trust_of

# From the documentation of golang.org/x/mod/sumdb/note.
_PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
_PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
_SIGNATURE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdng"
    "otpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_of_another_implementation_is_read_and_made_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{_PRIVATE}\n")
    key = SigningKey.read(path)
    assert str(key.public) == _PUBLIC
    assert sign_note(_TEXT, key) == f"{_TEXT}\n{_SIGNATURE}"
    assert open_note(f"{_TEXT}\n{_SIGNATURE}", [PublicKey.parse(_PUBLIC)]) == _TEXT


def test_a_checkpoint_is_three_lines_that_its_key_signed() -> None:
    key = SigningKey.new("example.com/log")
    note = sign_checkpoint(7, leaf_hash(b""), key)
    assert note.split("\n")[:2] == ["example.com/log", "7"]
    found = Checkpoint.read(note, [key.public])
    assert (found.origin, found.size, found.root) == ("example.com/log", 7, leaf_hash(b""))
    for changed in (note.replace("\n7\n", "\n8\n"), note.replace("com/log\n7", "com/log2\n7")):
        with pytest.raises(NoteBroken):
            Checkpoint.read(changed, [key.public])
    with pytest.raises(NoteBroken, match="by no key that was given"):
        Checkpoint.read(note, [SigningKey.new("example.com/log").public])
    assert Checkpoint.read(note, [SigningKey.new("else").public, key.public]).signed


@pytest.mark.parametrize(
    "text", ["log\n07\nAAAA\n", "log\n-1\nAAAA\n", "log\n7\nAAAA\n", "log\n7\n", "log\n\n7\nAAAA\n"]
)
def test_a_signed_note_that_is_no_checkpoint_is_refused(text: str) -> None:
    key = SigningKey.new("log")
    with pytest.raises(NoteBroken):
        Checkpoint.read(sign_note(text, key), [key.public])


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        "text\n",
        "text\n\nno signature\n",
        "a\rb\n\n\u2014 log AAAAAAA=\n",
        "x\n\n\u2014 log",
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(NoteBroken):
        open_note(note, [SigningKey.new("log").public])


@pytest.mark.parametrize(
    "text", ["", "a+b+c", "log+00000000+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "a b+1+AQ=="]
)
def test_what_is_no_public_key_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadInput, match="key: "):
        PublicKey.parse(text)


def test_a_log_makes_its_key_once_and_nobody_else_may_read_it(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path)
    key = folder.open_key("cb")
    assert key.public.name.startswith("callboard/cb/")
    assert stat.S_IMODE(folder.key_file.stat().st_mode) == 0o600
    assert str(LogFolder(tmp_path).open_key("cb").public) == str(key.public)
    assert str(PublicKey.read(str(folder.public_file))) == str(key.public)
    assert list(tmp_path.glob("audit.key.*")) == []
    folder.key_file.write_text("PRIVATE+KEY+nothing")
    with pytest.raises(BadInput):
        folder.open_key("cb")


def test_checkpoints_survive_a_torn_one_and_end_with_the_last(tmp_path: Path) -> None:
    folder = LogFolder(tmp_path)
    key = folder.open_key("cb")
    file = CheckpointFile(folder.checkpoint_file)
    assert file.last([key.public]) is None
    notes = [sign_checkpoint(size, EMPTY, key) for size in (1, 2, 3)]
    for note in notes[:2]:
        file.append(note)
    with file.path.open("a") as torn:
        torn.write(notes[2][:-30])
    last = file.last([key.public])
    assert last is not None
    assert last.size == 2
    file.append(notes[2])
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [found.size for found in trust_of(tmp_path).checkpoints][-1] == 3
    other = SigningKey.new("other")
    file.append(sign_checkpoint(4, EMPTY, other))
    with pytest.raises(AuditBroken, match="no checkpoint of this log"):
        file.last([key.public])
    with pytest.raises(BadInput, match="by no key that was given"):
        read_checkpoints(file.path, [key.public])


def test_notes_of_one_file_are_told_apart_also_with_several_signatures() -> None:
    key = SigningKey.new("log")
    one = sign_note("a\n\nb\n", key)
    two = one + sign_note("a\n\nb\n", SigningKey.new("witness")).rpartition("\n\n")[2]
    assert list(read_notes(f"{one}\n{two}\n{one}")) == [one, two, one]


def test_a_journal_that_was_replaced_is_told_by_the_time_it_was_made(tmp_path: Path) -> None:
    LogFolder(tmp_path).check_journal("2026-01-01T00:00:00Z")
    LogFolder(tmp_path).check_journal("2026-01-01T00:00:00Z")
    with pytest.raises(AuditBroken, match="was replaced by one of 2026-02"):
        LogFolder(tmp_path).check_journal("2026-02-01T00:00:00Z")
