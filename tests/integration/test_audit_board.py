"""The audit log of a real board: exports and proofs of it verify offline, purges are archived."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from callboard_agents import Host, HostOptions, agent
from callboard_agents.options import OWN_KEY
from callboard_broker.connection import Connection, open_link
from callboard_broker.errors import BadInput
from callboard_broker.publisher import Done, Publisher
from callboard_broker.signing import PublicKey, SigningKey
from callboard_broker.streams import Topology, ensure_streams
from callboard_broker.subjects import Subjects
from callboard_ledger.archiving import ArchiveFolder, archived_events
from callboard_ledger.audit import Auditor, read_tail
from callboard_ledger.audit_upkeep import CheckpointOptions
from callboard_ledger.check_export import check_export
from callboard_ledger.exporting import Exported, export_board
from callboard_ledger.merkle import Tree, is_consistent, is_included, leaf_hash
from callboard_ledger.notes import Checkpoint
from callboard_ledger.proofs import check_proof, prove
from callboard_ledger.proving import AuditTree, latest_checkpoint, root_at
from callboard_ledger.serve import LedgerOptions, run_ledger
from callboard_ledger.skeleton import Choice
from callboard_ledger.trust import Trust, trust_of
from callboard_ledger.verify import verify_board
from callboard_router.purge import Needed, purge
from tests.hosts import open_stage
from tests.ledger_journal import random_journal
from tests.servers import NatsServer

_EVENTS = 700


class Audited:
    """A board whose ledger has audited and signed everything."""

    def __init__(self, link: Connection, publisher: Publisher, options: LedgerOptions) -> None:
        self.link = link
        self.publisher = publisher
        self.options = options
        self.topology = Topology(Subjects(options.prefix))
        self.last = 0

    @property
    def trust(self) -> Trust:
        return trust_of(self.options.store)

    async def publish(self, seed: int, count: int = _EVENTS) -> None:
        prefix = self.options.prefix
        for record in random_journal(seed, count):
            subject = f"{prefix}.{record.subject.partition('.')[2]}"
            if not subject.isascii() or "*" in subject:
                subject = f"{prefix}.run.odd"
            self.publisher.publish(subject, record.data, headers=record.headers)
        await self.publisher.settled()
        self.last += count
        await self.signed(self.last)

    async def signed(self, size: int) -> Checkpoint:
        """The latest checkpoint, once it covers `size` leaves."""
        async with asyncio.timeout(30):
            while True:
                found = await latest_checkpoint(self.link, self.topology, self.trust.keys)
                if found is not None and found.size >= size:
                    return found
                await asyncio.sleep(0.05)  # a checkpoint's subject is not republished

    async def position(self, archive: int = 0) -> dict[str, Any]:
        subject = self.topology.subjects.ask("all", "position")
        reply = await self.link.request(subject, b'{"archive":%d}' % archive)
        answer: dict[str, Any] = msgspec.json.decode(reply.data)
        return answer

    async def archived(self, seq: int) -> None:
        async with asyncio.timeout(30):
            while (await self.position(seq)).get("archived", 0) < seq:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.05)

    async def export(self, path: Path, choice: Choice | None = None, **more: Any) -> Exported:
        with path.open("wb") as file:
            return await export_board(
                self.link, self.topology, choice or Choice(), file.write, self.trust, **more
            )


@asynccontextmanager
async def audited(nats: NatsServer, directory: Path, **more: Any) -> AsyncIterator[Audited]:
    """A board with a ledger in this process, that signs ten times a second."""
    more.setdefault("checkpoint", CheckpointOptions(seconds=0.1))
    options = LedgerOptions(
        url=nats.url, prefix=nats.prefix, store=directory / "ledger", batch=90, **more
    )
    ready, stop = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(run_ledger(options, ready=ready.set, stop=stop))
        await ready.wait()
        async with open_link(nats.url, name="test") as link, Publisher(link) as publisher:
            yield Audited(link, publisher, options)
        stop.set()


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    """Return once the ledger has said so."""
    async with asyncio.timeout(30):
        while text not in caplog.text:  # noqa: ASYNC110  a log tells nobody
            await asyncio.sleep(0.05)


async def test_an_export_of_a_board_verifies_with_the_public_key_alone(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with audited(nats, tmp_path) as board:
        await board.publish(1)
        old = await board.signed(_EVENTS)
        await board.publish(2)
        path = tmp_path / "all"
        assert await board.export(path) == Exported(2 * _EVENTS, 0)
        public = PublicKey.read(str(board.options.store / "audit.pub"))
        report = check_export(path, Trust(keys=[public], checkpoints=[old]))
        assert report.findings == []
        assert report.anchored
        some = tmp_path / "some"
        count = (await board.export(some, Choice(tenant="acme"))).events
        report = check_export(some, Trust(keys=[public], checkpoints=[old]))
        assert report.findings == []
        assert (report.events, report.anchored) == (count, True)
        assert 0 < count < 2 * _EVENTS


async def test_every_event_has_a_proof_that_is_made_of_a_few_messages(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with audited(nats, tmp_path) as board:
        await board.publish(3)
        keys = tuple(board.trust.keys)
        for seq in (1, 2, 256, 257, 500, _EVENTS):
            text = (await prove(board.link, board.topology, seq, keys)).text()
            report = check_proof(text, keys)
            assert report.findings == []
            assert report.leaf["seq"] == seq
            forged = text.replace("index ", "index 1", 1)
            assert {f.kind for f in check_proof(forged, keys).findings} == {"events-replaced"}
        stranger = SigningKey.new(keys[0].name).public
        assert {f.kind for f in check_proof(text, (stranger,)).findings} == {"checkpoint-forged"}
        with pytest.raises(BadInput, match=f"no event {_EVENTS + 1}"):
            await prove(board.link, board.topology, _EVENTS + 1, keys)


async def test_a_later_checkpoint_is_shown_to_continue_an_older_one(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with audited(nats, tmp_path) as board:
        await board.publish(4)
        old = await board.signed(_EVENTS)
        await board.publish(5)
        new = await board.signed(2 * _EVENTS)
        tree = AuditTree(board.link, board.topology)
        proof = await tree.consistency(old.size, new.size)
        assert is_consistent((old.size, old.root), (new.size, new.root), proof)
        assert not is_consistent((old.size, new.root), (new.size, new.root), proof)


async def test_what_is_purged_was_archived_and_still_verifies(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_ledger.archiving._MOST_LEAVES", 150)
    monkeypatch.setattr("callboard_ledger.audit._MOST_LEAVES", 45)
    async with audited(nats, tmp_path) as board:
        await board.publish(6)
        whole = await verify_board(board.link, board.topology, board.trust)
        assert whole.findings == []
        needed = Needed(floor=500, snapshot=600, epoch=600)
        assert await purge(board.link, board.topology, needed, retention_days=0) == 0
        folder = ArchiveFolder(board.options.store / "archive")
        async with asyncio.timeout(30):
            while folder.last() < 400:  # noqa: ASYNC110  a file tells nobody
                await asyncio.sleep(0.05)
        last = folder.last()
        assert last < 500  # whole batches, up to what shall go
        await board.archived(last)
        assert await purge(board.link, board.topology, needed, retention_days=0) == last
        kept = await verify_board(board.link, board.topology, board.trust)
        assert (kept.findings, kept.archived) == ([], last)
        events = list(archived_events(folder))
        assert [event.seq for event in events] == list(range(1, last + 1))
        report = await verify_board(board.link, board.topology, board.trust, archive=iter(events))
        assert (report.findings, report.events) == ([], _EVENTS)
        missing = events[:99] + events[100:]
        report = await verify_board(board.link, board.topology, board.trust, archive=missing)
        assert [f.text for f in report.findings] == [
            "deleted: audited, and no longer there: event 100"
        ]
        path = tmp_path / "all"
        assert await board.export(path, archive=iter(events)) == Exported(_EVENTS, 0)
        report = check_export(path, board.trust)
        assert (report.ok, report.absent) == (True, 0)
        assert await board.export(path) == Exported(_EVENTS, last)
        assert check_export(path, board.trust).absent == last


async def test_each_segment_of_an_archive_verifies_by_itself(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_ledger.archiving._MOST_LEAVES", 150)
    monkeypatch.setattr("callboard_ledger.audit._MOST_LEAVES", 45)
    elsewhere = tmp_path / "elsewhere"
    async with audited(nats, tmp_path, archive=elsewhere) as board:
        await board.publish(7)
        await board.archived(_EVENTS)
    segments = ArchiveFolder(elsewhere).segments()
    assert [s.first for s in segments[1:]] == [s.last + 1 for s in segments[:-1]]
    assert len(segments) > 3
    trust = Trust(keys=board.trust.keys)
    for segment in segments:
        report = check_export(segment.path, trust)
        assert (report.findings, report.first, report.last) == ([], segment.first, segment.last)
    path = segments[1].path
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[:-1])))
    assert {f.kind for f in check_export(path, trust).findings} == {"tail-cut"}
    async with audited(nats, tmp_path, archive=elsewhere) as board:
        await board.archived(_EVENTS)


async def test_what_is_not_as_it_was_audited_is_neither_archived_nor_purged(
    nats: NatsServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("callboard_ledger.audit._MOST_LEAVES", 45)
    async with audited(nats, tmp_path) as board:
        await board.publish(10, 300)
        await board.link.api(f"STREAM.MSG.DELETE.{board.topology.journal}", {"seq": 150})
        await board.position(300)
        await logged(caplog, "event 150 in the journal is not as it was audited")
        needed = Needed(floor=200, snapshot=200, epoch=200)
        assert await purge(board.link, board.topology, needed, retention_days=0) == 0
        report = await verify_board(board.link, board.topology, board.trust)
        assert [(f.kind, f.first, f.last) for f in report.findings] == [("event-missing", 150, 150)]


async def test_a_front_that_was_purged_behind_the_back_of_the_ledger_is_missed(
    nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_ledger.audit._MOST_LEAVES", 45)
    async with audited(nats, tmp_path) as board:
        await board.publish(12, 300)
        await board.link.api(f"STREAM.PURGE.{board.topology.journal}", {"seq": 50})
        await board.archived(300)
        report = await verify_board(board.link, board.topology, board.trust)
        assert [(f.kind, f.first, f.last) for f in report.findings] == [("event-missing", 1, 49)]


async def test_the_archive_of_another_log_is_not_taken_for_its_own(
    nats: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = tmp_path / "elsewhere"
    async with audited(nats, tmp_path, archive=elsewhere) as board:
        await board.publish(11, 100)
        await board.archived(100)
        for name in ("audit.key", "checkpoints"):
            (board.options.store / name).rename(tmp_path / name)
    async with audited(nats, tmp_path, archive=elsewhere) as board:
        await board.position(100)
        await logged(caplog, "move it and its like away")
        assert "archived" not in await board.position(100)


async def test_where_nothing_is_archived_a_purge_needs_none(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with audited(nats, tmp_path, archiving=False) as board:
        await board.publish(8, 200)
        needed = Needed(floor=150, snapshot=150, epoch=150)
        assert await purge(board.link, board.topology, needed, retention_days=0) == 149
        assert not (board.options.store / "archive").exists()


@contextmanager
def receiver() -> Iterator[tuple[str, list[str]]]:
    """A URL, and the bodies posted to it; it fails the first time."""
    bodies: list[str] = []
    failed: list[bool] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            if not failed:
                failed.append(True)
                self.send_error(503)
                return
            bodies.append(body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/checkpoints", bodies
        finally:
            server.shutdown()
            thread.join()


async def test_checkpoints_reach_a_url_also_after_a_failure(
    nats: NatsServer, tmp_path: Path
) -> None:
    with receiver() as (url, bodies):
        checkpoint = CheckpointOptions(seconds=0.1, url=url)
        async with audited(nats, tmp_path, checkpoint=checkpoint) as board:
            await board.publish(9, 100)
            keys = board.trust.keys
        assert Checkpoint.read(bodies[-1], keys).size == 100


@agent("echo")
async def echo(value: Any) -> Any:
    return value


async def test_a_host_signs_its_outcomes_and_nobody_else_can_in_its_name(
    nats: NatsServer, tmp_path: Path
) -> None:
    async with open_stage(nats) as stage, audited(nats, tmp_path) as board:
        await stage.queue("echo")
        options = HostOptions(url=nats.url, prefix=nats.prefix, name="signer", signing=OWN_KEY)
        host = Host([echo], options)
        async with asyncio.TaskGroup() as group:
            group.create_task(host.run())
            await host.ready()
            dispatch = await stage.dispatch("echo", {"n": 1})
            async with asyncio.timeout(30):
                while not stage.outcomes:  # noqa: ASYNC110  the stage reads on
                    await asyncio.sleep(0.02)
            host.drain()
        outcome = next(found for found in stage.outcomes if found.task == dispatch.task)
        last = (await board.position())["last"]
        await board.signed(last)
        report = await verify_board(board.link, board.topology, board.trust)
        assert (report.findings, report.outcomes_signed) == ([], 1)
        forged = msgspec.structs.replace(outcome, result=msgspec.Raw(b'"evil"'))
        subject = board.topology.subjects.run("acme", "outcome", 7)
        seq = await board.publisher.put(subject, msgspec.json.encode(forged))
        await board.signed(seq)
        report = await verify_board(board.link, board.topology, board.trust)
        assert [(f.kind, f.first) for f in report.findings] == [("outcome-unsigned", seq)]


async def test_a_board_without_a_ledger_has_no_checkpoint(nats: NatsServer) -> None:
    topology = Topology(Subjects(nats.prefix))
    async with open_link(nats.url, name="test") as link:
        await ensure_streams(link, topology)
        assert await latest_checkpoint(link, topology, ()) is None
        with pytest.raises(BadInput, match="AUDIT holds none"):
            await prove(link, topology, 1)


async def test_proofs_of_a_tree_of_many_tiles_are_made_of_its_tiles(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callboard_ledger.audit._MOST_BYTES", 20_000)
    topology = Topology(Subjects(nats.prefix))
    size = 66_500
    leaves = [b'[%d,0,"","","","","","",""]' % seq for seq in range(1, size + 1)]
    whole = Tree()
    for leaf in leaves:
        whole.append(leaf_hash(leaf))
    async with open_link(nats.url, name="test") as link, Publisher(link) as publisher:
        await ensure_streams(link, topology)

        def publish(data: bytes, headers: bytes, done: Done) -> None:
            publisher.publish(topology.subjects.audit, data, headers=headers, done=done)

        auditor = Auditor(publish, await read_tail(link, topology))
        auditor._waiting.extend(enumerate(leaves, 1))
        while auditor.waiting:
            auditor.changed.clear()
            auditor.flush()
            await auditor.changed.wait()
        assert auditor.tail.root == whole.root
        assert auditor.tail == await read_tail(link, topology)
        assert [len(tile) for tile in auditor.tail.tiles] == [3, 1]
        for index in (0, 255, 256, 30_000, 65_535, 65_536, size - 1):
            tree = AuditTree(link, topology)
            proof = await tree.inclusion(index, size)
            leaf = leaf_hash(leaves[index])
            assert is_included(leaf, index, size=size, proof=proof, root=whole.root)
            assert len(tree._seen) < 60
        assert await root_at(link, topology, 65_537) == root_of_first(leaves, 65_537)


def root_of_first(leaves: list[bytes], size: int) -> bytes:
    tree = Tree()
    for leaf in leaves[:size]:
        tree.append(leaf_hash(leaf))
    return tree.root
