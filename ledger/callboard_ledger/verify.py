"""Whether the journal is what the audit log says it was: names every event and batch that is not.

AUDIT is read first: its tree is computed anew and compared with what each batch and each signed
checkpoint states, and 49 bytes of every leaf go to a file. Then the journal is compared with that
file in one pass, so that memory does not grow with either. What the log alone cannot show, that its
tail was cut or that all of it was written anew, the checkpoints kept outside the server show.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import msgspec

from callboard_broker.connection import Connection
from callboard_broker.errors import BadInput
from callboard_broker.record import Record
from callboard_broker.streams import Topology
from callboard_broker.subjects import Subjects
from callboard_ledger.comparing import Comparing, LeafFile
from callboard_ledger.findings import Finding, FindingKind, Findings
from callboard_ledger.leaves import Batch, Leaf, decode_batch, event_hashes
from callboard_ledger.merkle import Tree, leaf_hash, root_of
from callboard_ledger.notes import Checkpoint, NoteBroken, UnknownSigner
from callboard_ledger.outcome_check import OutcomeCheck
from callboard_ledger.records import Archived, HostKey, read_record
from callboard_ledger.scan import scan
from callboard_ledger.trust import Trust

__all__ = ["Verifier", "VerifyReport", "verify", "verify_board"]

_TELL_EVERY = 1_000
_EDGES = 4_096  # ends of batches whose trees are remembered, for checkpoints that come after them
_Hashed = tuple[Leaf, bytes, bytes]
"""A leaf, its event's hash, and the beginning of its payload's."""

_EVENTS: frozenset[FindingKind] = frozenset(
    {"event-changed", "event-missing", "event-moved", "outcome-forged"}
)


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """ok: nothing was found. events: compared. audited: leaves. batches, checkpoints: in AUDIT.

    unaudited_tail: events after the last audited one. archived: audited events that are no longer
    in the journal, and were archived before. signed: the log's key was given, and checkpoints were
    checked with it. anchored: a checkpoint from outside was compared; without one, a cut tail of
    AUDIT cannot be seen. outcomes_signed, outcomes_unattested: see `OutcomeCheck`. root: hex.
    """

    ok: bool
    events: int
    audited: int
    batches: int
    checkpoints: int
    unaudited_tail: int
    archived: int
    signed: bool
    anchored: bool
    outcomes_signed: int
    outcomes_unattested: int
    root: str
    findings: list[Finding]


class Verifier:
    """Feed it AUDIT in full (`audit`), then what is archived and the journal, in full (`event`,
    with `begin_journal` in between), then ask `report`. A context: it has a file."""

    def __init__(self, subjects: Subjects, trust: Trust | None = None) -> None:
        self._subjects = subjects
        self._trust = trust or Trust()
        self._findings = Findings()
        self._outside: dict[int, set[bytes]] = {}  # two of one size: it was written anew in between
        for checkpoint in self._trust.checkpoints:
            self._outside.setdefault(checkpoint.size, set()).add(checkpoint.root)
        self._sizes = sorted(self._outside)
        self._tree = Tree()
        self._edges: OrderedDict[int, tuple[bytes, ...]] = OrderedDict()
        self._batches = self._checkpoints = self._own = 0
        self._last = 0  # message of AUDIT
        self._last_leaf = 0
        self._hole = False  # leaves are unknown from here to the next sound batch
        self._holes: list[tuple[int, int]] = []
        self._archived: list[tuple[int, int]] = []
        self._leaves = LeafFile()
        self._outcomes = OutcomeCheck(self._findings)
        self._comparing: Comparing | None = None
        self._same = self._events = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leaves.close()

    # -- AUDIT

    def audit(self, record: Record) -> None:
        """The next message of AUDIT."""
        if record.seq > self._last + 1:
            self._findings.add("batch-missing", self._last + 1, record.seq - 1)
            self._hole = True
        self._last = record.seq
        if record.subject == self._subjects.audit:
            self._batch(record)
        elif record.subject == self._subjects.audit_checkpoints:
            self._checkpoint(record)
        elif record.subject == self._subjects.audit_records:
            self._note(record)
        else:
            self._findings.add("batch-changed", record.seq)

    def _batch(self, record: Record) -> None:
        self._batches += 1
        opened = self._open(record)
        if opened is None:
            self._findings.add("batch-changed", record.seq)
            self._hole = True
            return
        batch, leaves, digests, after = opened
        tree = self._tree
        others: list[int] = []
        sound = not self._hole and batch.index == tree.size
        if self._hole:
            self._holes.append((self._last_leaf + 1, batch.first - 1))
            self._last_leaf = batch.first - 1
            self._hole = False
        elif not sound:
            self._findings.add("tree-broken", record.seq)
        if sound:
            others = self._grow(digests)
            if tree.edge != after.edge or (batch.tiles and tree.tiles != after.tiles):
                self._findings.add("tree-broken", record.seq)
                sound = False
        if not sound:  # go on from what it states, so that only what is wrong is named
            self._tree = after
            size = after.size
            others = [size] if self._outside.get(size, set()) - {after.root} else []
        for size in others:
            self._findings.add("audit-rewritten", size)
        for leaf, digest, payload in leaves:
            if leaf.seq > self._last_leaf + 1:
                # JetStream never skips a sequence: what the ledger did not see had been deleted.
                self._findings.add("event-unseen", self._last_leaf + 1, leaf.seq - 1)
            self._leaves.add(leaf.seq, digest, payload)
            self._last_leaf = leaf.seq
        self._edges[self._tree.size] = tuple(self._tree.edge)
        if len(self._edges) > _EDGES:
            self._edges.popitem(last=False)

    def _open(self, record: Record) -> tuple[Batch, list[_Hashed], list[bytes], Tree] | None:
        """The batch, its leaves and their hashes, and the tree it states, if it can be read."""
        try:
            batch = decode_batch(record.data)
            leaves, raw = batch.unpack()
            found = [(leaf, *event_hashes(leaf)) for leaf in leaves]
            after = batch.after(batch.index + len(leaves))
        except BadInput:
            return None
        if not _in_order(batch, found, self._last_leaf):
            return None
        if not after.tiles:
            after.tiles = self._tree.tiles
        return batch, found, [leaf_hash(leaf) for leaf in raw], after

    def _grow(self, digests: list[bytes]) -> list[int]:
        """Add leaves to the tree; returns at which sizes it is not that of a checkpoint kept
        outside."""
        others: list[int] = []
        tree = self._tree
        end = tree.size + len(digests)
        at = bisect_left(self._sizes, tree.size + 1)
        for size in self._sizes[at : bisect_left(self._sizes, end + 1)]:
            count = size - tree.size
            for digest in digests[:count]:
                tree.append(digest)
            digests = digests[count:]
            if self._outside[size] - {tree.root}:
                others.append(size)
        for digest in digests:
            tree.append(digest)
        return others

    def _checkpoint(self, record: Record) -> None:
        self._checkpoints += 1
        own = True
        try:
            note = record.data.decode()
            try:
                stated = Checkpoint.read(note, self._trust.keys)
            except UnknownSigner:  # another ledger of this board may have a key of its own
                stated, own = Checkpoint.read(note, ()), False
        except (NoteBroken, UnicodeDecodeError):
            self._findings.add("checkpoint-forged", self._tree.size)
            return
        self._own += own
        edge = self._edges.get(stated.size)
        known = self._tree.size if edge is None else stated.size
        if stated.size > known or (edge is not None and root_of(edge) != stated.root):
            self._findings.add("checkpoint-broken" if own else "checkpoint-forged", stated.size)

    def _note(self, record: Record) -> None:
        try:
            said = read_record(record.data.decode(), self._trust.keys)
        except UnknownSigner:
            return  # another ledger's; it counts for nothing here
        except (BadInput, UnicodeDecodeError):
            self._findings.add("record-forged", record.seq)
            return
        if isinstance(said, HostKey):
            self._outcomes.learn(said)
        elif isinstance(said, Archived):
            if self._archived and self._archived[-1][1] + 1 == said.first:
                self._archived[-1] = self._archived[-1][0], said.last
            else:
                self._archived.append((said.first, said.last))

    # -- events

    def event(self, record: Record) -> None:
        """The next event: of the archive, or of the journal."""
        if self._comparing is None:
            self._comparing = Comparing(self._leaves, self._findings, self._holes)
        self._comparing.event(record)
        self._outcomes.event(record)

    def begin_journal(self, first: int) -> None:
        """What comes now is the journal, whose first event is `first`; archived were those before
        in full, up to the last that was given."""
        covered = self._archived
        if self._comparing is not None:
            self._comparing.close()
            self._take(self._comparing)
            first = min(first, self._comparing.at)
            covered = [(1, self._comparing.at - 1)]
        self._comparing = Comparing(
            self._leaves, self._findings, self._holes, start=first, covered=covered
        )

    def _take(self, comparing: Comparing) -> None:
        self._same += comparing.same
        self._events += comparing.events

    def report(self) -> VerifyReport:
        """What was found, after everything was fed. Call it once."""
        comparing = self._comparing or Comparing(self._leaves, self._findings, self._holes)
        comparing.end()
        self._take(comparing)
        known = max(self._sizes, default=0)
        tree, leaves = self._tree, self._leaves
        if self._checkpoints and not self._own:
            self._findings.add("checkpoint-forged", tree.size)
        if known > tree.size:
            self._findings.add("audit-cut", tree.size + 1, known)
        if not self._same and comparing.skipped < leaves.count:
            self._findings.drop(_EVENTS)
            self._findings.add("journal-replaced", leaves.first, leaves.last)
        return VerifyReport(
            ok=not self._findings,
            events=self._events,
            audited=leaves.count,
            batches=self._batches,
            checkpoints=self._checkpoints,
            unaudited_tail=comparing.tail,
            archived=comparing.skipped,
            signed=bool(self._trust.keys),
            anchored=bool(self._outside),
            outcomes_signed=self._outcomes.signed,
            outcomes_unattested=self._outcomes.unattested,
            root=tree.root.hex(),
            findings=self._findings.told(),
        )


def verify(
    journal: Iterable[Record],
    audit: Iterable[Record],
    trust: Trust | None = None,
    *,
    subjects: Subjects | None = None,
    archive: Iterable[Record] = (),
    first: int = 1,
) -> VerifyReport:
    """Compare the journal, whose first event is `first`, with its audit log, both in order."""
    with Verifier(subjects or Subjects(), trust) as verifier:
        for record in audit:
            verifier.audit(record)
        for record in archive:
            verifier.event(record)
        verifier.begin_journal(first)
        for record in journal:
            verifier.event(record)
        return verifier.report()


async def verify_board(
    connection: Connection,
    topology: Topology,
    trust: Trust | None = None,
    *,
    archive: Iterable[Record] = (),
    progress: Callable[[str, int], None] | None = None,
) -> VerifyReport:
    """Compare a board's journal with its audit log; it may be in use meanwhile.

    trust: read its checkpoints before. archive: what was purged, in order. progress: hears now and
    then which stream is read, and which sequence of it. Raises `StreamMissing`, and what reading
    raises.
    """
    with Verifier(topology.subjects, trust) as verifier:

        def audit(record: Record) -> None:
            verifier.audit(record)
            if progress is not None:
                progress("AUDIT", record.seq)

        def compare(record: Record) -> None:
            verifier.event(record)
            if progress is not None and record.seq % _TELL_EVERY == 0:
                progress("event", record.seq)

        info = await connection.api(f"STREAM.INFO.{topology.journal}")
        await scan(connection, topology.audit, audit)
        for record in archive:
            compare(record)
        verifier.begin_journal(int(info["state"]["first_seq"]))
        # The journal last: its end then lies behind everything that AUDIT was read to know.
        await scan(connection, topology.journal, compare)
        return verifier.report()


def _in_order(batch: Batch, leaves: list[_Hashed], after: int) -> bool:
    """The leaves ascend, lie after the batch before, and are those that the batch claims."""
    if not leaves or leaves[0][0].seq != batch.first or leaves[-1][0].seq != batch.last:
        return False
    for leaf, digest, _ in leaves:
        if leaf.seq <= after or len(digest) != 32:
            return False
        after = leaf.seq
    return True
