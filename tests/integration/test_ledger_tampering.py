"""Somebody changes what the server has on its disk, or removes it by its API: verifying says so."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import uvloop

from callboard_broker.connection import Connection, open_link
from callboard_broker.publisher import Publisher
from callboard_broker.signing import SigningKey
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_broker.wire import Epoch, encode
from callboard_ledger.serve import LedgerOptions, run_ledger
from callboard_ledger.trust import trust_of
from callboard_ledger.verify import VerifyReport, verify_board
from callboard_ledger.views import PositionView
from tests.nats_blocks import Forged, forge
from tests.servers import NatsServer

_EVENTS = 60
_TARGET = 30  # an event in the middle; its post carries the marks below
_HEADERS = b"NATS/1.0\r\nTrace: mark-header\r\n\r\n"


class Board:
    """A board on a server of the test's own, with a ledger that has audited everything."""

    def __init__(self, nats: NatsServer, directory: Path) -> None:
        self.nats = nats
        self.topology = Topology(Subjects(nats.prefix))
        self.options = LedgerOptions(url=nats.url, prefix=nats.prefix, store=directory / "ledger")

    async def record(self, events: int = _EVENTS) -> None:
        """Post `events` events while a ledger runs, until it has audited them."""
        ready, stop = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(run_ledger(self.options, ready=ready.set, stop=stop))
            await ready.wait()
            async with open_link(self.nats.url, name="test") as link, Publisher(link) as publisher:
                subjects = self.topology.subjects
                last = await publisher.put(subjects.epoch, encode(Epoch("router-1", 1)))
                for number in range(2, events + 1):
                    marked = number == _TARGET
                    last = await publisher.put(
                        subjects.task("acme", "mark-subject" if marked else "review"),
                        b'{"payload":"mark-payload"}' if marked else b'{"payload":%d}' % number,
                        headers=_HEADERS if marked else b"",
                    )
                await self._audited(link, last)
            stop.set()

    async def _audited(self, link: Connection, last: int) -> None:
        """Return once the ledger has audited the event `last`, or refuses to go on."""
        while True:
            reply = await link.request(self.topology.subjects.ask("all", "position"), b"{}")
            answer = msgspec.json.decode(reply.data, type=PositionView)
            if answer.audited >= last or answer.audit_problem is not None:
                return

    async def verify(self) -> VerifyReport:
        async with open_link(self.nats.url, name="auditor") as link:
            return await verify_board(link, self.topology, trust_of(self.options.store))

    async def call(self, verb: str, body: object = None) -> None:
        async with open_link(self.nats.url, name="intruder") as link:
            await link.api(verb, body)

    def messages(self, stream: str) -> Path:
        """The stream's one block of messages on the server's disk."""
        store = self.nats.embedded.options.store / "jetstream" / "$G" / "streams" / stream / "msgs"
        (block,) = store.glob("*.blk")
        return block

    def tamper(
        self, stream: str, change: Callable[[bytearray], None], *, index: bool = False
    ) -> None:
        """Change the block while the server is stopped; `index` keeps what it knew of it."""
        self.nats.stop()
        block = self.messages(stream)
        data = bytearray(block.read_bytes())
        change(data)
        block.write_bytes(data)
        if not index:
            (block.parent / "index.db").unlink()
        self.nats.restart()


@pytest.fixture
def board(nats: NatsServer, tmp_path: Path) -> Board:
    recorded = Board(nats, tmp_path)
    uvloop.run(recorded.record())
    return recorded


def flip(mark: bytes, offset: int = 0) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        place = data.index(mark) + offset
        data[place] ^= 0x01

    return change


def named(report: VerifyReport) -> set[int]:
    """The events that the findings name."""
    events = (finding for finding in report.findings if finding.kind.startswith("event-"))
    return {seq for found in events for seq in range(found.first, found.last + 1)}


def test_an_untouched_store_verifies_also_after_a_restart_of_server_and_ledger(
    board: Board,
) -> None:
    board.nats.restart()
    uvloop.run(board.record(20))
    report = uvloop.run(board.verify())
    assert report.findings == []
    assert report.ok
    assert report.anchored
    assert (report.events, report.audited, report.unaudited_tail) == (80, 80, 0)


@pytest.mark.parametrize(
    ("mark", "offset"),
    [(b"mark-payload", 3), (b"mark-subject", 3), (b"mark-header", 3), (b"task.acme.mark", -40)],
    ids=["payload", "subject", "header", "time"],
)
@pytest.mark.parametrize("index", [False, True], ids=["without-index", "with-index"])
def test_one_flipped_byte_in_the_journal_is_named(
    board: Board, mark: bytes, offset: int, *, index: bool
) -> None:
    if offset < 0:  # the subject stands behind its length (2 bytes) and the time (8)
        mark, offset = f"{board.nats.prefix}.{mark.decode()}".encode(), -6
    board.tamper(board.topology.journal, flip(mark, offset), index=index)
    report = uvloop.run(board.verify())
    assert not report.ok
    assert _TARGET in named(report)


@pytest.mark.parametrize(
    "change",
    [
        lambda true: true._replace(payload=true.payload.replace(b"mark", b"evil")),
        lambda true: true._replace(subject=true.subject.replace(b"mark", b"evil")),
        lambda true: true._replace(headers=true.headers.replace(b"mark", b"evil")),
        lambda true: true._replace(at_ns=true.at_ns - 1),
    ],
    ids=["payload", "subject", "header", "time"],
)
def test_an_event_that_was_forged_with_its_checksum_is_named(
    board: Board, change: Callable[[Forged], Forged]
) -> None:
    journal = board.topology.journal
    board.tamper(journal, lambda block: forge(block, journal, 1, _TARGET, change))
    report = uvloop.run(board.verify())
    assert report.events == _EVENTS  # the server serves it as its own
    assert [(f.kind, f.first, f.last) for f in report.findings] == [
        ("event-changed", _TARGET, _TARGET)
    ]


def test_events_that_changed_places_are_named_as_reordered(board: Board) -> None:
    journal, first, second = board.topology.journal, _TARGET + 5, _TARGET + 6

    def swap(block: bytearray) -> None:
        for seq, number in ((first, second), (second, first)):
            payload = b'{"payload":%d}' % number
            forge(block, journal, 1, seq, lambda true, new=payload: true._replace(payload=new))

    board.tamper(journal, swap)
    report = uvloop.run(board.verify())
    assert [(f.kind, f.first, f.last) for f in report.findings] == [("event-moved", first, second)]


def test_a_leaf_that_was_forged_to_fit_a_forged_event_is_named(board: Board) -> None:
    def change(true: Forged) -> Forged:
        return true._replace(payload=true.payload.replace(b'"client"', b'"nobody"'))

    audit = board.topology.audit
    board.tamper(audit, lambda block: forge(block, audit, 1, 1, change))
    report = uvloop.run(board.verify())
    # the first batch leads to the tree that it states no longer
    assert {finding.kind for finding in report.findings} == {"tree-broken"}


@pytest.mark.parametrize("mark", [b'"leaves":[[1,', b'"edge":"', b'"index":', b".audit."])
@pytest.mark.parametrize("index", [False, True], ids=["without-index", "with-index"])
def test_one_flipped_byte_in_the_audit_log_is_named(
    board: Board, mark: bytes, *, index: bool
) -> None:
    board.tamper(board.topology.audit, flip(mark, len(mark)), index=index)
    report = uvloop.run(board.verify())
    assert not report.ok
    assert {finding.kind for finding in report.findings} & {
        "batch-changed",
        "batch-missing",
        "tree-broken",
        "checkpoint-forged",
        "audit-cut",
        "audit-rewritten",
    }


def test_an_audit_log_whose_end_was_cut_off_is_found(board: Board) -> None:
    uvloop.run(board.record(20))

    def cut(data: bytearray) -> None:
        del data[data.rindex(b'{"v":2') - 40 :]

    board.tamper(board.topology.audit, cut)
    report = uvloop.run(board.verify())
    assert {finding.kind for finding in report.findings} == {"audit-cut"}


def test_a_deleted_event_is_named(board: Board) -> None:
    uvloop.run(board.call(f"STREAM.MSG.DELETE.{board.topology.journal}", {"seq": _TARGET}))
    report = uvloop.run(board.verify())
    assert [(f.kind, f.first, f.last) for f in report.findings] == [
        ("event-missing", _TARGET, _TARGET)
    ]


def test_a_purged_journal_is_named(board: Board) -> None:
    uvloop.run(board.call(f"STREAM.PURGE.{board.topology.journal}", {"keep": 10}))
    report = uvloop.run(board.verify())
    assert [(f.kind, f.first, f.last) for f in report.findings] == [("event-missing", 1, 50)]
    uvloop.run(board.call(f"STREAM.PURGE.{board.topology.journal}"))
    report = uvloop.run(board.verify())
    assert {finding.kind for finding in report.findings} == {"journal-replaced"}


def test_a_journal_that_was_replaced_is_named_and_the_log_is_not_extended(board: Board) -> None:
    async def replace() -> None:
        async with open_link(board.nats.url, name="intruder") as link:
            await link.api(f"STREAM.DELETE.{board.topology.journal}")

    uvloop.run(replace())
    uvloop.run(board.record(_EVENTS + 20))
    report = uvloop.run(board.verify())
    assert {finding.kind for finding in report.findings} == {"journal-replaced"}
    assert (report.audited, report.unaudited_tail) == (_EVENTS, 20)


def test_the_server_refuses_to_delete_from_the_audit_log(board: Board) -> None:
    async def attempts(link: Connection) -> list[str]:
        refused = []
        for verb, body in (
            (f"STREAM.MSG.DELETE.{board.topology.audit}", {"seq": 1}),
            (f"STREAM.PURGE.{board.topology.audit}", None),
        ):
            try:
                await link.api(verb, body)
            except RuntimeError as error:
                refused.append(str(error))
        return refused

    async def run() -> list[str]:
        async with open_link(board.nats.url, name="intruder") as link:
            return await attempts(link)

    assert len(uvloop.run(run())) == 2


def test_an_audit_log_that_was_written_anew_with_the_journal_is_found(board: Board) -> None:
    async def forge() -> None:
        async with open_link(board.nats.url, name="intruder") as link:
            for stream in (board.topology.journal, board.topology.audit):
                await link.api(f"STREAM.DELETE.{stream}")

    kept = board.options.store.parent / "kept"
    shutil.copytree(board.options.store, kept)
    uvloop.run(forge())
    for path in board.options.store.iterdir():
        path.unlink()
    shutil.copy(kept / "audit.key", board.options.store)  # the key was stolen, too
    uvloop.run(board.record())
    assert uvloop.run(board.verify()).ok
    shutil.copy(kept / "checkpoints", board.options.store)
    report = uvloop.run(board.verify())
    assert {finding.kind for finding in report.findings} & {"audit-cut", "audit-rewritten"}


def test_what_another_key_has_signed_counts_for_nothing(board: Board) -> None:
    other = SigningKey.new("somebody")
    (board.options.store / "audit.pub").write_text(f"{other.public}\n")
    (board.options.store / "checkpoints").unlink()
    report = uvloop.run(board.verify())
    assert {finding.kind for finding in report.findings} == {"checkpoint-forged"}
